"""What a person reads in the terminal: why a scenario failed, and which way a packet took.

Texts are plain lines; with ``colour`` they carry ANSI colours. Whatever comes from a file or the
kernel is escaped, so that no name can move the cursor.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from harness.errors import Position
from harness.judge.advice import PAGE, advise, symptom
from harness.judge.evidence import Evidence
from harness.model.mismatch import Mismatch
from harness.model.observation import Delivery, Hop, Observation, ObservedPacket, Step, Verdict
from harness.model.problem import one_of
from harness.packets import icmp
from harness.packets.headers import fields, summarise
from harness.reading.decision import Outcome, arrivals, ended, outcome
from harness.reading.path import PLUMBING, PathRow, align, entries, is_landmark, located
from harness.reading.words import describe_chain, describe_entry, describe_hop, describe_loss
from harness.text import escape

if TYPE_CHECKING:
    pass

LABEL = 10
"""Columns of the labels on the left, behind an indentation of 2."""

_SGR = {"bold": "1", "faint": "2", "good": "32", "bad": "31", "good bold": "1;32", "bad bold": "1;31"}


class Page:
    """Lines of a text under construction: labels on the left, colours only where wanted."""

    def __init__(self, *, colour: bool, width: int) -> None:
        self.colour = colour
        self.width = width
        self.lines: list[str] = []

    def paint(self, text: str, style: str = "", columns: int = 0) -> str:
        """Return ``text`` escaped, padded to ``columns`` and coloured."""
        padded = escape(text).ljust(columns)
        return f"\x1b[{_SGR[style]}m{padded}\x1b[0m" if self.colour and style else padded

    def wrap(self, text: str, indent: int, hanging: str = "") -> list[str]:
        """Break ``text`` into escaped lines that fit behind ``indent`` columns; ``hanging`` begins the later ones."""
        return textwrap.wrap(
            escape(text), self.width - indent, subsequent_indent=hanging, break_on_hyphens=False, break_long_words=False
        )

    def add(self, label: str, *lines: str) -> None:
        """Add painted lines under a label."""
        for line in lines:
            self.lines.append(f"  {self.paint(label, 'faint', LABEL)}{line}".rstrip())
            label = ""

    def say(self, label: str, *sentences: str, style: str = "") -> None:
        """Add plain sentences under a label, broken at the width of the page."""
        for sentence in sentences:
            self.add(label, *(self.paint(piece, style) for piece in self.wrap(sentence, LABEL + 2)))
            label = ""

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain(
    name: str,
    where: Position,
    summary: str,
    evidence: Evidence,
    mismatches: Sequence[Mismatch],
    *,
    others: Sequence[int] = (),
    colour: bool = False,
    width: int = 100,
) -> str:
    """Return the failure text of one packet of the scenario ``name``, which stands at ``where``.

    ``summary`` is the packet sent in one line, ``mismatches`` is what :func:`~harness.judge.expectations.judge` found,
    ``others`` the places, from 0, of packets sent with it that are not as expected either. Lines keep to
    ``width`` columns where names and rules allow it.
    """
    page = Page(colour=colour, width=width)
    page.lines.append(page.paint(f"{where}: ", "faint") + page.paint(name, "bold"))
    _mismatches(page, mismatches)
    page.say("ended", ended(evidence.packet, evidence.seen, evidence.device))
    advice = list(advise(evidence))
    page.say("advice", *advice, style="bold")
    if part := symptom(mismatches, advice):
        page.say("causes", f"{PAGE}#{part}", style="faint")
    page.say("packet", summary, *_others(others))
    differs = any("path" in mismatch.keys for mismatch in mismatches)
    rows = align(entries(evidence.expect.path), evidence.packet, evidence.device) if differs else ()
    _story(page, evidence, rows)
    return str(page)


def story(summary: str, evidence: Evidence, *, colour: bool = False, width: int = 100) -> str:
    """Return what became of a packet of which nothing was expected, in the lines of :func:`explain`."""
    page = Page(colour=colour, width=width)
    seen, flow = evidence.seen, evidence.observation.flow
    if flow:
        page.add("flow", page.paint(flow.result, "bold"))
    page.add("verdict", page.paint(str(seen), f"{_style(seen.verdict)} bold".strip() if seen.verdict else "bold"))
    page.say("ended", ended(evidence.packet, seen, evidence.device))
    page.say("advice", *advise(evidence), style="bold")
    page.say("packet", summary)
    _story(page, evidence)
    return str(page)


def _story(page: Page, evidence: Evidence, rows: Sequence[PathRow] = ()) -> None:
    """Add who decided, the rules, the path, what arrived, and what was lost; ``rows`` are of a path that differs."""
    seen, observation, packet = evidence.seen, evidence.observation, evidence.packet
    page.add("decided", *_decided(page, seen))
    page.add("rules", *_rules(page, packet, seen, observation))
    page.add("path", *(_side_by_side(page, rows) if rows else _outline(page, observation, packet)))
    page.say("arrived", *_arrived(packet, observation.device))
    page.say("answers", *_first(4, [_answer(reply) for reply in observation.replies]))
    page.say("lost", describe_loss(observation.loss))


def outline(observation: Observation, packet: ObservedPacket, *, colour: bool = False, width: int = 100) -> str:
    """Return the path of ``packet`` in a few lines: hosts, interfaces, layers, and each chain's verdict."""
    page = Page(colour=colour, width=width)
    page.add("path", *_outline(page, observation, packet))
    page.say("ended", ended(packet, outcome(packet, observation.device), observation.device))
    return str(page)


def _others(places: Sequence[int]) -> list[str]:
    if not places:
        return []
    shown = [str(place + 1) for place in places[:10]]
    if len(places) > len(shown):
        shown.append(f"{len(places) - len(shown)} more")
    return [f"not as expected either: packet{'s' if len(places) > 1 else ''} {one_of(shown, 'and')}"]


def _mismatches(page: Page, mismatches: Sequence[Mismatch]) -> None:
    """Add one line for each, ``key  expected  seen  …``; what is too long for that takes two."""
    keys = max(len(mismatch.key) for mismatch in mismatches) + 2
    column = max((len(mismatch.expected) for mismatch in mismatches if len(mismatch.expected) <= 24), default=0)
    for mismatch in mismatches:
        key = page.paint(mismatch.key, "", keys)
        expected, seen = page.paint(mismatch.expected, "good", column), page.paint(mismatch.seen, "bad")
        length = 2 + keys + max(column, len(escape(mismatch.expected))) + 8 + len(escape(mismatch.seen))
        indent = " " * (keys + 2)
        if length <= page.width:
            page.lines.append(f"  {key}{expected}  {page.paint('seen', 'faint')}  {seen}")
        else:
            page.lines.append(f"  {key}{page.paint('expected', 'faint')}  {page.paint(mismatch.expected, 'good')}")
            first, *more = page.wrap(mismatch.seen, len(indent) + 10)
            page.lines.append(f"{indent}{page.paint('seen', 'faint', 8)}  {page.paint(first, 'bad')}")
            indent += " " * 10
            page.lines += [indent + page.paint(piece, "bad") for piece in more]
        page.lines += [indent + page.paint(piece, "faint") for piece in page.wrap(mismatch.note, len(indent))]


# --- rules --------------------------------------------------------------------------------------


def _decided(page: Page, seen: Outcome) -> list[str]:
    """Return who decided: for an accept the rules that say so, or the policies where no rule did."""
    if not seen.decided:
        return [page.paint("nothing: no base chain of the ruleset saw the packet")]
    by_rule = [step for step in seen.deciding if step.kind != "policy"]
    lines = []
    for step in by_rule or seen.deciding:
        place = page.paint(f"{step.chain_path}{_place(step)}")
        text = _said(step)
        if len(place) + len(text) + 3 + LABEL + 2 <= page.width:
            lines.append(f"{place}   {page.paint(text, 'bold')}")
        else:
            lines += [place, f"  {page.paint(text, 'bold')}"]
    return lines


def _rules(page: Page, packet: ObservedPacket, seen: Outcome, observation: Observation) -> list[str]:
    """Return every chain and rule passed, in order; the rule's text comes last as it may be long."""
    steps, device = packet.steps, observation.device
    # The trace says drop of a reject as well.
    verdicts = [seen.verdict if seen.decided and step is seen.decided[-1] else step.verdict for step in steps]
    rows = [
        (describe_chain(step, device), _line(step), f"{verdict} {step.target}".strip())
        for step, verdict in zip(steps, verdicts, strict=True)
    ]
    widths = [max(len(escape(row[column])) for row in rows) + 2 for column in range(3)] if rows else []
    lines = []
    for step, row in zip(steps, rows, strict=True):
        styles = ("", "", _style(step.verdict))
        cells = [page.paint(*cell) for cell in zip(row, styles, widths, strict=True)]
        count = observation.counts.get(f"{step.chain_path} {step.rule.handle}") if step.rule else None
        counted = "" if count is None or step.host != device else f"   [counter: {count}]"
        lines.append("".join(cells) + page.paint(_said(step)) + page.paint(counted, "faint"))
    return lines


def _said(step: Step) -> str:
    """Return what stands in the ruleset for this step."""
    if step.kind == "policy":
        return f"policy {step.verdict}"
    if step.rule is None:
        return "end of the chain" if step.kind == "return" else "a rule that is not in the ruleset's listing"
    return step.rule.text + (f'   "{step.rule.comment}"' if step.rule.comment not in step.rule.text else "")


def _line(step: Step) -> str:
    return f"{step.position.file.rpartition('/')[2]}:{step.position.line}" if step.position else ""


def _place(step: Step) -> str:
    line = f", {step.position.file}:{step.position.line}" if step.position else ""
    return f"{line} (handle {step.rule.handle})" if step.rule else line


def _style(verdict: Verdict) -> str:
    return {Verdict.ACCEPT: "good", Verdict.DROP: "bad", Verdict.REJECT: "bad"}.get(verdict, "")


# --- the way ------------------------------------------------------------------------------------


def _side_by_side(page: Page, rows: Sequence[PathRow]) -> list[str]:
    """Return expected and seen path in two columns, the first difference marked.

    Of hops that nobody asked for, the landmarks around that difference and the last are shown; others are counted.
    """
    different = next((number for number, row in enumerate(rows) if not row.met), len(rows))
    near = _near(rows, different)
    shown = [row.expected is not None or number in near for number, row in enumerate(rows)]
    hosts = {row.hop.host for row, show in zip(rows, shown, strict=True) if show and row.hop}
    cells = [_cells(row, with_host=len(hosts) > 1) for row in rows]
    left, right, layer, place = (max(map(len, column)) for column in zip(*cells, strict=True))
    # 2 for the mark, 2 between columns; what is left over is shared, the seen side first.
    room = page.width - 2 - LABEL - 2 - 6 - layer - place
    right = min(right, max(room - min(left, room // 2), 12))
    left = min(left, max(room - right, 12))

    lines = [page.paint(f"  {'expected':{left}}  {'seen':{right}}  > differs", "faint")]
    for show, group in groupby(range(len(rows)), key=shown.__getitem__):
        hidden = list(group)
        if not show and len(hidden) > 1:
            lines.append(page.paint(f"  {'':{left}}  … {len(hidden)} more", "faint"))
            continue
        for number in hidden:
            row, (expected, seen, layer_name, where) = rows[number], cells[number]
            mark = page.paint(">" if number == different else "", "bad bold", 2)
            wanted = page.paint(_cut(expected, left), "" if row.met else "bad", left + 2)
            met = page.paint(_cut(seen, right), "" if row.expected and row.met else "faint", right + 2)
            lines.append(f"{mark}{wanted}{met}{page.paint(layer_name, '', layer + 2)}{page.paint(where)}".rstrip())
    return lines


def _near(rows: Sequence[PathRow], different: int) -> set[int]:
    """The numbers of the landmarks around the first difference, and of the last."""
    landmarks = [number for number, row in enumerate(rows) if row.hop and is_landmark(row.hop)]
    before = [number for number in landmarks if number < different]
    after = [number for number in landmarks if number > different]
    return {*before[-2:], *after[:3], *landmarks[-1:]}


def _cells(row: PathRow, *, with_host: bool) -> tuple[str, str, str, str]:
    expected = describe_entry(row.expected) if row.expected else ""
    if not row.hop:
        return expected, "", "", ""
    place = [row.hop.host, row.hop.device] if with_host else [row.hop.device]
    return escape(expected), escape(describe_hop(row.hop)), escape(row.hop.layer), escape(" ".join(place))


def _cut(text: str, columns: int) -> str:
    """Shorten in the middle: functions differ at the start, verdicts stand at the end."""
    if len(text) <= columns:
        return text
    tail = (columns - 1) // 2
    return f"{text[: columns - 1 - tail]}…{text[len(text) - tail :]}"


def _outline(page: Page, observation: Observation, packet: ObservedPacket) -> list[str]:
    """Return a line for each host passed; for the device also its layers, and each chain with its verdict."""
    if not packet.hops:
        return [page.paint("no function was traced")]
    rows = []
    for host, visit in groupby(located(packet), key=attrgetter("host")):
        hops = list(visit)
        devices = " → ".join(dict.fromkeys(hop.device for hop in hops if hop.device))
        count = f"{len(hops)} {'functions' if len(hops) > 1 else 'function'}"
        words = f"{count}: {'  '.join(_words(hops))}" if host == observation.device else count
        rows.append((host, devices, words))
    hosts, devices_column = (max(len(escape(row[column])) for row in rows) + 2 for column in range(2))
    lines = []
    for host, devices, words in rows:
        head = page.paint(host, "bold" if host == observation.device else "", hosts)
        head += page.paint(devices, "", devices_column)
        indent = LABEL + 2 + hosts + devices_column
        first, *more = page.wrap(words, indent)
        lines.append(head + page.paint(first))
        lines += [" " * (hosts + devices_column) + page.paint(piece) for piece in more]
    return lines


def _words(hops: Sequence[Hop]) -> list[str]:
    """Return the layers of ``hops``, each once up to the next chain, and each chain with its verdict."""
    words: list[str] = []
    run: dict[str, None] = {}
    for hop in hops:
        if hop.function == "nft_do_chain" and hop.detail:
            words += [*run, f"[{describe_hop(hop).removeprefix('nft_do_chain ')}]"]
            run = {}
        elif hop.layer not in PLUMBING:
            run[hop.layer] = None
    return [*words, *run]


# --- arrivals -----------------------------------------------------------------------------------


def _arrived(packet: ObservedPacket, device: str) -> list[str]:
    """Return what arrived where, and as what."""
    lines = [
        f"{delivery.host} {delivery.device}: {summarise(delivery.frame)}, ttl {fields(delivery.frame).get('ttl', '-')}"
        for delivery in packet.deliveries
        if delivery.frame
    ]
    if device in arrivals(packet):
        lines.append(f"{device}, which took it for itself")
    return lines or ["nowhere"]


def _answer(reply: Delivery) -> str:
    """Return what a host got in answer, in nft's words where it is what a reject sends."""
    found = fields(reply.frame)
    number, codes = {"icmp": (3, icmp.CODES), "icmpv6": (1, icmp.CODES_V6)}.get(str(found.get("protocol")), (None, {}))
    what = summarise(reply.frame)
    if number is not None and found.get("type") == number:
        code = icmp.name_of(codes, found["code"], f"code {found['code']}")
        what = f"{found['protocol']} {code} from {found['src']}"
    elif "R" in str(found.get("flags", "")):
        what = f"tcp reset: {what}"
    return f"{reply.host} {reply.device} got {what}"


def _first(count: int, lines: list[str]) -> list[str]:
    return lines if len(lines) <= count else [*lines[:count], f"… {len(lines) - count} more"]
