"""Captures for Wireshark and tshark, made of results: ``--nft-pcapng DIR``.

A folder for each scenario and kernel. ``interfaces.pcapng`` has what each interface of the lab saw,
``stepN-packetM.pcapng`` the way of one packet: a record for each function that it met, with a comment
that says which, in which layer and with what result. Functions show no bytes, so each record has those known
last, and says from where.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.model.observation import Hop, ObservedPacket
from harness.model.result import LabPlan, PacketResult, Result, file_stem
from harness.reading.words import describe_hop, describe_step
from harness.report.pcapng import FrameDirection, Writer
from harness.save import place as written
from harness.text import escape

INTERFACES = "interfaces.pcapng"
CHAIN = "nft_do_chain"
OURS = re.compile(r"step\d+-packet\d+\.pcapng")
"""What :func:`_name` makes."""


def write(results: Iterable[Result], folder: Path) -> int:
    """Write the captures of ``results`` into folders of their own below ``folder``; the number of files.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done.
    """
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for result in results:
            if not result.sent or not result.lab:
                continue
            place = folder / file_stem(result)
            place.mkdir(exist_ok=True)
            for old in place.glob("step*-packet*.pcapng"):  # of a run in which the scenario had more steps
                if OURS.fullmatch(old.name):
                    old.unlink()
            _write_interfaces(result, result.lab, place / INTERFACES)
            count += 1
            for sent in result.sent:
                for packet in sent.observation.packets:
                    _write_packet(result, sent, packet, place / f"{_name(sent, packet)}.pcapng")
                    count += 1
    except OSError as error:
        raise HarnessError(f"captures can't be written to {error.filename or folder}: {error.strerror}") from None
    return count


def _name(sent: PacketResult, packet: ObservedPacket) -> str:
    return f"step{sent.action + 1}-packet{packet.number + 1}"


# --- what each interface saw ---------------------------------------------------------------------


class CapturedFrame(NamedTuple):
    """A frame at one interface."""

    time: int
    """Nanoseconds since 1970."""
    host: str
    device: str
    direction: FrameDirection
    frame: bytes
    comment: str


def _write_interfaces(result: Result, lab: LabPlan, file: Path) -> None:
    wires = {(one.host, one.name): one.peer for one in lab.interfaces}
    frames = sorted(
        (
            frame
            for sent in result.sent
            for packet in sent.observation.packets
            for frame in _frames(sent, packet, wires)
        ),
        key=lambda frame: frame.time,
    )
    with written(file).open("wb") as stream:
        capture = Writer(stream, escape(f"{result.name} ({result.position}), Linux {result.kernel}"))
        numbers = {
            (one.host, one.name): capture.interface(f"{one.host}:{one.name}", ", ".join(one.addresses))
            for one in lab.interfaces
        }
        for frame in frames:
            if (frame.host, frame.device) in numbers:
                number = numbers[frame.host, frame.device]
                capture.packet(
                    number, frame.time, frame.frame, direction=frame.direction, comment=escape(frame.comment)
                )


def _frames(
    sent: PacketResult, packet: ObservedPacket, wires: dict[tuple[str, str], tuple[str, str]]
) -> Iterator[CapturedFrame]:
    """What interfaces saw of ``packet``: what was sent and what arrived, each at both ends of the wire.

    A veth hands the other end the same bytes, so nobody has to listen on the device under test.
    """

    def at(place: tuple[str, str], direction: FrameDirection, time: int, frame: bytes, note: str = "") -> CapturedFrame:
        comment = f"{_name(sent, packet)}: {sent.summary}" if packet.number == sent.packet else _name(sent, packet)
        return CapturedFrame(packet.born + time, *place, direction, frame, comment + note)

    def other_end(place: tuple[str, str]) -> tuple[str, str] | None:
        """Where the wire ends; a bridge's own interface has none."""
        end = wires.get(place)
        return end if end and wires.get(end) == place else None

    here = next(((hop.host, hop.device) for hop in packet.hops if hop.host == packet.sender and hop.device), None)
    if packet.frame and here:
        yield at(here, FrameDirection.OUT, 0, packet.frame, " (as injected)")
        there = other_end(here)
        met = there and next((hop for hop in packet.hops if (hop.host, hop.device) == there), None)
        if there and met:
            yield at(there, FrameDirection.IN, met.time, packet.frame, " (as injected at the other end of the wire)")
    for delivery in packet.deliveries:
        if not delivery.frame:
            continue
        arrived = (delivery.host, delivery.device)
        if (origin := other_end(arrived)) and origin != here:
            note = " (as it arrived at the other end of the wire)"
            yield at(origin, FrameDirection.OUT, delivery.time, delivery.frame, note)
        yield at(arrived, FrameDirection.IN, delivery.time, delivery.frame, " (as it arrived)")


# --- the way of one packet -----------------------------------------------------------------------


def _write_packet(result: Result, sent: PacketResult, packet: ObservedPacket, file: Path) -> None:
    what = sent.summary if packet.number == sent.packet else f"made by the kernel of {packet.sender}"
    rules = _rules(packet)
    with written(file).open("wb") as stream:
        about = f"{result.name} ({result.position}), Linux {result.kernel}, {_name(sent, packet)}: {what}"
        capture = Writer(stream, escape(about))
        numbers: dict[tuple[str, str], int] = {}
        for index, hop in enumerate(packet.hops):
            place = (hop.host, hop.device)
            if place not in numbers:
                numbers[place] = capture.interface(":".join(filter(None, place)) or "?")
            frame, whence = _bytes(packet, hop)
            details = [f"{name} {value}" for name, value in hop.detail.items() if name in ("hook", "result")]
            notes = [describe_hop(hop), f"layer {hop.layer}", *details, *rules.get(index, ()), whence]
            capture.packet(numbers[place], packet.born + hop.time, frame, comment="\n".join(map(escape, notes)))


def _rules(packet: ObservedPacket) -> dict[int, list[str]]:
    """What the nftables trace reported, by the hop in which it was evaluated."""
    chains = [index for index, hop in enumerate(packet.hops) if hop.function == CHAIN]
    begun = [packet.hops[index].time for index in chains]
    verdicts: dict[int, list[str]] = {}
    for step in packet.steps:
        if before := bisect_right(begun, step.time):
            verdicts.setdefault(chains[before - 1], []).append(f"{step.kind} {step.verdict}: {describe_step(step)}")
    return verdicts


def _bytes(packet: ObservedPacket, hop: Hop) -> tuple[bytes, str]:
    """The packet's bytes as known last before ``hop``, and where they are from: functions show none."""
    arrived = [delivery for delivery in packet.deliveries if delivery.frame]
    before = [delivery for delivery in arrived if delivery.host == hop.host and delivery.time <= hop.time]
    if before:
        return before[-1].frame, f"bytes as they arrived at {hop.host}:{before[-1].device}"
    if packet.frame:
        return packet.frame, "bytes as injected"
    if arrived:
        later = arrived[0]
        return later.frame, f"bytes as they arrived later, at {later.host}:{later.device}"
    return b"", "bytes not known: the kernel made this packet, and it arrived nowhere"
