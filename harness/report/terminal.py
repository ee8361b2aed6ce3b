"""What a person reads in the terminal: why a scenario failed, and which way a packet took.

Texts are plain lines; with ``colour`` they carry ANSI colours. Whatever comes from a file or the
kernel is escaped, so that no name can move the cursor.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from harness.errors import Position
from harness.judge import (
    Mismatch,
    Outcome,
    PathRow,
    align,
    arrivals,
    describe_entry,
    describe_hop,
    describe_loss,
    ended,
    layers_of,
    located,
    outcome,
)
from harness.observation import Delivery, Hop, Observation, PacketSeen, Step, Verdict
from harness.report.advice import advise
from harness.scenario import icmp
from harness.scenario.models import Expect
from harness.scenario.packet import fields, summarise

LABEL = 10
"""Columns of the labels on the left, behind an indentation of 2."""

_SGR = {"bold": "1", "faint": "2", "good": "32", "bad": "31", "bad bold": "1;31"}


def escape(text: str) -> str:
    """Return ``text`` on one line, with control and other unprintable characters spelled out: ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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

    def add(self, label: str, *lines: str) -> None:
        """Add painted lines under a label."""
        for line in lines:
            self.lines.append(f"  {self.paint(label, 'faint', LABEL)}{line}".rstrip())
            label = ""

    def say(self, label: str, *sentences: str, style: str = "") -> None:
        """Add plain sentences under a label, broken at the width of the page."""
        for sentence in sentences:
            pieces = textwrap.wrap(escape(sentence), self.width - LABEL - 2, break_on_hyphens=False)
            self.add(label, *(self.paint(piece, style) for piece in pieces))
            label = ""

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain(
    name: str,
    where: Position,
    summary: str,
    expect: Expect,
    mismatches: Sequence[Mismatch],
    observation: Observation,
    packet: PacketSeen,
    *,
    colour: bool = False,
    width: int = 100,
) -> str:
    """Return the failure text of one packet of the scenario ``name``, which stands at ``where``.

    ``summary`` is the packet sent in one line, ``mismatches`` is what :func:`~harness.judge.judge`
    found. Lines keep to ``width`` columns where names and rules allow it.
    """
    page = Page(colour=colour, width=width)
    seen = outcome(packet, observation.device)
    page.lines.append(page.paint(f"{where}: ", "faint") + page.paint(name, "bold"))
    _mismatches(page, mismatches)
    page.say("packet", summary)
    page.add("decided", *_decided(page, seen))
    page.add("rules", *_rules(page, packet, observation.device))
    if any(mismatch.keys[:2] == ("expect", "path") for mismatch in mismatches):
        page.add("path", *_side_by_side(page, align(expect.path or (), packet, observation.device)))
    else:
        page.add("path", *_outline(page, observation, packet))
    page.say("ended", ended(packet, seen, observation.device))
    page.say("arrived", *_arrived(packet, observation.device))
    page.say("answers", *_first(4, [_answer(reply) for reply in observation.replies]))
    page.say("advice", *advise(expect, seen, observation, packet), style="bold")
    page.say("lost", describe_loss(observation.loss))
    return str(page)


def outline(observation: Observation, packet: PacketSeen, *, colour: bool = False, width: int = 100) -> str:
    """Return the way of ``packet`` in a few lines: hosts, interfaces, layers, and each chain's verdict."""
    page = Page(colour=colour, width=width)
    page.add("path", *_outline(page, observation, packet))
    page.say("ended", ended(packet, outcome(packet, observation.device), observation.device))
    return str(page)


def _mismatches(page: Page, mismatches: Sequence[Mismatch]) -> None:
    keys = max((len(mismatch.key) for mismatch in mismatches), default=0) + 2
    expected = max((len(escape(m.expected)) for m in mismatches if len(m.expected) <= 40), default=0) + 2
    for mismatch in mismatches:
        key = f"  {page.paint(mismatch.key, '', keys)}"
        seen = page.paint("seen  ", "faint") + page.paint(mismatch.seen, "bad")
        indent = " " * (keys + 2)
        # On one line where that fits; a long rule goes below what was expected.
        if keys + 2 + max(expected, len(mismatch.expected) + 2) + len(f"seen  {mismatch.seen}") <= page.width:
            page.lines.append(key + page.paint(mismatch.expected, "good", expected) + seen)
        else:
            page.lines.append(key + page.paint("expected  ", "faint") + page.paint(mismatch.expected, "good"))
            page.lines.append(indent + page.paint("seen      ", "faint") + page.paint(mismatch.seen, "bad"))
        for piece in textwrap.wrap(escape(mismatch.note), page.width - keys - 2, break_on_hyphens=False):
            page.lines.append(indent + page.paint(piece, "faint"))


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


def _rules(page: Page, packet: PacketSeen, device: str) -> list[str]:
    """Return every chain and rule passed, in order; the rule's text comes last as it may be long."""
    steps = [step for step in packet.steps if step.host == device]
    rows = [(step.chain_path, _line(step), f"{step.verdict} {step.target}".strip()) for step in steps]
    widths = [max(len(escape(row[column])) for row in rows) + 2 for column in range(3)] if rows else []
    lines = []
    for step, row in zip(steps, rows, strict=True):
        styles = ("", "", _style(step.verdict))
        cells = [page.paint(*cell) for cell in zip(row, styles, widths, strict=True)]
        lines.append("".join(cells) + page.paint(_said(step)))
    return lines


def _said(step: Step) -> str:
    """Return what stands in the ruleset for this step."""
    if step.kind == "policy":
        return f"policy {step.verdict}"
    if step.rule is None:
        return "end of the chain" if step.kind == "return" else "a rule that is not in the ruleset's listing"
    return step.rule.text + (f'   "{step.rule.comment}"' if step.rule.comment not in step.rule.text else "")


def _line(step: Step) -> str:
    position = step.rule.position if step.rule else None
    return f"{position.file.rpartition('/')[2]}:{position.line}" if position else ""


def _place(step: Step) -> str:
    if step.rule is None:
        return ""
    line = f", {step.rule.position.file}:{step.rule.position.line}" if step.rule.position else ""
    return f"{line} (handle {step.rule.handle})"


def _style(verdict: Verdict) -> str:
    return {Verdict.ACCEPT: "good", Verdict.DROP: "bad", Verdict.REJECT: "bad"}.get(verdict, "")


# --- the way ------------------------------------------------------------------------------------


def _side_by_side(page: Page, rows: Sequence[PathRow]) -> list[str]:
    """Return expected and seen path in two columns; hops that nobody asked for are folded away from the difference."""
    different = next((n for n, row in enumerate(rows) if not row.met), len(rows))
    last = len(rows) - 1
    shown = {n for n, row in enumerate(rows) if row.expected or n == last or different - 2 <= n <= different + 3}
    left = min(max((len(describe_entry(entry)) for row in rows if (entry := row.expected)), default=0), 36)
    right = min(max((len(describe_hop(hop)) for n in shown if (hop := rows[n].hop)), default=4), 46)
    several = len({hop.host for n in shown if (hop := rows[n].hop)}) > 1
    lines = [page.paint(f"  {'expected':{left}}  {'seen':{right}}", "faint")]
    folded = 0
    for number, row in enumerate(rows):
        if number not in shown:
            folded += 1
            continue
        if folded:
            lines.append(page.paint(f"  {'':{left}}  … {folded} more", "faint"))
            folded = 0
        lines.append(_row(page, row, left, right, first=number == different, with_host=several))
    return lines


def _row(page: Page, row: PathRow, left: int, right: int, *, first: bool, with_host: bool) -> str:
    mark = page.paint(">" if first else "", "bad bold", 2)
    expected = page.paint(
        _cut(describe_entry(row.expected) if row.expected else "", left), "" if row.met else "bad", left + 2
    )
    if not row.hop:
        return f"{mark}{expected}" + page.paint("first difference" if first else "", "bad bold")
    seen = page.paint(_cut(describe_hop(row.hop), right), "" if row.expected and row.met else "faint", right + 2)
    words = [row.hop.layer.ljust(10), " ".join([row.hop.host] * with_host + [row.hop.device])]
    return f"{mark}{expected}{seen}{page.paint(' '.join(words))}" + page.paint(
        "  first difference" if first else "", "bad bold"
    )


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: columns - 1]}…"


def _outline(page: Page, observation: Observation, packet: PacketSeen) -> list[str]:
    """Return one paragraph for each host passed."""
    if not packet.hops:
        return [page.paint("no function was traced")]
    lines: list[str] = []
    for host, hops in _visits(located(packet)):
        devices = " → ".join(dict.fromkeys(hop.device for hop in hops if hop.device))
        head = " ".join(word for word in (host, devices) if word)
        words = [*_words(hops), f"({len(hops)} {'functions' if len(hops) > 1 else 'function'})"]
        indent = " " * 4
        pieces = textwrap.wrap(
            f"{escape(head)}: {'  '.join(words)}",
            page.width - LABEL - 2,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        lines += [page.paint(piece, "bold" if host == observation.device else "") for piece in pieces]
    return lines


def _words(hops: Sequence[Hop]) -> list[str]:
    """Return the layers of ``hops``, with each chain and its verdict where it stood."""
    words: list[str] = []
    run: list[Hop] = []
    for hop in hops:
        run.append(hop)
        if hop.function == "nft_do_chain" and hop.detail:
            words += layers_of(run)
            words.append(f"[{describe_hop(hop).removeprefix('nft_do_chain ')}]")
            run = []
    words += layers_of(run)
    return [escape(word) for number, word in enumerate(words) if not number or words[number - 1] != word]


def _visits(hops: Iterable[Hop]) -> list[tuple[str, list[Hop]]]:
    """Cut hops into stays at one host."""
    visits: list[tuple[str, list[Hop]]] = []
    for hop in hops:
        if not visits or visits[-1][0] != hop.host:
            visits.append((hop.host, []))
        visits[-1][1].append(hop)
    return visits


# --- arrivals -----------------------------------------------------------------------------------


def _arrived(packet: PacketSeen, device: str) -> list[str]:
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
    codes = {"icmp": (3, icmp.CODES), "icmpv6": (1, icmp.CODES_V6)}.get(str(found.get("protocol")))
    what = ""
    if codes and found.get("type") == codes[0]:
        code = next((name for name, number in codes[1].items() if number == found.get("code")), "")
        what = f"{found['protocol']} {code}".strip()
    elif "R" in str(found.get("flags", "")):
        what = "tcp reset"
    return f"{reply.host} {reply.device} got " + (f"{what}: " if what else "") + summarise(reply.frame)


def _first(count: int, lines: list[str]) -> list[str]:
    return lines if len(lines) <= count else [*lines[:count], f"… {len(lines) - count} more"]
