"""The command about a live machine."""

from __future__ import annotations

import argparse
import sys

from harness.cli.statuses import NO
from harness.text import say


def twin(parser: argparse.ArgumentParser) -> None:
    """Make a project of a live machine: its rulesets as they are loaded, and a lab that is that machine."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.twin import collect, command

        if options.script:
            print(collect.script(), end="")
            return 0
        request = command.TwinRequest(
            destination=options.machine,
            file=options.file,
            output=options.output,
            check=options.check,
            anonymize=options.anonymize,
        )
        return 0 if command.run(request, say, lambda line: say(line, sys.stderr)) else NO

    add = parser.add_argument
    add("machine", nargs="?", default="", help="as ssh takes it: admin@fw1; default: this machine")
    add("--script", action="store_true", help="print the program that reads a machine, in POSIX sh, and do no more")
    add(
        "--from",
        type=Path,
        dest="file",
        metavar="FILE",
        help="read what that program has printed, in place of a machine",
    )
    add("-o", "--output", type=Path, metavar="DIR", help="where the project is written; default: the machine's name")
    add(
        "--check",
        type=Path,
        metavar="DIR",
        help="compare the machine with the twin there; the status is 1 if it differs",
    )
    add("--anonymize", action="store_true", help="replace addresses, names and comments by others")
    parser.set_defaults(run=run)
