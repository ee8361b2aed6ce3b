"""Commands about kernels, their functions, and what this machine can do."""

from __future__ import annotations

import argparse
import sys

from harness.cli import kernels as names
from harness.cli.output import write
from harness.cli.statuses import NO
from harness.numbers import MOST_BUFFER_KIB, seconds, whole
from harness.programs import refuse_not_runnable
from harness.text import colour, in_colour, lines, numbers_in

# Imports of a subcommand's own modules stand in its functions: the others need not wait for them.


def kernels(parser: argparse.ArgumentParser) -> None:
    """List, fetch and remove kernel images."""
    from harness.vm import images, kernel_image, progress, template

    def show(_: argparse.Namespace) -> int:
        rows = []
        default = images.find(images.DEFAULT)
        for image in images.images():
            how = "default" if image == default else kernel_image.ADDED if image.is_added else ""
            rows.append((image.series, how, image.release, str(image.vmlinuz)))
        fetched = {series for series, how, _, _ in rows if how != kernel_image.ADDED}
        for series in images.SERIES.keys() - fetched:
            how = "default" if default is None and series == images.DEFAULT_SERIES else ""
            rows.append((series, how, "-", f"nft-harness kernels fetch {series}"))
        for series, how, release, place in sorted(rows, key=lambda row: numbers_in(row[0])):
            print(f"{series:6}{how:9}{release:24}{place}")
        for one in template.all_templates():
            print(f"template  {one.name}  {one.bytes >> 20} MiB")
        return 0

    def fetch(options: argparse.Namespace) -> int:
        with progress.shown(sys.stderr) as report:
            for version in options.version:
                images.fetch(version, report)
        return 0

    def add(options: argparse.Namespace) -> int:
        from harness.vm import packages

        with progress.shown(sys.stderr) as report:
            image = packages.add(options.package, report)
        print(f"pytest --nft-kernel {image.release}")
        return 0

    def remove(options: argparse.Namespace) -> int:
        for version in options.version:
            image = images.remove(version)
            print(f"removed {image.release}")
            for one in template.all_templates():
                if one.name.startswith(f"{image.release}-"):
                    template.discard(one)
        return 0

    def warm(options: argparse.Namespace) -> int:
        from harness.vm import making, microvm
        from harness.vm.accelerator import accelerator

        with progress.shown(sys.stderr) as report:
            for version in options.version:
                image = images.get(version, report)
                made = making.make(image, accelerator(image).name, microvm.MEMORY, report)
                print(f"template {made.name}, {made.bytes >> 20} MiB")
        return 0

    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("list", help="list the images in the cache and those that can be fetched")
    action.set_defaults(run=show)
    action = actions.add_parser("fetch", help="download images from the Debian archive, unless they are in the cache")
    action.add_argument(
        "version",
        nargs="*",
        default=[images.DEFAULT],
        help=f"{', '.join(images.SERIES)}; {names.DEFAULT_HELP}",
    )
    action.set_defaults(run=fetch)
    action = actions.add_parser(
        "add", help="make an image of kernel packages, for --nft-kernel RELEASE; nothing is installed"
    )
    action.add_argument(
        "package",
        nargs="+",
        help="FILE.deb, or the name of a package that apt knows, such as linux-image-generic; several make one kernel",
    )
    action.set_defaults(run=add)
    action = actions.add_parser(
        "warm", help="make templates: guests saved when ready to run, restored in about two seconds"
    )
    action.add_argument("version", nargs="*", default=[images.DEFAULT], help=names.DEFAULT_HELP)
    action.set_defaults(run=warm)
    action = actions.add_parser("remove", help="delete images and their templates from the cache folder")
    action.add_argument("version", nargs="+", help="a series (6.12) or a release (6.12.107+deb13-amd64)")
    action.set_defaults(run=remove)


def discover(parser: argparse.ArgumentParser) -> None:
    """List the kernel functions that take a packet, and whether they can be traced."""
    from pathlib import Path

    from harness.vm.images import DEFAULT

    def run(options: argparse.Namespace) -> int:
        from harness.trace import inspection
        from harness.tracer import listing

        if options.inside:
            inspection.send()
            return 0
        every = inspection.functions(options.kernel)
        functions = listing.select(every, layer=options.layer, priority=options.priority, match=options.match)
        files = [
            (options.output, listing.to_json(functions)),
            (options.config, listing.config(functions, options.max_trace)),
        ]
        for path, content in files:
            if path:
                write(path, content.decode())
        if not options.output and not options.config:
            print("\n".join(listing.to_lines(functions)))
        return 0

    parser.add_argument("--layer", help="only functions of this layer of the network stack, e.g. Netfilter")
    parser.add_argument(
        "--priority",
        type=whole(0, 2),
        metavar="N",
        help="0: critical functions only; 1: important ones as well; 2: all",
    )
    parser.add_argument("--match", metavar="GLOB", help="only functions whose name matches, e.g. 'ip_*'")
    add = parser.add_argument
    add("--output", type=Path, metavar="FILE", help="write JSON to FILE, - for standard output, instead of a table")
    add("--config", type=Path, metavar="FILE", help="write the functions to FILE, for nft-harness trace --config")
    parser.add_argument(
        "--max-trace", type=whole(1), metavar="N", help="with --config: write only the N most informative functions"
    )
    parser.add_argument(
        *names.OPTIONS,
        type=names.image,
        default=DEFAULT,
        help=f"kernel of the microVM, where that of this machine cannot be traced; {names.DEFAULT_HELP}",
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def doctor(parser: argparse.ArgumentParser) -> None:
    """Say what this machine can do, and where scenarios would run."""

    def run(options: argparse.Namespace) -> int:
        from harness.doctor import as_json, examine, missing, place

        if options.json:
            found = list(examine())
            print(as_json(found))
            return NO if missing(found) else 0
        found = []
        coloured = in_colour()
        for finding in examine():
            print(colour(finding.colour, lines(str(finding))) if coloured else lines(str(finding)), flush=True)
            found.append(finding)
        lacking = missing(found)
        print(f"scenarios cannot run here: {', '.join(lacking)}" if lacking else place())
        return NO if lacking else 0

    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def trace(parser: argparse.ArgumentParser) -> None:
    """Follow packets through the kernel's functions, here or beside a command in a microVM."""
    from pathlib import Path

    from harness.vm.images import DEFAULT

    def run(options: argparse.Namespace) -> int:
        from harness.trace import command, stored

        if options.read:
            return stored.main(options)
        return command.main(options, sys.argv[sys.argv.index("trace") + 1 :])

    def protocols(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    add = parser.add_argument
    add("--functions", nargs="+", default=[], metavar="GLOB", help="trace only these, e.g. ip_rcv 'nf_*'; default: all")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="trace only the functions in this file, which nft-harness discover --config writes",
    )
    add("--discover", action="store_true", help="trace all functions that take a packet (the default)")
    add("--max-functions", type=whole(1), metavar="N", help="trace only the N most informative functions")
    add(
        "--netns",
        action="append",
        default=[],
        metavar="NAME",
        help="only packets of this network namespace: a name, a process ID or a path; default: all",
    )
    add("--proto", type=protocols, default=[], metavar="NAMES", help="only packets of these protocols, e.g. tcp,udp")
    add(
        "--filter",
        default="",
        metavar="EXPRESSION",
        help="only packets that match a pcap-filter(7) expression, e.g. 'tcp port 80'",
    )
    add(
        "--duration",
        type=seconds,
        metavar="SECONDS",
        help="trace for so long; default: until the command ends, or Ctrl-C",
    )
    add("--stack", action="store_true", help="print the kernel stack under each line")
    add(
        "--group",
        choices=("time", "packet"),
        default="time",
        help="time (default): events as they happen; packet: all events of a packet together, once it is freed",
    )
    add("--json", action="store_true", help="print one JSON object per line")
    add(
        "--pcapng",
        type=Path,
        metavar="FILE",
        help="write a capture with a record for each event: the first bytes of the packet at that point",
    )
    add("--out", type=Path, metavar="FILE", help="write the whole trace to FILE as well, for --read")
    add("--read", type=Path, metavar="FILE", help="show a trace that --out wrote, instead of tracing")
    add(
        "--buffer",
        type=whole(1, MOST_BUFFER_KIB),
        metavar="KIB",
        help="size of the ring buffer for events; default: 8192",
    )
    add("--ready-file", type=Path, metavar="FILE", help="create FILE as soon as tracing has started")
    add(
        "--nft-tracer",
        default="auto",
        choices=("auto", "kprobe.multi", "fentry", "kprobe"),
        help="how functions are traced; auto (default) takes the best that the kernel has",
    )
    add(
        *names.OPTIONS,
        type=names.image,
        default=DEFAULT,
        help=f"kernel of the microVM, if one is needed; {names.DEFAULT_HELP}",
    )
    add("--dump-program", action="store_true", help="print the BPF program, instruction by instruction")
    add("--dump-metadata", action="store_true", help="print which number stands for which function in events")
    add("--dump-events", action="store_true", help="print every event undecoded before its line")
    add("--colour", action="store_true", help=argparse.SUPPRESS)
    add("--inside", action="store_true", help=argparse.SUPPRESS)
    add("argv", nargs="*", metavar="-- COMMAND", help="a program and its arguments")
    parser.set_defaults(run=run)


def vm(parser: argparse.ArgumentParser) -> None:
    """Run a command in another kernel, as root on this machine's files; what it writes is discarded."""
    from harness.vm.images import DEFAULT

    def run(options: argparse.Namespace) -> int:
        from harness.vm import microvm

        refuse_not_runnable(options.argv[0])
        return microvm.main(["--kernel", options.kernel, "--exec", *options.argv])

    parser.add_argument(
        *names.OPTIONS,
        type=names.image,
        default=DEFAULT,
        help=f"a version such as 6.12, installed, or a path; {names.DEFAULT_HELP}",
    )
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="a program and its arguments, after --")
    parser.set_defaults(run=run)
