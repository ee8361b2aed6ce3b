"""Commands for shells and man(1): what they print is made of the parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import __version__
from harness.cli.examples import EXAMPLES
from harness.errors import Unsupported

# Imports of a subcommand's own modules stand in its functions: the others need not wait for them.

SHELLS = ("bash", "zsh", "fish")


def completion(parser: argparse.ArgumentParser) -> None:
    """Print a completion script for a shell."""

    def run(options: argparse.Namespace) -> int:
        try:
            import shtab
        except ImportError:
            raise Unsupported("shtab is not installed", remedy="run pip install shtab") from None
        complete = options.parser()
        for action in _actions(complete):
            if action.type is Path or action.metavar in ("FILE", "DIR", "FILE[::SCENARIO]"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(complete, options.shell))
        return 0

    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options and arguments of a parser and of those of its subcommands."""
    for action in parser._actions:  # there is no other way to them
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _actions(one)


def manual(parser: argparse.ArgumentParser) -> None:
    """Print the manual page, for man(1)."""

    def run(options: argparse.Namespace) -> int:
        try:
            from argparse_manpage.manpage import Manpage
        except ImportError:
            raise Unsupported("argparse-manpage is not installed", remedy="run pip install argparse-manpage") from None
        make: Callable[[], argparse.ArgumentParser] = options.parser
        print(Manpage(make(), {"project_name": "nft-harness", "manual_title": "nft-harness", "version": __version__}))
        print(".SH EXAMPLES\n.nf")
        print("\n".join(EXAMPLES.values()).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq"), end="")
        print(".fi")
        return 0

    parser.set_defaults(run=run)
