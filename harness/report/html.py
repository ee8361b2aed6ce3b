"""The report to read in a browser: one file that needs no network."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness import __version__
from harness.errors import Position
from harness.judge.advice import PAGE
from harness.model.observation import Delivery, Hop, ObservedPacket, Value
from harness.model.result import PacketResult, Result
from harness.packets.headers import fields, summarise
from harness.reading.path import located
from harness.reading.words import describe_chain, describe_hop, describe_loss
from harness.report.evaluated import CoveredRule, covered_rules
from harness.report.findings import said
from harness.report.picture import HEIGHT, LINE, WIDTH, draw
from harness.text import counted, escape

OUTCOMES = ("failed", "error", "skipped", "passed")
BAD = ("failed", "error")
PACKETS = 2000
"""Packets whose way is in the page, at most: a browser then shows it within two seconds."""
NAMES = 20
"""Scenarios that a rule names which met it, at most."""


def render(results: Sequence[Result]) -> str:
    """Return the whole page about ``results``."""
    texts: dict[tuple[str, str], int] = {}  # a file may differ from one stored run to the other
    for result in results:
        for name, text in result.ruleset.texts.items() if result.ruleset else ():
            texts.setdefault((name, text), len(texts))
    covered = covered_rules(results)
    environment = Environment(
        loader=PackageLoader("harness", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: escape(value) if type(value) is str else value,
    )
    environment.globals.update(box_width=WIDTH, box_height=HEIGHT, line=LINE, causes=PAGE, counted=counted)
    kernels = sorted({result.kernel for result in results if result.kernel})
    ways, room = _Ways(), _room(results)
    cards = [_card(number, result, texts, ways, room[number]) for number, result in enumerate(results)]
    same: dict[str, list[dict[str, Any]]] = {}
    for card in cards:
        card["elsewhere"] = same.setdefault(card["result"].id, [])
        card["elsewhere"].append(card)
    return environment.get_template("page.html.jinja").render(
        version=__version__,
        facts=_facts(results, kernels, covered),
        outcomes=OUTCOMES,
        counts=Counter(result.outcome for result in results),
        kernels=kernels,
        files=[(file, list(cards)) for file, cards in groupby(cards, lambda card: card["result"].position.file)],
        bad=[card for card in cards if card["result"].outcome in BAD],
        count=len(cards),
        packets=PACKETS,
        matrix=_matrix(cards, kernels) if len(kernels) > 1 else [],
        sources=_sources(results, texts, covered),
        ways=ways.as_json(),
    )


class _Ways:
    """The ways of all packets, as the page's script reads them: functions and layers are numbers."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}
        self._layers: dict[str, int] = {}
        self._ways: list[Any] = []

    def add(self, packet: ObservedPacket, device: str) -> int:
        """The number of the way of ``packet``: for each host it visited its name, interfaces, whether it is the
        device under test, and the runs of one layer, each with time (µs), layer and functions."""
        self._ways.append(
            [
                [
                    escape(host),
                    escape(" → ".join(dict.fromkeys(hop.device for hop in hops if hop.device))),
                    host == device,
                    [
                        [run[0].time // 1000, _number(layer, self._layers), list(map(self._function, run))]
                        for layer, found in groupby(hops, key=attrgetter("layer"))
                        for run in (list(found),)
                    ],
                ]
                for host, visit in groupby(located(packet), key=attrgetter("host"))
                for hops in (list(visit),)
            ]
        )
        return len(self._ways) - 1

    def as_json(self) -> Markup:
        """All of it, fit to stand in a script."""
        text = msgspec.json.encode(
            {"words": list(self._words), "layers": list(self._layers), "ways": self._ways}
        ).decode()
        return Markup(text.replace("<", r"\u003c"))

    def _function(self, hop: Hop) -> int | list[int | str]:
        if {"verdict", "reason", "chain"} & set(hop.detail):
            return [_number(describe_hop(hop), self._words), str(hop.detail.get("verdict", "drop"))]
        return _number(hop.function, self._words)


def _number(word: str, known: dict[str, int]) -> int:
    return known.setdefault(escape(word), len(known))


def _facts(results: Iterable[Result], kernels: Sequence[str], covered: Iterable[CoveredRule]) -> list[str]:
    """What is to be known of the run as a whole."""
    rules = [place for place in covered if not place.is_policy]
    facts = [f"on Linux {', '.join(kernels)}"] if kernels else []
    if versions := sorted({result.nft for result in results if result.nft}):
        facts.append(f"rulesets read by nft {', '.join(versions)}")
    if rules:
        met = sum(bool(place.matched) for place in rules)
        facts.append(f"{met} of {counted(len(rules), 'rule')} met")
    return [*facts, f"nft-harness {__version__}"]


def _room(results: Iterable[Result]) -> dict[int, int]:
    """How many packets of each result are in the page, by its number; those of what went wrong are chosen first."""
    sizes = [(one.outcome not in BAD, number, len(one.sent)) for number, one in enumerate(results)]
    room, left = {}, PACKETS
    for _, number, size in sorted(sizes):
        room[number] = min(size, left)
        left -= room[number]
    return room


def _shown(sent: Sequence[PacketResult], room: int) -> tuple[PacketResult, ...]:
    """As many of the packets ``sent`` as there is ``room`` for, in their order: those that differ, then the first."""
    first = sorted(range(len(sent)), key=lambda number: not sent[number].mismatches)[:room]
    return tuple(sent[number] for number in sorted(first))


def _card(number: int, result: Result, texts: dict[tuple[str, str], int], ways: _Ways, room: int) -> dict[str, Any]:
    """What the page has of ``result``, with ``room`` for so many packets."""

    def anchor(position: Position | None) -> str:
        text = result.ruleset.texts.get(position.file) if result.ruleset and position else None
        return f"s{texts[position.file, text]}-{position.line}" if position and text is not None else ""

    shown = _shown(result.sent, room)
    return {
        "anchor": f"r{number}",
        "result": msgspec.structs.replace(result, sent=shown, ruleset=None, lab=None),
        "message": result.message.splitlines(),
        "verdicts": _verdicts(result),
        "steps": [_step(result, sent, anchor, ways) for sent in shown],
        "more": len(result.sent) - len(shown),
    }


def _step(result: Result, sent: PacketResult, anchor: Any, ways: _Ways) -> dict[str, Any]:
    packet, device = sent.seen, sent.observation.device
    return {
        "sent": sent,
        "picture": draw(result.lab, packet, device) if result.lab else None,
        "way": ways.add(packet, device),
        "functions": len(packet.hops),
        "rules": [
            (step, describe_chain(step, device), said(step), place, anchor(place), step in sent.decided)
            for step in packet.steps
            for place in (step.position,)
        ],
        "arrived": [_arrived(one) for one in packet.deliveries],
        "answers": [_arrived(one) for one in sent.observation.replies],
        "loss": describe_loss(sent.observation.loss),
    }


def _arrived(delivery: Delivery) -> tuple[str, list[str]]:
    """What arrived in words, and its bytes as the lines of a dump."""
    if not delivery.frame:
        return f"{delivery.host}: received", []
    ttl = fields(delivery.frame).get("ttl", "-")
    data = delivery.frame[:256]
    dump = [
        f"{place:04x}  {row.hex(' '):47}  {''.join(chr(byte) if 32 <= byte < 127 else '.' for byte in row)}"
        for place in range(0, len(data), 16)
        for row in (data[place : place + 16],)
    ]
    if more := len(delivery.frame) - len(data):
        dump.append(f"… {more} bytes more")
    return f"{delivery.host} {delivery.device}: {summarise(delivery.frame)}, ttl {ttl}", dump


class Row(Value, frozen=True):
    """A scenario on several kernels."""

    name: str
    cells: tuple[tuple[str, str, str], ...]
    """By kernel: outcome, verdict and the card's anchor; empty where it did not run."""

    @property
    def differs(self) -> bool:
        """Whether the kernels do not agree."""
        return len({cell[:2] for cell in self.cells}) > 1


def _matrix(cards: Iterable[dict[str, Any]], kernels: Sequence[str]) -> list[Row]:
    """One row per scenario, those that differ first."""
    rows: dict[str, dict[str, tuple[str, str, str]]] = {}
    names: dict[str, str] = {}
    for card in cards:
        result: Result = card["result"]
        if not result.kernel:
            continue  # a mistake in its file is no kernel's
        names[result.id] = result.name
        rows.setdefault(result.id, {})[result.kernel] = (result.outcome, card["verdicts"], card["anchor"])
    table = [Row(names[key], tuple(row.get(kernel, ("", "", "")) for kernel in kernels)) for key, row in rows.items()]
    return sorted(table, key=lambda row: not row.differs)


def _verdicts(result: Result) -> str:
    return ", ".join(dict.fromkeys(f"{one.verdict or 'undecided'}" for one in result.sent))


def _sources(
    results: Iterable[Result], texts: dict[tuple[str, str], int], covered: Sequence[CoveredRule]
) -> list[dict[str, Any]]:
    """The rulesets' files, each line with what the scenarios made of it."""
    sources = []
    versions = Counter(name for name, _ in texts)
    by_file = _by_file(covered)
    for (name, text), number in texts.items():
        found = by_file.get(name, [])
        if versions[name] > 1:
            same = (one for one in results if one.ruleset and one.ruleset.texts.get(name) == text)
            found = _by_file(covered_rules(same)).get(name, [])
        by_line: dict[int, list[CoveredRule]] = {}
        for place in found:
            by_line.setdefault(place.position.line, []).append(place)
        lines = [
            (line, content.expandtabs(4), _mark(by_line[line]) if line in by_line else None)
            for line, content in enumerate(text.splitlines(), 1)
        ]
        rules = [place for met in by_line.values() for place in met if not place.is_policy]
        met = f"{sum(bool(place.matched) for place in rules)} of {counted(len(rules), 'rule')} met"
        sources.append({"name": name, "anchor": f"s{number}", "lines": lines, "met": met})
    return sources


def _by_file(covered: Iterable[CoveredRule]) -> dict[str, list[CoveredRule]]:
    found: dict[str, list[CoveredRule]] = {}
    for place in covered:
        found.setdefault(place.position.file, []).append(place)
    return found


class Mark(Value, frozen=True):
    """What the scenarios made of a line."""

    count: int
    """How many met anything of it."""
    status: Literal["met", "part", "unmet"]
    words: str


def _mark(places: Sequence[CoveredRule]) -> Mark:
    names = {name for place in places for name in place.matched}
    whole = all(place.matched and not place.missed for place in places)
    words = [f"{place.text}: {'; '.join([place.status, *_some(place.matched)])}" for place in places]
    if missed := [element for place in places if place.matched for element in place.missed]:
        words.append(f"never met: {', '.join(missed)}")
    return Mark(len(names), "met" if whole else "part" if names else "unmet", " | ".join(words))


def _some(names: Collection[str]) -> list[str]:
    """The first of ``names``, and how many more there are."""
    more = len(names) - NAMES
    return [*itertools.islice(names, NAMES), *([f"and {more} more"] if more > 0 else [])]
