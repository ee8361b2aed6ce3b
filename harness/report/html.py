"""The report to read in a browser: one file that needs no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness import __version__
from harness.errors import Position
from harness.judge import describe_hop, describe_loss, escape, located
from harness.observation import Delivery, Hop, PacketSeen
from harness.report.findings import position, said
from harness.report.met import Place, places
from harness.report.picture import HEIGHT, LINE, WIDTH, draw
from harness.result import Result, Sent
from harness.scenario.packet import fields, summarise

OUTCOMES = ("failed", "error", "skipped", "passed")


def render(results: Iterable[Result]) -> str:
    """Return the whole page about ``results``."""
    results = list(results)
    texts: dict[tuple[str, str], int] = {}  # a file may differ from one stored run to the other
    for result in results:
        for name, text in result.ruleset.texts.items() if result.ruleset else ():
            texts.setdefault((name, text), len(texts))
    environment = Environment(
        loader=PackageLoader("harness", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: escape(value) if type(value) is str else value,
    )
    environment.globals.update(box_width=WIDTH, box_height=HEIGHT, line=LINE)
    kernels = sorted({result.kernel for result in results if result.kernel})
    return environment.get_template("page.html.jinja").render(
        version=__version__,
        outcomes=OUTCOMES,
        counts=Counter(result.outcome for result in results),
        kernels=kernels,
        cards=[_card(number, result, texts) for number, result in enumerate(results)],
        matrix=_matrix(results, kernels) if len(kernels) > 1 else [],
        sources=_sources(results, texts),
    )


def _card(number: int, result: Result, texts: dict[tuple[str, str], int]) -> dict[str, Any]:
    def anchor(position: Position | None) -> str:
        text = result.ruleset.texts.get(position.file) if result.ruleset and position else None
        return f"s{texts[position.file, text]}-{position.line}" if position and text is not None else ""

    return {
        "anchor": f"r{number}",
        "result": result,
        "message": result.message.splitlines(),
        "verdicts": ", ".join(dict.fromkeys(f"{one.verdict or 'undecided'}" for one in result.sent)),
        "steps": [_step(result, sent, anchor) for sent in result.sent],
    }


def _step(result: Result, sent: Sent, anchor: Any) -> dict[str, Any]:
    packet, device = sent.seen, sent.observation.device
    return {
        "sent": sent,
        "picture": draw(result.lab, packet, device) if result.lab else None,
        "visits": _visits(packet),
        "rules": [
            (step, said(step), place, anchor(place), step in sent.decided)
            for step in packet.steps
            if step.host == device
            for place in (position(result.ruleset, step),)
        ],
        "arrived": [_arrived(one) for one in packet.deliveries],
        "answers": [_arrived(one) for one in sent.observation.replies],
        "loss": describe_loss(sent.observation.loss),
    }


def _visits(packet: PacketSeen) -> list[dict[str, Any]]:
    """The hops by host, and on each host by layer."""
    visits = []
    for host, group in groupby(located(packet), key=attrgetter("host")):
        hops = list(group)
        visits.append(
            {
                "host": host,
                "devices": " → ".join(dict.fromkeys(hop.device for hop in hops if hop.device)),
                "count": len(hops),
                "runs": [
                    (layer, f"{run[0].time / 1000:.0f}", _functions(run))
                    for layer, found in groupby(hops, key=attrgetter("layer"))
                    for run in (list(found),)
                ],
            }
        )
    return visits


def _functions(hops: Sequence[Hop]) -> list[tuple[str, str]]:
    """Names in order, those that say nothing more in one piece; with a class for the rest."""
    pieces: list[tuple[str, str]] = []
    for hop in hops:
        told = {"verdict", "reason", "chain"} & set(hop.detail)
        kind = f"says {hop.detail.get('verdict', 'drop')}" if told else ""
        if pieces and not kind and not pieces[-1][1]:
            pieces[-1] = (f"{pieces[-1][0]} {hop.function}", "")
        else:
            pieces.append((describe_hop(hop) if told else hop.function, kind))
    return pieces


def _arrived(delivery: Delivery) -> tuple[str, list[str]]:
    """What arrived in words, and its bytes as the lines of a dump."""
    if not delivery.frame:
        return f"{delivery.host}: taken in", []
    ttl = fields(delivery.frame).get("ttl", "-")
    data = delivery.frame[:256]
    dump = [f"{place:04x}  {data[place : place + 16].hex(' ')}" for place in range(0, len(data), 16)]
    if more := len(delivery.frame) - len(data):
        dump.append(f"… {more} bytes more")
    return f"{delivery.host} {delivery.device}: {summarise(delivery.frame)}, ttl {ttl}", dump


def _matrix(results: Sequence[Result], kernels: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """One row per scenario: its outcome on each kernel, with the card's anchor."""
    rows: dict[str, dict[str, tuple[str, str]]] = {}
    names: dict[str, str] = {}
    for number, result in enumerate(results):
        names[result.id] = result.name
        rows.setdefault(result.id, {})[result.kernel] = (result.outcome, f"r{number}")
    return [(names[key], [row.get(kernel, ("", "")) for kernel in kernels]) for key, row in rows.items()]


def _sources(results: Sequence[Result], texts: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    """The rulesets' files, each line with what the scenarios made of it."""
    sources = []
    for (name, text), number in texts.items():
        same = [one for one in results if one.ruleset and one.ruleset.texts.get(name) == text]
        by_line: dict[int, list[Place]] = {}
        for place in places(same):
            if place.position.file == name:
                by_line.setdefault(place.position.line, []).append(place)
        lines = [
            (line, content.expandtabs(4), by_line.get(line, [])) for line, content in enumerate(text.splitlines(), 1)
        ]
        sources.append({"name": name, "anchor": f"s{number}", "lines": lines})
    return sources
