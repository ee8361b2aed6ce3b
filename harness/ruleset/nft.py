"""libnftables in a network namespace. See libnftables(3)."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from harness.errors import Position, ScenarioError, Unsupported
from harness.lab.namespace import Namespace
from harness.linux.netlink import Netlink, attributes
from harness.linux.nfnetlink import HEADER, NETLINK_NETFILTER, NFT_MSG_GETRULE, number, string
from harness.netfilter import family_name
from harness.ruleset.listing import ANONYMOUS, Handle
from harness.ruleset.process import Child, LostError, Reach, Reply
from harness.vm.nft import current

NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_COUNTER_PACKETS = 2

_MESSAGE = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+)-(?P<end>\d+): Error: (?P<text>.*)$", re.MULTILINE)
_INCLUDE = re.compile(r"\s*include\s")

REFUSED: Final = ("Could not process rule", "No such file or directory; did you mean")
"""How nft begins where the kernel returned an error code; for ENOENT, also that of a missing module, it may suggest a
chain or set of a similar name."""
LIST: Final = "list ruleset"
STDIN: Final = "/dev/stdin"
"""The file that nft names in positions of a text that is not a file."""


class NftError(Exception):
    """nft refused a command; holds what it printed."""


class Nft:
    """libnftables in a network namespace, run by a process that may read ``reach`` and can be lost.

    It ends with the namespace. One that was lost is started anew by the next command. Without a ``namespace`` it reads
    rulesets and loads none, as ``nft --check`` that does not ask the kernel, and ends with :meth:`close`.
    """

    def __init__(self, namespace: Namespace | None, reach: Reach = Reach()) -> None:  # noqa: B008 - a constant
        self._namespace = namespace
        self.reach = reach
        """What its process may read."""
        self._child: Child | None = None
        if namespace is not None:
            namespace.enter(lambda: closing(self))

    def close(self) -> None:
        """Let the process end."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def run(self, commands: str, folder: Path | None = None, *, as_json: bool = False) -> str:
        """What nft prints on ``commands``, which include files by names seen from ``folder``.

        With ``as_json`` commands and output are those of libnftables-json(5). Raises :class:`NftError`, and
        :class:`~harness.ruleset.process.LostError` when nft ended or had to be ended.
        """
        return self._run({"commands": commands, "json": as_json, "folder": str(folder or "")})

    def run_and_list(self, commands: str, folder: Path) -> str:
        """Run ``commands`` as :meth:`run` does; the ruleset then, as of :meth:`ruleset`.

        This does not wait until the kernel has freed what they replace, as the end of a command does, and a table with
        the flag ``owner`` is still there. Raises as :meth:`run`.
        """
        return self._run({"commands": commands, "json": False, "folder": str(folder), "then": LIST})

    def _run(self, request: dict[str, Any]) -> str:
        if "\0" in request["commands"]:
            raise NftError("Error: a NUL character ends a command")
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
        names = tuple(names)
        request = {"json": False, "folder": str(folder)}
        if len(names) == 1 and not defines:
            self._output(*self._ask({**request, "file": f"./{names[0]}"}))
            return
        # Not add_var() and cmd_from_file(): the second file of a context would not know the variables, and
        # nft 1.0.6 frees them twice.
        variables = [f"define {name} = {value}\n" for name, value in defines.items()]
        self.run("".join([*variables, *(f'include "./{name}"\n\n' for name in names)]), folder=folder)

    def refuse_end(self, folder: Path, name: str, text: str) -> None:
        """Raise :class:`NftError` where nft would refuse the end of the file ``name`` with this ``text``.

        nft 1.0.6 does not read a file whose last line is an include without a newline. Read by an include itself, a
        file ends with that of its includer, so this is tried by the last line alone.
        """
        *before, last = text.split("\n")
        if not _INCLUDE.match(last):
            return
        request = {"json": False, "folder": str(folder), "file": STDIN, "dry": True}
        reply = self._ask(request, last.encode(errors="surrogateescape"))
        error = reply.error.decode(errors="replace")
        if (
            reply.code
            and (found := _MESSAGE.search(error))
            and found["file"] == STDIN
            and "end of file" in found["text"]
        ):
            raise NftError(error.replace(f"{STDIN}:1:", f"./{name}:{len(before) + 1}:"))

    def change(self, text: str, folder: Path, defines: Mapping[str, str]) -> None:
        """Run the commands in ``text`` in one transaction, as ``nft -f`` in ``folder`` would, with variables.

        The file of a position in a :class:`NftError` is :data:`STDIN`, and its line that of ``text``.
        """
        if "\0" in text:
            raise NftError("Error: a NUL character ends a command")
        first = "".join(f"define {name} = {value};" for name, value in defines.items())
        request = {"json": False, "folder": str(folder), "file": STDIN}
        reply = self._ask(request, f"{first}\n{text}\n".encode(errors="surrogateescape"))
        stdin = STDIN.encode()
        error = re.sub(
            rb"^%b:(\d+):" % stdin, lambda one: b"%b:%d:" % (stdin, int(one[1]) - 1), reply.error, flags=re.M
        )
        self._output(reply.code, reply.output, error)

    def ruleset(self) -> str:
        """The ruleset as nft lists it, with handles, without counters' values and sets' elements."""
        return self.run(LIST)

    def _ask(self, request: dict[str, Any], text: bytes | None = None) -> Reply:
        try:
            if self._child is None:
                self._child = Child(self._namespace.fd if self._namespace else None, self.reach)
            return self._child.ask(request, text)
        except LostError as lost:
            self.close()
            raise LostError(f"libnftables {nft_version()} {lost.sentence}") from None

    @staticmethod
    def _output(code: int, output: bytes, error: bytes) -> str:
        if code != 0:
            said = error.decode(errors="replace").strip()
            if "cache initialization failed" in said:
                raise Unsupported(f"nf_tables is not available: {said}", remedy="load it with modprobe nf_tables")
            raise NftError(said or f"nft failed with {code} without a message")
        return output.decode(errors="replace")


def handles_in_blocks() -> list[Handle]:
    """Handles of the rules in blocks, from the kernel, in this thread's network namespace."""
    with Netlink(NETLINK_NETFILTER) as link:
        return [handle for handle, _ in rules(link) if ANONYMOUS.match(handle.chain)]


def counted() -> dict[Handle, int]:
    """Packets that the counter statements of rules have counted, in this thread's network namespace.

    Of a rule with several it is the last, behind the rule's tests.
    """
    found = {}
    with Netlink(NETLINK_NETFILTER) as link:
        for handle, rule in rules(link):
            if b"counter\0" not in bytes(rule.get(NFTA_RULE_EXPRESSIONS, b"")):
                continue
            for name, data in expressions(rule):
                if name == "counter":
                    found[handle] = number(dict(attributes(data)).get(NFTA_COUNTER_PACKETS))
    return found


def rules(link: Netlink) -> Iterator[tuple[Handle, dict[int, memoryview]]]:
    """Every rule of the network namespace of ``link``, as its attributes."""
    for message in link.dump(NFT_MSG_GETRULE, HEADER.pack(0, 0, 0)):
        family, _, _ = HEADER.unpack_from(message.body)
        rule = dict(attributes(message.body[HEADER.size :]))
        table, chain = string(rule.get(NFTA_RULE_TABLE)), string(rule.get(NFTA_RULE_CHAIN))
        yield Handle(family_name(family), table, chain, number(rule.get(NFTA_RULE_HANDLE))), rule


def expressions(rule: Mapping[int, memoryview]) -> Iterator[tuple[str, memoryview]]:
    """The expressions of a rule of :func:`rules`: the name of its type, and what it has of its own."""
    for _, element in attributes(rule.get(NFTA_RULE_EXPRESSIONS, memoryview(b""))):
        expression = dict(attributes(element))
        yield string(expression.get(NFTA_EXPR_NAME)), expression.get(NFTA_EXPR_DATA, memoryview(b""))


def nft_version() -> str:
    """Version of the nft that reads rulesets here, such as ``1.1.3``; see :mod:`harness.vm.nft`."""
    chosen = current()
    return chosen.version if chosen else own_version()


def nft_described() -> str:
    """The nft that reads rulesets here: ``nft 1.1.3 of kernel image 6.12.117+deb13-amd64``."""
    chosen = current()
    return chosen.described if chosen else f"nft {own_version()} of this machine"


@functools.cache
def own_version() -> str:
    """Version of the installed nftables, such as ``1.0.6``, for root and others; "" without the program nft.

    libnftables has no call for it, and its JSON that has it is for root only.
    """
    program = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if program is None:
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"\bv(\S+)", said)
    return found[1] if found else ""


_CAUSES: Final = {
    "No such file or directory": "a table, chain, set, helper or interface that it names does not exist",
    "File exists": "it exists already",
    "Device or resource busy": "it is still in use",
    "Invalid argument": "a value in it is not valid there",
}
"""What the kernel's error codes mean for a command."""


def complaint(refused: NftError, path: Path, shown: Path) -> ScenarioError:
    """nft's error about the file ``path`` in one sentence, at its place; ``shown`` is the user's name of it."""
    return complaint_at(
        refused, Position(str(shown)), lambda file, line, column: Position(as_shown(file, path, shown), line, column)
    )


def complaint_at(refused: NftError, whole: Position, place: Callable[[Path, int, int], Position]) -> ScenarioError:
    """nft's error in one sentence, at the ``place`` of the file, line and column that it names, if any, else at the
    ``whole``."""
    from harness.ruleset import keywords, newer_syntax  # a controller does without

    found = _MESSAGE.search(str(refused))
    if found is None or not int(found["line"]):
        said, *quoted = str(refused).splitlines()
        text = (found["text"] if found else said.removeprefix("Error: ")) + (f", in: {quoted[0]}" if quoted else "")
        return ScenarioError(f"nft refused the ruleset: {text}", whole)
    lines = str(refused)[found.end() :].splitlines()
    source = lines[1].strip() if len(lines) > 1 else ""
    sentence = f"nft: {found['text']}" + (f", in: {source}" if source else "")
    position = place(Path(found["file"]), int(found["line"]), int(found["column"]))
    remedy = ""
    if found["text"].startswith("Could not process rule"):
        # The kernel's answer: only an error code.
        remedy = _CAUSES.get(found["text"].rpartition(": ")[2], "")
    elif found["text"].startswith("Could not resolve hostname"):
        remedy = "names of hosts are not resolved here: write the address"
    elif found["text"].startswith("redefinition"):
        remedy = "it is defined before, there or by the scenario file's defines:"
    elif "end of file" in found["text"]:
        remedy = "end the last line with a newline"
    elif newer := newer_syntax.read_by("\n".join(lines[1:2]), nft_version()):
        remedy = f"{nft_described()} is older than this syntax, which nft {newer[0]} reads: --nft-program {newer[1]}"
    elif word := keywords.meant("\n".join(lines[1:2]), int(found["column"]), int(found["end"])):
        remedy = f"'{word[0]}' is not a keyword of nft: did you mean '{word[1]}'?"
    elif found["text"].startswith(("syntax error", "invalid priority expression")):
        remedy = (
            f"{nft_described()} read it: check whether the syntax needs a later version, or whether a name in it is a "
            "keyword of nft"
        )
    return ScenarioError(sentence, position, remedy=remedy)


def messages(refused: NftError) -> Iterator[tuple[NftError, str]]:
    """Each of nft's errors that has a place, as if it were the only one, and its text."""
    found = list(_MESSAGE.finditer(str(refused)))
    for one, following in itertools.zip_longest(found, found[1:]):
        end = following.start() if following else None
        yield NftError(str(refused)[one.start() : end].rstrip()), one["text"]


def marked(refused: NftError) -> Iterator[str]:
    """What the kernel refused by an error code: the part that nft marks, then its whole line."""
    found = _MESSAGE.search(str(refused))
    if found and found["text"].startswith(REFUSED):
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
