"""Commands about rulesets."""

from __future__ import annotations

import argparse
import sys

from harness.text import say

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
