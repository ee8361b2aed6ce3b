"""Packets out of a capture file, pcap or pcapng: which of them, and with the lab's Ethernet addresses."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from harness import untrusted
from harness.bounds import CAPTURE_BYTES
from harness.model.fields import MOST_PACKETS
from harness.model.problem import Problem
from harness.packets import spec
from harness.packets.endpoints import Endpoints
from harness.packets.headers import fields, framed
from harness.packets.spec import Pcap
from harness.text import counted
from harness.topology.network import Network

GZIP = b"\x1f\x8b"
ADDRESSES = 12
"""Bytes of both addresses of an Ethernet header."""

# How many bytes stand before the network header, and where among them its EtherType: https://www.tcpdump.org/linktypes.html
_ETHERNET = 1
_COOKED = {113: (16, 14), 276: (20, 0)}
_RAW = frozenset({12, 14, 101, 228, 229})


class Recorded(NamedTuple):
    """A packet of a file."""

    number: int
    """Its place in the file, from 1."""
    frame: bytes
    """From an Ethernet header on; one is added where the file has none."""


def packets(pcap: Pcap) -> tuple[Recorded, ...]:
    """The packets that ``pcap`` chooses, in the order in which it names them.

    Raises :class:`~harness.model.problem.Problem`, with keys below ``pcap``.
    """
    frames = _frames(_content(Path(pcap.file)))
    if not frames:
        raise Problem("has no packet", "file")
    chosen = _chosen(pcap.packets, len(frames))
    if len(chosen) > MOST_PACKETS:
        remedy = "choose some of them with packets:"
        raise Problem(f"has {len(chosen):,} packets, and {MOST_PACKETS:,} is the limit", "file", remedy=remedy)
    return tuple(Recorded(number, _as_ethernet(number, *frames[number - 1])) for number in chosen)


def said(recorded: Recorded) -> dict[str, Any]:
    """The addresses and protocol of the packet, as fields of a short form's :class:`~harness.packets.spec.Send`."""
    found = fields(recorded.frame)
    source, destination = found.get("src"), found.get("dst")
    if not isinstance(source, str) or not isinstance(destination, str) or not {"op", "proto"} & found.keys():
        return {"ether": spec.Ether(type=int(found.get("ether_type", 0)))}
    if "op" in found:
        return {"arp": spec.ARP(op="request" if found["op"] == "request" else "reply", src=source, dst=destination)}
    if found["family"] == 4:
        return {"ip": spec.IPv4(src=source, dst=destination, proto=int(found["proto"]))}
    return {"ip6": spec.IPv6(src=source, dst=destination, nh=int(found["proto"]))}


def outside(network: Network) -> str:
    """The host from which packets come where none is named: the first that is not under test."""
    return next(name for name in network.hosts if name != network.device)


def sender(recorded: Recorded, network: Network) -> str:
    """The host that has the packet's source address, or is at its network; else the one :func:`outside`."""
    text = next((header.src for header in said(recorded).values() if getattr(header, "src", None)), None)
    if text is None:
        return outside(network)
    address = ip_address(text)
    if (owner := network.owner(address)) is not None:
        return owner
    for host in network.hosts.values():
        networks = [one.network for interface in host.interfaces.values() for one in interface.addresses]
        if host.name != network.device and any(address.version == one.version and address in one for one in networks):
            return host.name
    return outside(network)


def data(recorded: Recorded, keep: bool, planned: Endpoints) -> bytes:
    """Its frame, from one host of the lab to the next, or with ``keep`` as it was."""
    if keep:
        return recorded.frame
    ends = planned.destination_mac, planned.source_mac
    return b"".join(bytes.fromhex(mac.replace(":", "")) for mac in ends) + recorded.frame[ADDRESSES:]


def _content(path: Path) -> bytes:
    try:
        content = untrusted.read(path, CAPTURE_BYTES)
    except untrusted.Unreadable as error:
        remedy = "cut out what is needed with editcap" if isinstance(error, untrusted.TooLarge) else ""
        raise Problem(error.sentence, "file", remedy=remedy) from None
    if content.startswith(GZIP):
        raise Problem("is compressed", "file", remedy="unpack it with gunzip")
    return content


def _frames(content: bytes) -> list[tuple[int, bytes]]:
    """Link type and bytes of all packets."""
    from scapy.utils import RawPcapNgReader, RawPcapReader

    frames = []
    warned: list[object] = []

    def note(record: logging.LogRecord) -> bool:
        warned.append(record)
        return False

    logger = logging.getLogger("scapy.runtime")
    logger.filters.insert(0, note)  # before scapy's own filter, which drops a warning that it has seen often
    try:
        reader: Any = RawPcapReader(io.BytesIO(content))  # type: ignore[arg-type]  # it opens what is a name
        for frame, about in reader:
            linktype = about.linktype if isinstance(reader, RawPcapNgReader) else reader.linktype
            frames.append((int(linktype or 0), bytes(frame)))
    except Exception:  # scapy has no exception class of its own
        raise Problem(
            "is not a capture file", "file", remedy="name a pcap or pcapng file, as tcpdump -w writes"
        ) from None
    finally:
        logger.removeFilter(note)
    if warned:
        raise Problem("is cut off or damaged", "file", remedy="capture it again")
    return frames


_PART = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")  # int() refuses some thousand digits


def _chosen(packets: str | int | None, count: int) -> Sequence[int]:
    """The numbers that ``packets`` names: ``3``, ``1-5``, ``1-3, 7``."""
    if packets is None:
        return range(1, count + 1)
    ranges: list[range] = []
    for part in str(packets).split(","):
        found = _PART.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last:
            raise Problem(f"'{part.strip()}' is neither a packet number nor a range", "packets", remedy="as in 1-5, 9")
        if last > count:
            raise Problem(f"the file has {counted(count, 'packet')}, and none with number {last}", "packets")
        ranges.append(range(first, last + 1))
    if (number := sum(map(len, ranges))) > MOST_PACKETS:
        remedy = "choose fewer of them"
        raise Problem(f"selects {number:,} packets, and {MOST_PACKETS:,} is the limit", "packets", remedy=remedy)
    return [number for one in ranges for number in one]


def _as_ethernet(number: int, linktype: int, frame: bytes) -> bytes:
    if linktype == _ETHERNET:
        if len(frame) < ADDRESSES + 2:
            raise Problem(f"packet {number} has {len(frame)} bytes: no whole Ethernet header", "file")
        return frame
    if linktype in _COOKED and len(frame) >= _COOKED[linktype][0]:
        length, place = _COOKED[linktype]
        return bytes(ADDRESSES) + frame[place : place + 2] + frame[length:]
    if linktype in _RAW and frame:
        return framed(frame)
    raise Problem(
        f"packet {number} was captured on a link of type {linktype}, which has no Ethernet and no IP header",
        "file",
        remedy="capture on an Ethernet interface",
    )
