"""Commands about rulesets."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from harness.cli.kernels import KERNEL_HELP, OPTIONS, kernel
from harness.cli.output import write
from harness.cli.statuses import BROKEN, NO, UNABLE
from harness.errors import BrokenMeasurement, HarnessError
from harness.numbers import percent, whole
from harness.text import say

PACKETS_AT_MOST: Final = 20_000
TRACERS: Final = ("auto", "kprobe.multi", "fentry", "kprobe", "tracepoints")

# Imports of a subcommand's own modules stand in its functions: the others need not wait for them.


def ask(parser: argparse.ArgumentParser) -> None:
    """Send one packet through a ruleset: what becomes of it, and why."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.ask import command
        from harness.ask.steps import Question
        from harness.scenario.files import rulesets

        line = " ".join(options.line).strip()
        given = [line and not (options.packet or options.pcap), options.send.strip(), options.packet, options.pcap]
        if sum(map(bool, given)) != 1:
            remedy = "ask as in 'client > server tcp dport 22', or by one of --send, --packet and --pcap"
            raise HarnessError("no packet is given" if not any(given) else "several packets are given", remedy=remedy)
        request = command.AskRequest(
            rulesets=rulesets(options.ruleset),
            question=Question(line=line, send=options.send, packet=options.packet, pcap=options.pcap),
            lab=options.lab,
            flow=options.flow,
            json=options.json,
            save=options.save,
            kernel=options.kernel,
            tracer=options.nft_tracer,
            colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        )
        try:
            command.run(request, print, lambda line: say(line, sys.stderr))
        except BrokenMeasurement as broken:
            say(f"nft-harness: broken measurement: {broken}", sys.stderr)
            return BROKEN
        return 0

    add = parser.add_argument
    add(
        "ruleset",
        help="a file that nft -f or iptables-restore loads; several, separated by commas, are loaded in this order",
    )
    add("line", nargs="*", metavar="PACKET", help="the packet on one line: 'client > server tcp dport 22'")
    add(
        "--send",
        default="",
        metavar="YAML",
        help="the packet as `send:` has it in a scenario: '{from: client, to: server, …}'",
    )
    add("--packet", default="", metavar="LAYERS", help="the packet in scapy's notation: 'IP()/TCP(dport=22)'")
    add(
        "--pcap",
        type=Path,
        metavar="FILE",
        help="the packets of a capture, each sent by the host that has its source address",
    )
    add(
        "--lab",
        default="",
        metavar="LAB",
        help="a built-in lab, or a file with a lab; default: chosen to suit the ruleset",
    )
    add(
        "--flow",
        action="store_true",
        help="let real sockets exchange data over TCP or UDP, instead of sending one packet",
    )
    add("--json", action="store_true", help="print a stored result, as pytest --nft-results writes it")
    add(
        "--save",
        type=Path,
        metavar="FILE",
        help="append the packet to a scenario file, with what was seen as expectation",
    )
    add(*OPTIONS, type=kernel, default="auto", help=KERNEL_HELP)
    add("--nft-tracer", default="auto", choices=TRACERS, help="how functions are traced, as pytest --nft-tracer")
    parser.set_defaults(run=run)


def diff(parser: argparse.ArgumentParser) -> None:
    """Compare two rulesets: which packets they treat differently, and by which rules."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.compare import command, output

        if options.approve and not options.accept:
            raise HarnessError("--approve needs a file", remedy="name it with --accept")
        request = command.DiffRequest(
            rulesets=tuple(options.ruleset),
            base=options.base,
            optimize=options.optimize,
            permute=options.permute,
            kernels=tuple(options.kernels or ()),
            lab=options.lab,
            packets=options.packets,
            seed=options.seed,
            pcap=options.pcap,
            scenarios=tuple(options.scenarios or ()),
            rules=options.rules,
            accept=options.accept,
            approve=options.approve,
            save=options.save,
            kernel=options.kernel,
            tracer=options.nft_tracer,
            sift=options.sift,
        )
        try:
            found = command.run(request, lambda line: say(line, sys.stderr))
        except BrokenMeasurement as broken:
            say(f"nft-harness: broken measurement: {broken}", sys.stderr)
            return BROKEN
        kinds = {"json": output.as_json, "markdown": output.as_markdown, "html": output.as_html}
        for name, make in kinds.items():
            if path := getattr(options, name):
                write(path, make(found))
        if "-" not in [str(getattr(options, name)) for name in kinds]:
            for one in found:
                say(output.text(one))
        for line in output.warnings(found) if options.github else ():
            print(line)
        return NO if command.changed(found) else 0

    add = parser.add_argument
    add(
        "ruleset",
        nargs="*",
        help="the old and the new ruleset: a file, a folder of .nft files, or several files separated by commas",
    )
    add(
        "--base",
        default="",
        metavar="REV",
        help="compare rulesets with their state in a revision of git; default: all rulesets that scenarios name",
    )
    add("--optimize", action="store_true", help="compare a ruleset with what nft --optimize makes of it")
    add("--kernels", nargs=2, type=kernel, metavar="KERNEL", help="compare what two kernels do with one ruleset")
    add("--permute", action="store_true", help="compare the same files loaded in other orders")
    add(
        "--packets",
        type=whole(1, PACKETS_AT_MOST),
        default=500,
        metavar="N",
        help="generate at most N packets; default: 500",
    )
    add(
        "--seed", type=whole(0), default=1, metavar="N", help="seed of the packets that are drawn at random; default: 1"
    )
    add("--scenarios", type=Path, action="append", metavar="FILE", help="send the packets of a scenario file as well")
    add("--pcap", type=Path, metavar="FILE", help="send the packets of a capture as well")
    add(
        "--lab",
        default="",
        metavar="LAB",
        help="a built-in lab, or a file with a lab; default: chosen to suit both rulesets",
    )
    add(
        "--rules", action="store_true", help="count it as a change, too, when a different rule reaches the same verdict"
    )
    add("--accept", type=Path, metavar="FILE", help="a YAML file of approved changes: they are shown, but do not count")
    add(
        "--approve", action="store_true", help="add all changes to the file given by --accept, which is made if need be"
    )
    add(
        "--save",
        type=Path,
        metavar="FILE",
        help="append a scenario for each change to a scenario file, with what the new ruleset does",
    )
    add("--json", type=Path, metavar="FILE", help="write JSON to FILE; - is standard output")
    add(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write Markdown, for a pull request, to FILE; - is standard output",
    )
    add("--html", type=Path, metavar="FILE", help="write an HTML page to FILE; - is standard output")
    add("--github", action="store_true", help="print annotations for GitHub Actions")
    add("--sift", default="kernel", choices=("kernel", "host", "no"), help=SIFT)
    add(*OPTIONS, type=kernel, default="auto", help=KERNEL_HELP)
    add("--nft-tracer", default="auto", choices=TRACERS, help="how functions are traced, as pytest --nft-tracer")
    parser.set_defaults(run=run)


SIFT = (
    "where packets are first compared by nf_tables' trace and by what arrives, before changes are confirmed with "
    "kernel functions: on the same kernel (default), on this machine's own (host; needs root, loads nf_tables "
    "modules), or not at all (no)"
)


def mutate(parser: argparse.ArgumentParser) -> None:
    """Change rulesets one rule at a time: which changes no scenario notices, and a packet that shows each."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.mutate import command, output, results, schema

        chosen = [*options.path]
        for name, value in (("-k", options.keyword), ("-m", options.markers)):
            chosen += [name, value] if value else []
        request = command.MutateRequest(
            selection=tuple(chosen),
            rulesets=tuple(options.ruleset or ()),
            kernel=options.nft_kernel,
            tracer=options.nft_tracer,
            sift=options.sift == "kernel",
            seed=options.seed,
            fresh=options.fresh,
            save=options.save,
            mutants=options.mutants,
        )
        status = 0
        try:
            found, failures = command.run(request, lambda line: say(line, sys.stderr))
        except command.Interrupted as interrupted:
            found, failures, status = interrupted.results, [], interrupted.status
            say("nft-harness: interrupted; results so far:", sys.stderr)
        if found and "-" not in (str(options.json), str(options.html)):
            say(output.text(found))
        if options.github:
            print("\n".join(output.warnings(found)))
        for name, make in (("json", schema.as_json), ("html", output.as_html)):
            if path := getattr(options, name):
                try:
                    write(path, make(found))
                except HarnessError as error:
                    failures.append(str(error))
        for failure in failures:
            say(f"nft-harness: error: {failure}", sys.stderr)
            status = UNABLE
        reached = results.score(found)
        if status or options.fail_under is None or reached is None or reached >= options.fail_under:
            return status
        say(
            f"nft-harness: the mutation score is {reached:.1f} %, and {options.fail_under:g} % were asked for",
            sys.stderr,
        )
        return NO

    add = parser.add_argument
    add("path", nargs="*", metavar="PATH", help="scenario files, folders and FILE::NAME, as pytest takes them")
    add("-k", dest="keyword", default="", metavar="EXPR", help="scenarios by name, as pytest -k")
    add("-m", dest="markers", default="", metavar="EXPR", help="scenarios by mark, as pytest -m")
    add(
        "--ruleset",
        action="append",
        metavar="FILE",
        help="mutate only this ruleset of those that the scenarios load; may be repeated",
    )
    add(
        "--fail-under",
        type=percent,
        metavar="PERCENT",
        help="exit with status 1 if the mutation score of all rulesets together is below PERCENT",
    )
    add(
        "--save",
        type=Path,
        metavar="FILE",
        help="append a scenario for each surviving mutant to a scenario file, with what the ruleset does",
    )
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write a report in the mutation testing report schema to FILE; - is standard output",
    )
    add("--html", type=Path, metavar="FILE", help="write an HTML page to FILE; - is standard output")
    add("--github", action="store_true", help="print annotations for GitHub Actions")
    add("--fresh", action="store_true", help="run everything again, ignoring what is stored of earlier runs")
    add(
        "--mutants",
        type=whole(1),
        metavar="N",
        help="run at most N mutants of a ruleset; default: 1000, fewer of large rulesets",
    )
    add("--seed", type=whole(0), default=1, metavar="N", help="seed of what is drawn at random; default: 1")
    add("--sift", default="kernel", choices=("kernel", "no"), help=SIFTED)
    add(
        "--nft-kernel",
        "--kernel",
        type=kernel,
        default="",
        metavar="KERNEL",
        help="as pytest --nft-kernel; default: what pytest's settings say",
    )
    add("--nft-tracer", default="auto", choices=TRACERS, help="how functions are traced, as pytest --nft-tracer")
    parser.set_defaults(run=run)


SIFTED = (
    "kernel (default): run scenarios without tracing functions first, and with them only where an expectation is about "
    "functions; no: always trace functions"
)


def init(parser: argparse.ArgumentParser) -> None:
    """Write a first scenario file for a ruleset: a packet for each rule and policy, and what becomes of it."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.init import command
        from harness.scenario.files import rulesets

        def progress(line: str) -> None:
            say(line, sys.stderr)

        if options.complete:
            from harness.init import complete

            if options.lab or options.no_run:
                raise HarnessError(
                    "--complete sends packets in the lab of the scenarios that are there",
                    remedy="leave out --lab and --no-run",
                )
            return complete.run(
                rulesets(options.ruleset),
                options.output,
                kernel=options.kernel,
                progress=progress,
                tracer=options.nft_tracer,
            )
        return command.run(
            rulesets(options.ruleset),
            options.output,
            kernel=options.kernel,
            measure=not options.no_run,
            progress=progress,
            at=options.lab,
            tracer=options.nft_tracer,
        )

    help_ = (
        "a file that nft -f or iptables-restore loads, or several separated by commas; copied to scenarios/rulesets "
        "if it lies outside of the project"
    )
    parser.add_argument("ruleset", help=help_)
    parser.add_argument(
        "--lab",
        default="",
        metavar="LAB",
        help="a built-in lab, or a file with a lab; default: chosen to suit the ruleset",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the scenario file to write; default: scenarios/NAME.yaml"
    )
    parser.add_argument(
        "--no-run",
        action="store_true",
        help="send nothing: write packets without expectations, for pytest --nft-record",
    )
    help_ = "add scenarios to an existing file, for the rules, policies, elements and matches that it leaves open"
    parser.add_argument("--complete", action="store_true", help=help_)
    parser.add_argument(*OPTIONS, type=kernel, default="auto", help=KERNEL_HELP)
    help_ = "how functions are traced, as pytest --nft-tracer"
    parser.add_argument("--nft-tracer", default="auto", choices=TRACERS, help=help_)
    parser.set_defaults(run=run)
