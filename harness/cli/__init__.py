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
from harness.ending import in_order, interrupts_deferred

try:
    with interrupts_deferred():
        from harness.cli import machine, rulesets, scenarios, shells, twins
        from harness.cli.examples import EXAMPLES
        from harness.cli.statuses import BUG, UNABLE
        from harness.errors import HarnessError, shortage
        from harness.programs import NotRunnable
        from harness.text import say
except KeyboardInterrupt:  # as in main(), which is not there yet
    sys.exit(128 + signal.SIGINT)

COMMANDS: tuple[Callable[[argparse.ArgumentParser], None], ...] = (
    rulesets.ask,
    scenarios.check,
    shells.completion,
    rulesets.diff,
    machine.discover,
    machine.doctor,
    rulesets.init,
    machine.kernels,
    scenarios.lab,
    shells.manual,
    rulesets.mutate,
    scenarios.report,
    scenarios.schema,
    machine.trace,
    twins.twin,
    machine.vm,
)
"""The subcommands: each is named and described by a function that adds its arguments and sets ``run``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``nft-harness`` with ``arguments`` (default: the process's); its exit status."""
    try:
        return _status(arguments)
    except KeyboardInterrupt:  # also while an error is shown
        return 128 + signal.SIGINT


def _status(arguments: Sequence[str] | None) -> int:
    """The exit status after what went wrong was shown."""
    try:
        with in_order():
            return _run(arguments)
    except NotRunnable as error:
        say(f"nft-harness: {error}", sys.stderr)
        return error.status
    except HarnessError as error:
        for one in error.each:
            say(f"nft-harness: error: {one}", sys.stderr)
        return UNABLE
    except BrokenPipeError:  # who reads our output has seen enough
        _write_no_more()
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError) as error:  # such as a full disk, wherever that is met
        named = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        other = f"{named}{(getattr(error, 'strerror', '') or str(error)).lower()}"
        say(f"nft-harness: error: {shortage(error) or other}", sys.stderr)
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


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="nft-harness", description="Regression tests for netfilter rulesets.")
    parser.add_argument("--version", action="version", version=f"nft-harness {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        description = command.__doc__ or ""
        examples = EXAMPLES[command.__name__].strip().replace("\n", "\n  ")
        command(
            commands.add_parser(
                command.__name__,
                help=f"{description[0].lower()}{description[1:].rstrip('.')}",
                description=description,
                epilog=f"examples:\n  {examples}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def _run(arguments: Sequence[str] | None) -> int:
    command_line = parser()
    command_line.set_defaults(parser=parser)
    options, rest = command_line.parse_known_args(arguments)
    if rest[:1] == ["--"] and getattr(options, "argv", None) == []:
        options.argv = rest[1:]  # argparse has filled the last positional with nothing when it met an option
    elif rest and getattr(options, "line", None) == [] and not rest[0].startswith("-"):
        options.line = rest
    elif rest:
        command_line.error(f"unrecognized arguments: {' '.join(rest)}")
    status: int = options.run(options)
    sys.stdout.flush()
    return status
