"""What a live trace prints: a line for each event, grouped by packet if wanted, and statistics at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from harness.model.observation import Loss
from harness.tracer.events import Event, EventWithBytes

FUNC, NFT_CHAIN, NFT_RULE, DROP = "FUNC", "NFT_CHAIN", "NFT_RULE", "DROP"
"""Kinds of lines; the names are those of the tool that this one replaces."""
HOOK, ROUTE = "HOOK", "ROUTE"
"""The verdict of a hook other than nf_tables', or of all hooks in one place; and the route of a packet."""
WIDTH = 80

REMEMBERED = 1024
"""Freed packets that are still remembered: a function that freed one may not have returned yet."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it is printed."""

    number: int
    """From 1, in the order of events."""
    time: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    packet: str
    """Number of the packet; a packet and its copies have the same."""
    kind: str
    layer: str
    function: str
    source: str
    destination: str
    protocol: str
    netns: int
    ifindex: int
    device: str
    """Name of the interface; "" when the packet has none."""
    cpu: int
    verdict: str = ""
    """Of the rule, chain or function; for a drop the reason."""
    detail: str = ""
    stack: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In the format of the tool that this one replaces."""
        flow = f"{self.source} → {self.destination}"
        verdict = f" [{self.verdict}]" if self.verdict else ""
        detail = f" {self.detail}" if self.detail else ""
        above = "".join(f"\n{'':30}{function}" for function in self.stack)
        return f"[{self.number:4}] {self.kind:10} {self.layer:10} {self.function:30} {flow}{verdict}{detail}{above}"


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of a trace."""

    events: int
    packets: int
    functions: int
    """Number of different functions that packets met."""
    armed: int
    chains: int
    """Number of times a base chain was entered."""
    rules: int
    """Number of verdicts of rules."""
    seconds: float
    loss: Loss
    by_layer: Mapping[str, int]
    by_verdict: Mapping[str, int]
    """Packets by their last verdict, of a ruleset or a drop."""

    def __str__(self) -> str:
        loss = self.loss
        unaccounted = loss.entered - loss.received - loss.refused
        rows = {
            "Total events": f"{self.events} in {self.seconds:.1f} s",
            "Packets traced": str(self.packets),
            "Functions hit": f"{self.functions} of {self.armed}",
            "NFT chains": str(self.chains),
            "NFT rules": str(self.rules),
            "Lost": f"{loss.total} (refused {loss.refused}, missed {loss.missed}, untracked {loss.untracked}, "
            f"unaccounted {unaccounted})",
        }
        lines = ["TRACE STATISTICS", "=" * WIDTH, *(f"{name + ':':20}{value}" for name, value in rows.items())]
        for title, counts in (("Events by Layer", self.by_layer), ("Packets by Verdict", self.by_verdict)):
            if counts:
                lines += ["", f"{title}:", *(f"  {name:15}: {count:6}" for name, count in counts.items())]
        return "\n".join(lines)


class EventLine(NamedTuple):
    """A line, and the event that it describes."""

    line: Line
    event: Event | EventWithBytes


def grouped(entries: Iterable[Line], finished: list[str]) -> Iterator[str]:
    """The lines grouped by packet: those of packets in ``finished`` as soon as possible, of the others at the end."""
    packets: dict[str, list[Line]] = {}
    for number, line in enumerate(entries):
        packets.setdefault(line.packet, []).append(line)
        if number % REMEMBERED == 0:
            for name in finished:
                yield from _story(packets.pop(name, []))
            finished.clear()
    for lines in packets.values():
        yield from _story(lines)


def _story(lines: Sequence[Line]) -> Iterator[str]:
    if lines:
        first = lines[0]
        yield f"packet {first.packet}: {first.source} → {first.destination} {first.protocol}".rstrip()
        yield from map(str, lines)
        yield ""
