"""libnftables in a network namespace. See libnftables(3)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.errors import Position, ScenarioError, Unsupported
from harness.lab.namespace import Namespace
from harness.linux.netlink import Netlink, attributes
from harness.linux.nfnetlink import HEADER, NETLINK_NETFILTER, NFT_MSG_GETRULE, number, string
from harness.netfilter import family_name
from harness.ruleset.listing import ANONYMOUS, Handle
from harness.ruleset.process import Child, LostError, Reach, Reply

NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_COUNTER_PACKETS = 2

_MESSAGE = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+)-(?P<end>\d+): Error: (?P<text>.*)$", re.MULTILINE)


class RefusedError(Exception):
    """nft refused a command; holds what it printed."""


class Nft:
    """libnftables in a network namespace, run by a process that may read ``reach`` and can be lost.

    It ends with the namespace. One that was lost is started anew by the next command.
    """

    def __init__(self, namespace: Namespace, reach: Reach = Reach()) -> None:  # noqa: B008 - a constant
        self._namespace = namespace
        self._reach = reach
        self._child: Child | None = None
        namespace.enter(lambda: closing(self))

    def close(self) -> None:
        """Let the process end."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def run(self, commands: str, *, as_json: bool = False, folder: Path | None = None) -> str:
        """What nft prints on ``commands``, which include files by names seen from ``folder``.

        With ``as_json`` commands and output are those of libnftables-json(5). Raises :class:`RefusedError`, and
        :class:`~harness.ruleset.process.LostError` when nft ended or had to be ended.
        """
        if "\0" in commands:
            raise RefusedError("Error: a NUL character ends a command")
        request = {"commands": commands, "json": as_json, "folder": str(folder or "")}
        return self._output(*self._ask(request))

    def ask(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        """The objects that nft answers to ``command``, both as in libnftables-json(5). Raises as :meth:`run`."""
        found: list[dict[str, Any]] = json.loads(self.run(json.dumps({"nftables": [command]}), as_json=True))[
            "nftables"
        ]
        return found

    def matching(self, pattern: str) -> list[Path]:
        """The files that nft includes for ``pattern``, in its order; only those that it may read."""
        found = self._ask({"glob": pattern}).output.split(b"\0")
        return [Path(os.fsdecode(one)) for one in found if one]

    def load(self, folder: Path, names: Iterable[str], defines: Mapping[str, str]) -> None:
        """Load files of ``folder`` in one transaction, as ``nft -f`` there would, with variables as of ``nft -D``.

        A variable that one file defines is known in the next. Nothing is included from ``/etc`` by
        a relative name. Raises as :meth:`run`.
        """
        # Not add_var() and cmd_from_file(): the second file of a context would not know the variables, and
        # nft 1.0.6 frees them twice.
        variables = [f"define {name} = {value}\n" for name, value in defines.items()]
        # The last line of a file may lack its end.
        self.run("".join([*variables, *(f'include "./{name}"\n\n' for name in names)]), folder=folder)

    def ruleset(self) -> str:
        """The ruleset as nft lists it, with handles, without counters' values and sets' elements."""
        return self.run("list ruleset")

    def _ask(self, request: dict[str, Any]) -> Reply:
        try:
            if self._child is None:
                self._child = Child(self._namespace.fd, self._reach)
            return self._child.ask(request)
        except LostError as lost:
            self.close()
            raise LostError(f"libnftables {nft_version()} {lost.sentence}") from None

    @staticmethod
    def _output(code: int, output: bytes, error: bytes) -> str:
        if code != 0:
            said = error.decode(errors="replace").strip()
            if "cache initialization failed" in said:
                raise Unsupported(f"nf_tables does not answer: {said}", remedy="load it with modprobe nf_tables")
            raise RefusedError(said or f"nft failed with {code} and said nothing")
        return output.decode(errors="replace")


def handles_in_blocks() -> list[Handle]:
    """Handles of the rules in blocks, from the kernel, in this thread's network namespace."""
    return [handle for handle, _ in _rules() if ANONYMOUS.match(handle.chain)]


def counted() -> dict[Handle, int]:
    """Packets that the counter statements of rules have counted, in this thread's network namespace.

    Of a rule with several it is the last, behind the rule's tests.
    """
    found = {}
    for handle, rule in _rules():
        expressions = rule.get(NFTA_RULE_EXPRESSIONS)
        if not expressions or b"counter\0" not in bytes(expressions):
            continue
        for _, element in attributes(expressions):
            expression = dict(attributes(element))
            if string(expression.get(NFTA_EXPR_NAME)) == "counter":
                data = dict(attributes(expression[NFTA_EXPR_DATA]))
                found[handle] = number(data.get(NFTA_COUNTER_PACKETS))
    return found


def _rules() -> Iterator[tuple[Handle, dict[int, memoryview]]]:
    """Every rule of this thread's network namespace, as its attributes."""
    with Netlink(NETLINK_NETFILTER) as link:
        for message in link.dump(NFT_MSG_GETRULE, HEADER.pack(0, 0, 0)):
            family, _, _ = HEADER.unpack_from(message.body)
            rule = dict(attributes(message.body[HEADER.size :]))
            table, chain = string(rule.get(NFTA_RULE_TABLE)), string(rule.get(NFTA_RULE_CHAIN))
            yield Handle(family_name(family), table, chain, number(rule.get(NFTA_RULE_HANDLE))), rule


def nft_version() -> str:
    """Version of the installed nftables, such as ``1.0.6``, for root and others; "" without the program nft.

    libnftables has no call for it, and its JSON that has it is for root only.
    """
    program = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if program is None:
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"\bv(\S+)", said)
    return found[1] if found else ""


def complaint(refused: RefusedError, path: Path, shown: Path) -> ScenarioError:
    """What nft said about the file ``path`` in one sentence, at its place; ``shown`` is the user's name of it."""
    found = _MESSAGE.search(str(refused))
    if found is None or not int(found["line"]):
        said, *quoted = str(refused).splitlines()
        text = (found["text"] if found else said.removeprefix("Error: ")) + (f", in: {quoted[0]}" if quoted else "")
        return ScenarioError(f"nft refused the ruleset: {text}", Position(str(shown)))
    lines = str(refused)[found.end() :].splitlines()
    source = lines[1].strip() if len(lines) > 1 else ""
    sentence = f"nft: {found['text']}" + (f", in: {source}" if source else "")
    place = Position(as_shown(Path(found["file"]), path, shown), int(found["line"]), int(found["column"]))
    if found["text"].startswith("Could not process rule"):
        # The kernel's answer: only an error code.
        return ScenarioError(sentence, place, remedy="a name or number in it may be wrong")
    if found["text"].startswith("Could not resolve hostname"):
        return ScenarioError(sentence, place, remedy="names of hosts are not resolved here: write the address")
    if found["text"].startswith("redefinition"):
        return ScenarioError(sentence, place, remedy="it is set before, there or by the scenario file's defines:")
    return ScenarioError(sentence, place)


def marked(refused: RefusedError) -> Iterator[str]:
    """What the kernel refused by an error code: the part that nft marks, then its whole line."""
    found = _MESSAGE.search(str(refused))
    if found and found["text"].startswith("Could not process rule"):
        lines = str(refused)[found.end() :].splitlines()
        if len(lines) > 1:
            yield lines[1][int(found["column"]) - 1 : int(found["end"])]
            yield lines[1]


def as_shown(file: Path, path: Path, shown: Path) -> str:
    """The name of ``file`` for the user, who calls the main file ``path`` ``shown``."""
    if file == path:
        return str(shown)
    file = path.parent / file
    return str(shown.parent / file.relative_to(path.parent) if file.is_relative_to(path.parent) else file)
