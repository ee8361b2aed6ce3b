"""A trace in a file, an object in JSON a line, and what ``nft-harness trace --read`` shows of it.

::

    {"trace": {"kernel": "6.12.9", "engine": "kprobe.multi", "functions": 1939}}
    {"number": 1, "time": …}                    each line, as trace --json prints it
    {"statistics": {…}}
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from harness.errors import HarnessError
from harness.model.observation import Loss
from harness.netfilter import PROTOCOLS
from harness.reading.words import LIVE, describe_loss, loss_remedy
from harness.text import counted, in_colour
from harness.trace.lines import Line, Statistics
from harness.trace.show import show
from harness.tracer import live
from harness.tracer.packet_filter import offline

_BY_BYTES: Final = re.compile(
    r"\[|\b(?:ether|vlan|mpls|pppoe[sd]?|geneve|vxlan|len|less|greater|broadcast|multicast|gateway|r?arp|ifname|"
    r"inbound|outbound|on|protochain)\b"
)
"""In an expression of pcap-filter(7): what needs more of a packet than its addresses, protocol and ports."""
_ENDPOINT: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^\[\]:]+)):(?P<port>\d+)")
_NUMBERS: Final = {name: number for number, name in PROTOCOLS.items()} | {"icmp6": 58}


LOST: Final = 3
"""Exit status when events were lost."""


def incomplete(loss: Loss) -> str:
    """The sentence about a trace of which something was lost, with the remedy."""
    return f"lost {describe_loss(loss)}: the trace is incomplete; {loss_remedy(loss, LIVE)}"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a trace was made."""

    kernel: str
    engine: str
    functions: int
    """How many were traced."""


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    trace: About


class _End(msgspec.Struct, frozen=True, kw_only=True):
    statistics: Statistics


class Writer:
    """Writes a trace to ``file``, line by line."""

    def __init__(self, file: BinaryIO, about: About) -> None:
        self._file = file
        self._add(_Head(trace=about))

    def passing(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The same ``lines``, each written before it is given."""
        for line in lines:
            self._add(line)
            yield line

    def end(self, statistics: Statistics) -> None:
        """Write what stands at the end."""
        self._add(_End(statistics=statistics))
        self._file.flush()

    def _add(self, value: object) -> None:
        self._file.write(msgspec.json.encode(value) + b"\n")


class Stored(msgspec.Struct, kw_only=True):
    """What a file holds."""

    lines: list[Line] = []
    about: About | None = None
    statistics: Statistics | None = None
    """None where the trace was ended by force."""


def read(path: Path) -> Stored:
    """The trace in a file. Raises :class:`~harness.errors.HarnessError` where it is none."""
    found = Stored(lines=[])
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    _take(text, found, f"{path}:{number}")
    except OSError as error:
        raise HarnessError(f"{path} can't be read: {error.strerror}") from None
    return found


def _take(text: bytes, found: Stored, place: str) -> None:
    try:
        if text.startswith(b'{"trace"'):
            found.about = msgspec.json.decode(text, type=_Head).trace
        elif text.startswith(b'{"statistics"'):
            found.statistics = msgspec.json.decode(text, type=_End).statistics
        else:
            found.lines.append(msgspec.json.decode(text, type=Line))
    except msgspec.DecodeError as error:
        remedy = "make one by nft-harness trace --out FILE"
        raise HarnessError(f"{place}: this is no line of a trace: {error}", remedy=remedy) from None


def main(options: argparse.Namespace) -> int:
    """Show the file that ``--read`` names; the exit status, 3 where its trace had lost events."""
    if options.argv:
        raise HarnessError("a trace that is read runs no command", remedy="leave out -- COMMAND, or leave out --read")
    stored = read(options.read)
    globs = [*options.functions, *(live.read_config(options.config) if options.config else ())]
    expression = live.expression(options.filter, options.proto)
    chosen = list(select(stored.lines, functions=globs, netns=options.netns, expression=expression))
    by_packet = options.group == "packet"
    show(chosen, [], as_json=options.json, by_packet=by_packet, coloured=in_colour())
    if not options.json:
        packets = len({line.packet for line in chosen}), len({line.packet for line in stored.lines})
        print(
            f"\n{len(chosen)} of {counted(len(stored.lines), 'event')}, {packets[0]} of {counted(packets[1], 'packet')}"
        )
        if stored.statistics and len(chosen) == len(stored.lines):
            print(f"\n{stored.statistics}")
    if stored.statistics is None:
        print(f"nft-harness: {options.read}: the trace has no end: it was cut off", file=sys.stderr)
        return LOST
    if stored.statistics.loss.total:
        print(f"nft-harness: {options.read}: {incomplete(stored.statistics.loss)}", file=sys.stderr)
        return LOST
    return 0


def select(
    lines: Iterable[Line], *, functions: Iterable[str] = (), netns: Iterable[str] = (), expression: str = ""
) -> Iterator[Line]:
    """Those of ``lines`` that are about one of ``functions``, globs, in one of the namespaces ``netns``, their numbers,
    and about packets that match ``expression``: each from its first line that does, as when it is traced.

    Nothing stands for all. Raises :class:`~harness.errors.HarnessError` for an expression that these lines cannot
    answer, and as :func:`harness.tracer.packet_filter.compiled`.
    """
    globs, namespaces = list(functions), list(netns)
    if wrong := [one for one in namespaces if not one.isdigit()]:
        raise HarnessError(
            f"--netns {wrong[0]} is not a number", remedy="lines in JSON have the number of the namespace"
        )
    if expression and (found := _BY_BYTES.search(expression)):
        raise HarnessError(
            f"a stored trace cannot answer '{found[0]}' in a filter: it has addresses, protocols and ports",
            remedy="give that when it is traced",
        )
    matches = offline(expression) if expression else None
    followed: set[str] = set()
    for line in lines:
        if matches and line.packet not in followed:
            if not matches(_frame(line)):
                continue
            followed.add(line.packet)
        if globs and not any(fnmatchcase(line.function, glob) for glob in globs):
            continue
        if not namespaces or str(line.netns) in namespaces:
            yield line


def _frame(line: Line) -> bytes:
    """An Ethernet frame with the addresses, the protocol and the ports of ``line``, for a filter to look at."""
    (source, sport), (destination, dport) = _endpoint(line.source), _endpoint(line.destination)
    number = _NUMBERS.get(line.protocol, int(line.protocol) if line.protocol.isdigit() else 0)
    ports = struct.pack("!HHHH", sport, dport, 8, 0) + bytes(12)
    if source is None or destination is None or source.version != destination.version:
        return bytes(14)
    if source.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(ports), number, 64) + source.packed + destination.packed
        return bytes(12) + b"\x86\xdd" + header + ports
    header = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(ports), 0, 0, 64, number, 0) + source.packed + destination.packed
    )
    return bytes(12) + b"\x08\x00" + header + ports


def _endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int]:
    found = _ENDPOINT.fullmatch(text)
    address, port = (found["six"] or found["four"], int(found["port"]) & 0xFFFF) if found else (text, 0)
    try:
        return ipaddress.ip_address(address), port
    except ValueError:
        return None, 0
