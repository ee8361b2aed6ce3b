"""Commands about scenario files, their labs and their results."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from harness.cli.kernels import KERNEL_HELP, OPTIONS, kernel, program
from harness.cli.statuses import BROKEN, NO
from harness.errors import HarnessError
from harness.numbers import percent
from harness.text import counted, escape, say

if TYPE_CHECKING:
    from harness.model.stored_results import StoredResults

# Imports of a subcommand's own modules stand in its functions: the others need not wait for them.


def check(parser: argparse.ArgumentParser) -> None:
    """Check scenario files without running them."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.check import output
        from harness.check.command import check

        found = check(options.path, kernels=options.kernel or (), nft_program=options.nft_program or "")
        output.FORMATS[options.format](found)
        return NO if found.errors else 0

    add = parser.add_argument
    add("path", nargs="+", type=Path, help="a scenario file, or a folder of them")
    add(
        "--format",
        choices=("text", "json", "sarif", "github"),
        default="text",
        help="text (default), JSON, SARIF 2.1.0, or annotations for GitHub Actions",
    )
    add(
        *OPTIONS,
        type=kernel,
        action="append",
        metavar="KERNEL",
        help="check as for a run on this kernel, as pytest --nft-kernel; may be repeated (default: as pytest)",
    )
    add("--nft-program", type=program, metavar="WHICH", help="the nft that reads rulesets, as pytest --nft-program")
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
        from harness.model import result, stored_results

        if options.kernel and not options.scenarios:
            raise HarnessError("--kernel says where scenarios should have run", remedy="name them with --scenarios")
        results = stored_results.load(options.results)
        absent = _missing(results, options)
        if not results:
            named = ", ".join(map(str, options.results))
            remedy = "pytest --nft-results or --nft-jsonl stores those of the scenarios that it runs"
            raise HarnessError(f"{named}: there are no stored results", remedy=remedy)
        if changed := result.changed(results, Path()):
            names = escape(", ".join(changed))
            say(
                f"nft-harness: {names}: changed since the run; line numbers in the reports are those of the run",
                sys.stderr,
            )
        asked = list(kinds.asked(options))
        for kind, path in asked:
            if path == kinds.STANDARD_OUTPUT:
                print(kinds.to_print(kind, results, Path()), end="")
            else:
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
            return BROKEN if absent else 0
        from harness.report.coverage import RuleCoverage

        covered = RuleCoverage(results, Path())
        if options.nft_cov:
            say("\n".join(covered.lines()))
        if shortfall := covered.shortfall(options.nft_cov_fail_under):
            say(f"nft-harness: {shortfall}", sys.stderr)
        return BROKEN if absent else NO if shortfall else 0

    parser.add_argument(
        "results", nargs="+", type=Path, help="what pytest --nft-results or --nft-jsonl stored: folders or files"
    )
    parser.add_argument(
        "--scenarios",
        action="append",
        type=Path,
        metavar="PATH",
        help="a scenario file or folder of which every scenario must have a result: each that has none becomes an "
        "error, and the exit status is 3",
    )
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="RELEASE",
        help="with --scenarios: a kernel that they must have run on, such as 6.12; may be repeated (default: all of "
        "the results)",
    )
    for kind in kinds.KINDS:
        dash = "; - is standard output" if kind.path == "FILE" else ""
        parser.add_argument(f"--{kind.name}", dest=kind.option, metavar=kind.path, help=f"write {kind.what}{dash}")
    parser.add_argument("--github", dest="nft_github", action="store_true", help="print annotations for GitHub Actions")
    parser.add_argument("--cov", dest="nft_cov", action="store_true", help="print rule coverage")
    parser.add_argument(
        "--cov-fail-under",
        dest="nft_cov_fail_under",
        type=percent,
        metavar="PERCENT",
        help="exit with status 1 if coverage is below PERCENT",
    )
    parser.set_defaults(run=run)


def _missing(results: StoredResults, options: argparse.Namespace) -> bool:
    """Add an error for each scenario that should have a result, and report the first; whether there are any."""
    if not options.scenarios:
        return False
    from harness.report.missing import missing

    found = missing(results, options.scenarios, options.kernel or ())
    for one in found:
        results.add(one)
    results.sort()
    if found:
        of = counted(len(found), "scenario")
        kernel = f" on {found[0].kernel}" if found[0].kernel else ""
        say(f"nft-harness: no result of {of}; the first is {escape(found[0].id)}{kernel}", sys.stderr)
    return bool(found)


def lab(parser: argparse.ArgumentParser) -> None:
    """Draw labs, and enter them."""
    from pathlib import Path

    def enter(options: argparse.Namespace) -> int:
        from harness.shell import enter
        from harness.vm.placement import asked_nft

        file, _, scenario = options.scenario.partition("::")
        request = enter.ShellRequest(
            file=Path(file),
            scenario=scenario,
            host=options.host,
            argv=tuple(options.argv),
            send=not options.fresh,
            kernel=options.kernel,
            modules=options.modules,
            nft_program=asked_nft(options.nft_program),
        )
        return enter.enter(request)

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
        "scenario",
        metavar="FILE[::SCENARIO]",
        help="a scenario as pytest names it; without SCENARIO the first one of the file",
    )
    action.add_argument("--host", default="", help="the host to enter; default: the device under test")
    action.add_argument("--fresh", action="store_true", help="do not send the scenario's packets first")
    action.add_argument(*OPTIONS, type=kernel, default="auto", help=KERNEL_HELP)
    action.add_argument(
        "--modules",
        default="",
        metavar="NAMES",
        help="kernel modules that may be loaded into this machine's kernel, as pytest --nft-modules",
    )
    action.add_argument(
        "--nft-program",
        type=program,
        metavar="WHICH",
        help="the nft that loads rulesets, as pytest --nft-program",
    )
    action.add_argument("argv", nargs="*", metavar="-- COMMAND", help="a program and its arguments; default: a shell")
    action.set_defaults(run=enter)
    action = actions.add_parser("remove", help="remove the labs that pytest --nft-keep has left")
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
