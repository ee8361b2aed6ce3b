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
    add("machine", nargs="?", default="", help="where to connect by ssh: admin@fw1; default: this machine")
    add("--script", action="store_true", help="only print the POSIX shell script that collects the data on the machine")
    add(
        "--from",
        type=Path,
        dest="file",
        metavar="FILE",
        help="make the twin from the output of that script, stored in FILE",
    )
    add("-o", "--output", type=Path, metavar="DIR", help="the folder to write; default: the machine's name")
    add(
        "--check",
        type=Path,
        metavar="DIR",
        help="compare the machine with the twin in DIR, and write nothing; exit status 1 if they differ",
    )
    add("--anonymize", action="store_true", help="replace addresses, names and comments by made-up ones")
    parser.set_defaults(run=run)
