"""libnftables, called inside a network namespace. See libnftables(3)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import nftables

from harness.errors import HarnessError, Position, ScenarioError, Unsupported

CONFIGURATION: Final = Path("/etc")
"""Where nft looks for included files by itself."""

_MESSAGE = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+)-\d+: Error: (?P<text>.*)$", re.MULTILINE)


class RefusedError(Exception):
    """nft refused a command; holds what it printed."""


class Nft:
    """A libnftables context; it belongs to the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        try:
            self._nftables = nftables.Nftables()
        except OSError as missing:
            raise Unsupported(f"libnftables could not be loaded: {missing}", remedy="install nftables") from None
        # What `nft --handle --stateless --terse --numeric-priority` sets: counters and the elements
        # of named sets are of no use here, and there may be many.
        self._nftables.set_handle_output(True)
        self._nftables.set_stateless_output(True)
        self._nftables.set_terse_output(True)
        self._nftables.set_numeric_prio_output(True)

    def run(self, commands: str) -> str:
        """What nft prints on ``commands``. Raises :class:`RefusedError`."""
        return self._output(*self._nftables.cmd(commands))

    def load(self, path: Path, folder: Path) -> None:
        """Load the file as ``nft -I folder -f path`` does. Raises :class:`RefusedError`."""
        self._nftables.add_include_path(str(folder))
        self._output(*self._nftables.cmd_from_file(str(path)))

    def ruleset(self) -> str:
        """The ruleset as nft lists it, with handles, without counters' values and sets' elements."""
        return self.run("list ruleset")

    @staticmethod
    def _output(code: int, output: str, error: str) -> str:
        if code != 0:
            raise RefusedError(error.strip() or f"nft failed with {code} and said nothing")
        return output


def version() -> str:
    """Version of libnftables, such as ``1.0.6``; it takes root, as the library asks the kernel first.

    Raises :class:`~harness.errors.HarnessError`.
    """
    context = nftables.Nftables()
    context.set_json_output(True)
    code, output, error = context.cmd("list tables")
    found = re.search(r'"version": *"([^"]*)"', output)
    if code != 0 or found is None:
        raise HarnessError(f"libnftables does not tell its version: {error.strip()}", remedy="run as root")
    return found[1]


def complaint(refused: RefusedError, path: Path, shown: Path) -> ScenarioError:
    """What nft said about the file ``path`` in one sentence, at its place; ``shown`` is the user's name of it."""
    found = _MESSAGE.search(str(refused))
    if found is None or not int(found["line"]):
        text = found["text"] if found else str(refused).splitlines()[0]
        return ScenarioError(f"nft refused the ruleset: {text}", Position(str(shown)))
    lines = str(refused)[found.end() :].splitlines()
    source = lines[1].strip() if len(lines) > 1 else ""
    sentence = f"nft: {found['text']}" + (f", in: {source}" if source else "")
    file = as_shown(Path(found["file"]), path, shown)
    return ScenarioError(sentence, Position(file, int(found["line"]), int(found["column"])))


def as_shown(file: Path, path: Path, shown: Path) -> str:
    """The name of ``file`` for the user, who calls the main file ``path`` ``shown``."""
    if file == path:
        return str(shown)
    file = path.parent / file
    return str(shown.parent / file.relative_to(path.parent) if file.is_relative_to(path.parent) else file)
