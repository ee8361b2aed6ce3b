"""The command ``nft-harness``: one function per subcommand, called with the parsed options.

Exit statuses are listed in docs/reports.md. They are the same for all subcommands, and the program's own
for those that run one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from harness import __version__
from harness.ending import in_order
from harness.errors import HarnessError
from harness.text import escape, say

NO, UNABLE, BUG = 1, 2, 70
"""Exit statuses: the answer is no; what was asked for can't be done, or is wrong; EX_SOFTWARE of sysexits.h."""

# Imports of a subcommand's own modules stand in its functions: the others need not wait for them.


def init(parser: argparse.ArgumentParser) -> None:
    """Write a first scenario file for a ruleset: a packet for each rule and policy, and what becomes of it."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.init import command

        def tell(line: str) -> None:
            say(line, sys.stderr)

        return command.run(
            options.ruleset, options.output, kernel=options.kernel, measure=not options.no_run, tell=tell
        )

    parser.add_argument("ruleset", type=Path, help="an nft file; copied to scenarios/rulesets if it lies elsewhere")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: scenarios/NAME.yaml")
    parser.add_argument("--no-run", action="store_true", help="write packets only, for pytest --nft-record")
    parser.add_argument("--kernel", default="auto", help="auto (default), host, a version or a path")
    parser.set_defaults(run=run)


def kernels(parser: argparse.ArgumentParser) -> None:
    """List, fetch and remove kernel images."""
    from harness.vm import images, progress, template

    def show(_: argparse.Namespace) -> int:
        rows = [(image.series, image.release, str(image.vmlinuz)) for image in images.images()]
        fetched = {series for series, _, _ in rows}
        rows += [
            (series, "-", f"nft-harness kernels fetch {series}") for series in images.SERIES if series not in fetched
        ]
        for series, release, place in sorted(rows, key=lambda row: [int(number) for number in row[0].split(".")]):
            print(f"{series:6}{'default' if series == images.DEFAULT else '':9}{release:24}{place}")
        for one in template.all_templates():
            print(f"template  {one.name}  {one.bytes >> 20} MiB")
        return 0

    def fetch(options: argparse.Namespace) -> int:
        with progress.shown(sys.stderr) as report:
            for version in options.version:
                images.fetch(version, report)
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
    action = actions.add_parser("list", help="show the images that are here and those that can be fetched")
    action.set_defaults(run=show)
    action = actions.add_parser("fetch", help="download images from the Debian archive, unless they are here")
    action.add_argument(
        "version", nargs="*", default=[images.DEFAULT], help=f"{', '.join(images.SERIES)}; default: {images.DEFAULT}"
    )
    action.set_defaults(run=fetch)
    action = actions.add_parser(
        "warm", help="make templates: guests saved when ready to run, restored in a second or two"
    )
    action.add_argument("version", nargs="*", default=[images.DEFAULT], help=f"default: {images.DEFAULT}")
    action.set_defaults(run=warm)
    action = actions.add_parser("remove", help="delete images and their templates from the cache folder")
    action.add_argument("version", nargs="+", help="a series (6.12) or a release (6.12.107+deb13-amd64)")
    action.set_defaults(run=remove)


def check(parser: argparse.ArgumentParser) -> None:
    """Check scenario files without running them."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.model.layers import NAMES
        from harness.scenario.problems import checked

        found = checked(options.path, layers=NAMES)
        for error in found.errors:
            say(error)
        if found.errors:
            return NO
        numbers = ((found.files, "file"), (found.scenarios, "scenario"))
        print(", ".join(f"{number} {noun}{'s'[: number != 1]}" for number, noun in numbers) + ": right")
        for path in found.left_alone:
            print(f"{path}: skipped: not a scenario file")
        return 0

    parser.add_argument("path", nargs="+", type=Path, help="a scenario file, or a folder of them")
    parser.set_defaults(run=run)


def report(parser: argparse.ArgumentParser) -> None:
    """Make reports of stored results again, of several runs taken together."""
    from pathlib import Path

    from harness.report import kinds

    def run(options: argparse.Namespace) -> int:
        from harness import untrusted

        with untrusted.boundary("these results are not what nft-harness stores", remedy="run the scenarios again"):
            return reported(options)

    def reported(options: argparse.Namespace) -> int:
        from harness.model import result

        results = result.load(options.results)
        if changed := result.changed(results, Path()):
            names = escape(", ".join(changed))
            say(
                f"nft-harness: {names}: changed since the run; line numbers in the reports are those of the run",
                sys.stderr,
            )
        asked = list(kinds.asked(options))
        for kind, path in asked:
            kinds.write(kind, results, Path(path), Path())
        if options.nft_github:
            from harness.report import github

            for command in github.commands(results, Path()):
                print(command)
        if not kinds.covers(options):
            if not asked and not options.nft_github:
                for one in results:
                    kernel = f" ({one.kernel})" if one.kernel else ""
                    say(escape(f"{one.outcome:8}{one.position}: {one.name}{kernel}"))
            return 0
        from harness.report.coverage import RuleCoverage

        covered = RuleCoverage(results, Path())
        if options.nft_cov:
            say("\n".join(covered.lines()))
        if shortfall := covered.shortfall(options.nft_cov_fail_under):
            say(f"nft-harness: {shortfall}", sys.stderr)
        return NO if shortfall else 0

    parser.add_argument(
        "results", nargs="+", type=Path, help="what pytest --nft-results or --nft-jsonl stored: folders or files"
    )
    for kind in kinds.KINDS:
        parser.add_argument(f"--{kind.name}", dest=kind.option, metavar=kind.path, help=f"write {kind.what}")
    parser.add_argument("--github", dest="nft_github", action="store_true", help="print annotations for GitHub Actions")
    parser.add_argument("--cov", dest="nft_cov", action="store_true", help="show rule coverage")
    parser.add_argument(
        "--cov-fail-under",
        dest="nft_cov_fail_under",
        type=float,
        metavar="PERCENT",
        help="exit with status 1 if coverage is below PERCENT",
    )
    parser.set_defaults(run=run)


def lab(parser: argparse.ArgumentParser) -> None:
    """Draw labs, and enter them."""
    from pathlib import Path

    def enter(options: argparse.Namespace) -> int:
        from harness.shell import enter

        file, _, scenario = options.scenario.partition("::")
        wish = enter.ShellRequest(
            file=Path(file),
            scenario=scenario,
            host=options.host,
            argv=tuple(options.argv),
            send=not options.fresh,
            kernel=options.kernel,
            modules=options.modules,
        )
        return enter.enter(wish)

    def remove(_: argparse.Namespace) -> int:
        from harness.lab import named

        for name in named.remove():
            say(f"removed {name}")
        return 0

    def show(options: argparse.Namespace) -> int:
        from harness.scenario.load import load_lab
        from harness.topology import drawing

        network = load_lab(options.file)
        say((drawing.mermaid(network) if options.mermaid else drawing.text(network)).rstrip("\n"))
        return 0

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("enter", help="build the lab of a scenario, and open a shell or run a command in it")
    action.add_argument(
        "scenario", metavar="FILE[::SCENARIO]", help="a scenario as pytest names it; of a file alone the first one"
    )
    action.add_argument("--host", default="", help="the host to be in; default: the device under test")
    action.add_argument("--fresh", action="store_true", help="send none of the scenario's packets beforehand")
    action.add_argument("--kernel", default="auto", help="auto (default), host, a version or a path")
    action.add_argument(
        "--modules", default="", metavar="NAMES", help="kernel modules that may be loaded here, as pytest --nft-modules"
    )
    action.add_argument("argv", nargs="*", metavar="-- COMMAND", help="a program and its arguments; default: a shell")
    action.set_defaults(run=enter)
    action = actions.add_parser("remove", help="take away labs that pytest --nft-keep has left")
    action.set_defaults(run=remove)
    action = actions.add_parser("show", help="draw the lab of a scenario file, or of a file in a folder labs")
    action.add_argument("file", type=Path, help="the file")
    action.add_argument("--mermaid", action="store_true", help="print a Mermaid diagram")
    action.set_defaults(run=show)


def schema(parser: argparse.ArgumentParser) -> None:
    """Print the JSON Schema of scenario files."""

    def run(options: argparse.Namespace) -> int:
        from harness.scenario.reference import reference
        from harness.scenario.schema import as_json

        print(reference() if options.markdown else as_json(), end="")
        return 0

    parser.add_argument("--markdown", action="store_true", help="print the reference of the language instead")
    parser.set_defaults(run=run)


def discover(parser: argparse.ArgumentParser) -> None:
    """List the kernel functions that take a packet, and whether they can be traced."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.tracer import listing
        from harness.tracer.survey import Survey

        every = Survey().functions()
        functions = listing.select(every, layer=options.layer, priority=options.priority, match=options.match)
        files = [
            (options.output, listing.to_json(functions)),
            (options.config, listing.config(functions, options.max_trace)),
        ]
        for path, content in files:
            try:
                if path:
                    path.write_bytes(content)
            except OSError as error:
                raise HarnessError(f"{path} can't be written: {error.strerror}") from None
        if not options.output and not options.config:
            print("\n".join(listing.to_lines(functions)))
        return 0

    parser.add_argument("--layer", help="only this layer of the network stack, e.g. Netfilter")
    parser.add_argument("--priority", type=int, choices=(0, 1, 2), help="0 critical, 1 important, 2 other")
    parser.add_argument("--match", metavar="GLOB", help="only names like this, e.g. 'ip_*'")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON there instead of a table")
    parser.add_argument("--config", type=Path, metavar="FILE", help="write a file for nft-harness trace --config")
    parser.add_argument(
        "--max-trace", type=int, metavar="N", help="write only the N most informative ones to that file"
    )
    parser.set_defaults(run=run)


def doctor(parser: argparse.ArgumentParser) -> None:
    """Say what this machine can do, and where scenarios would run."""

    def run(_: argparse.Namespace) -> int:
        from harness.doctor import examine, place

        missing = []
        for finding in examine():
            say(finding)
            missing += [finding.what] if finding.needed and not finding.able else []
        print(f"scenarios cannot run here: {', '.join(missing)}" if missing else place())
        return NO if missing else 0

    parser.set_defaults(run=run)


def trace(parser: argparse.ArgumentParser) -> None:
    """Follow packets through the kernel's functions, here or beside a command in a microVM."""
    from pathlib import Path

    from harness.vm.images import DEFAULT

    def run(options: argparse.Namespace) -> int:
        from harness.trace import command

        return command.main(options, sys.argv[sys.argv.index("trace") + 1 :])

    def protocols(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    add = parser.add_argument
    add("--functions", nargs="+", default=[], metavar="GLOB", help="only these, e.g. ip_rcv 'nf_*'; default: all")
    add("--config", type=Path, metavar="FILE", help="only the functions in this file of nft-harness discover")
    add("--discover", action="store_true", help="all that the kernel has; the default")
    add("--max-functions", type=int, metavar="N", help="the N most informative ones")
    add("--netns", action="append", default=[], metavar="NAME", help="a name, a process id or a path; default: all")
    add("--proto", type=protocols, default=[], metavar="NAMES", help="tcp,udp")
    add("--filter", default="", metavar="EXPRESSION", help="as tcpdump has them, see pcap-filter(7): 'tcp port 80'")
    add("--duration", type=float, metavar="SECONDS", help="default: until the command ends, or Ctrl-C")
    add("--stack", action="store_true", help="how the kernel came there, under each line")
    add("--group", choices=("time", "packet"), default="time", help="packet: packet by packet, each when it is gone")
    add("--json", action="store_true", help="an object a line")
    add("--pcapng", type=Path, metavar="FILE", help="write a capture: each event, with the packet's first bytes there")
    add("--buffer", type=int, metavar="KIB", help="between the kernel and us, in memory; default: 8192")
    add("--ready-file", type=Path, metavar="FILE", help="made once every packet is seen")
    add("--nft-tracer", default="auto", choices=("auto", "kprobe.multi", "fentry", "kprobe"), help="how to attach")
    add("--kernel", default=DEFAULT, help=f"of the microVM, when one is needed; default: {DEFAULT}")
    add("--dump-program", action="store_true", help="show the instructions that the kernel runs")
    add("--dump-metadata", action="store_true", help="show the functions by their numbers in events")
    add("--dump-events", action="store_true", help="show every event raw, before its line")
    add("--inside", action="store_true", help=argparse.SUPPRESS)
    add("argv", nargs="*", metavar="-- COMMAND", help="a program and its arguments")
    parser.set_defaults(run=run)


def vm(parser: argparse.ArgumentParser) -> None:
    """Run a command in another kernel, as root on this machine's files; what it writes vanishes."""
    from harness.vm.images import DEFAULT

    def run(options: argparse.Namespace) -> int:
        from harness.vm import microvm

        return microvm.main(["--kernel", options.kernel, "--exec", *options.argv])

    parser.add_argument("--kernel", default=DEFAULT, help=f"a version or a path; default: {DEFAULT}")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="a program and its arguments, after --")
    parser.set_defaults(run=run)


COMMANDS: tuple[Callable[[argparse.ArgumentParser], None], ...] = (
    check,
    discover,
    doctor,
    init,
    kernels,
    lab,
    report,
    schema,
    trace,
    vm,
)
"""The subcommands: each is named and described by a function that adds its arguments and sets ``run``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``nft-harness`` with ``arguments`` (default: the process's); its exit status."""
    try:
        with in_order():
            return _run(arguments)
    except HarnessError as error:
        say(f"nft-harness: error: {error}", sys.stderr)
        return UNABLE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who reads our output has seen enough
        _write_no_more()
        return 128 + signal.SIGPIPE
    except OSError as error:  # such as a full disk, wherever that is met
        say(f"nft-harness: error: {error}", sys.stderr)
        _write_no_more()
        return UNABLE
    except Exception:
        traceback.print_exc()
        print("nft-harness: this is a bug in nft-harness, please report it", file=sys.stderr)
        return BUG


def _write_no_more() -> None:
    """Drop what standard output has not taken, which Python would write again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="nft-harness", description="Regression tests for netfilter rulesets.")
    parser.add_argument("--version", action="version", version=f"nft-harness {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        description = command.__doc__ or ""
        command(commands.add_parser(command.__name__, help=description.lower().rstrip("."), description=description))
    options, rest = parser.parse_known_args(arguments)
    if rest[:1] == ["--"] and getattr(options, "argv", None) == []:
        options.argv = rest[1:]  # argparse has filled the last positional with nothing when it met an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    status: int = options.run(options)
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
