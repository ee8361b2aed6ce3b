"""Frames kept from one session to the next, since scapy takes as long to import as a restored guest to come up.

They depend on the packet, its lab and the code that builds them. Packets from a capture are left out, as they depend on
that file as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec

from harness import model, packets, topology
from harness.cache import cache_dir, keep
from harness.packets import frames
from harness.packets.spec import Send
from harness.topology.network import Network

NAME = "frames.msgpack"
MAX_BYTES = 16 << 20
"""Size of the file beyond which the frames of earlier sessions are dropped."""


class _Kept(msgspec.Struct):
    builder: str
    frames: dict[str, bytes]


def use() -> _Kept:
    """Have packets taken from earlier sessions, instead of building them again; those that there are."""
    kept = _read()
    frames.use(kept.frames)
    return kept


def prepare(wanted: Iterable[tuple[Send, Network]]) -> dict[str, bytes]:
    """What :func:`harness.packets.frames.prepare` returns, built only as far as no earlier session has built it.

    That holds while the iterable is consumed, too, for what has to be built to read a scenario.
    """
    kept = use()
    wanted = list(wanted)
    lasting = frames.prepare(one for one in wanted if one[0].pcap is None)
    if not lasting.keys() <= kept.frames.keys():
        content = msgspec.msgpack.encode(_Kept(kept.builder, kept.frames | lasting))
        if len(content) > MAX_BYTES:
            content = msgspec.msgpack.encode(_Kept(kept.builder, lasting))
        if len(content) <= MAX_BYTES:
            keep(cache_dir() / NAME, content)
    return lasting | frames.prepare(one for one in wanted if one[0].pcap is not None)


def _read() -> _Kept:
    """What earlier sessions have built with this code."""
    builder = _builder()
    with suppress(OSError, msgspec.DecodeError):
        kept = msgspec.msgpack.decode((cache_dir() / NAME).read_bytes(), type=_Kept)
        if kept.builder == builder:
            return kept
    return _Kept(builder, {})


def _builder() -> str:
    """Identifies the code that builds frames: scapy, and this package down to the values that it is given."""
    scapy = find_spec("scapy")
    files = [Path(scapy.origin)] if scapy and scapy.origin else []
    files += [file for room in (packets, topology, model) for file in sorted(Path(room.__path__[0]).glob("*.py"))]
    stamps = [(str(file), (about := file.stat()).st_size, about.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()
