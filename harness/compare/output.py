"""A comparison for people and CI: text, JSON, Markdown, HTML, and annotations for GitHub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from harness.compare.changes import Change, details
from harness.generate.pool import describe_send
from harness.text import command, counted, escape, html_page, html_text, markdown

FUNCTIONS = "functions"
SHOWN = 10
"""Rules that were not met, in the text."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about two rulesets."""

    old: str
    new: str
    kernels: tuple[str, ...]
    """Those on which functions were watched; of a comparison that was sifted, where a change was to be confirmed."""
    watched: str = FUNCTIONS
    """What was watched there: ``functions``, or ``tracepoints`` only."""
    lab: str
    seed: int
    packets: int
    changes: list[Change]
    met: tuple[tuple[int, int], ...]
    """Of each side: rules and policies that some packet met, and all."""
    unmet: tuple[str, ...]
    """The others, each with the reason."""
    beyond: tuple[str, ...]
    """What rules look at and no packet is made for."""
    broken: tuple[str, ...]
    """Packets that could not be measured, with the reason."""
    by_chance: int
    """Packets about which chance or the clock decides; they are not compared."""
    sifted: tuple[str, ...] = ()
    """The kernels that sifted; empty where functions were watched for each packet."""
    too_many: int = 0
    """Rules and policies that no packet was made for, as the rulesets are large."""
    disagreements: tuple[str, ...] = ()
    """Changes that sifting found and functions did not confirm."""

    @property
    def title(self) -> str:
        """How much changes, in how many packets."""
        number = len(self.changes)
        found = counted(number, "change") if number else "no change was found"
        (old_met, old_all), (new_met, new_all) = self.met
        return (
            f"{found} in {counted(self.packets, 'packet')} ({self.old}: {old_met} of {old_all} rules and policies met, "
            f"{self.new}: {new_met} of {new_all}; {self._where}; seed {self.seed})"
        )

    @property
    def _where(self) -> str:
        watched = f"kernel {' and '.join(self.kernels)}"
        if not self.sifted:
            return watched
        sifted = f"sifted on kernel {' and '.join(self.sifted)}"
        return f"{sifted}, confirmed with {self.watched} on {watched}" if self.kernels else sifted

    @property
    def left_out(self) -> Iterator[str]:
        """What the comparison says nothing about: sentences."""
        if self.beyond:
            yield f"no packet is made for: {', '.join(self.beyond)}"
        if self.too_many:
            yield (
                f"no packet was made for {self.too_many:,} rules and policies, as the rulesets are large: those that "
                "only one of them has come first"
            )
        if self.by_chance:
            yield f"not compared, as chance or the clock decides: {counted(self.by_chance, 'packet')}"
        for one in self.disagreements:
            yield f"seen by nf_tables' trace or by what arrived, and not confirmed with {self.watched}: {one}"
        yield from (f"not measured: {one}" for one in self.broken)
        yield from (f"not met: {one}" for one in self.unmet[:SHOWN])
        if len(self.unmet) > SHOWN:
            yield f"not met: {len(self.unmet) - SHOWN} more rules and policies"


def text(one: Comparison) -> str:
    """For a terminal."""
    lines = [escape(one.title)]
    for change in one.changes:
        many = f"  and {counted(change.packets - 1, 'more packet')}" if change.packets > 1 else ""
        lines.append(f"  {escape(change.kind)}{change.marks}")
        rows = [
            ("packet", f"{escape(change.witness.summary)}{many}"),
            ("ask", escape(_question(change))),
            ("old", escape(str(change.old))),
            ("new", escape(str(change.new))),
        ]
        for name, before, after in details(change.witness.old, change.witness.new):
            if name != "verdict":
                rows.append((name, f"{escape(before)}  →  {escape(after)}"))
        if change.unconfirmed:
            rows.append(("sifted", f"not confirmed with {one.watched}: {escape(change.unconfirmed)}"))
        lines += [f"      {name:12}{value}" for name, value in rows]
    lines += [f"  {escape(sentence)}" for sentence in one.left_out]
    return "\n".join(lines)


def _question(change: Change) -> str:
    """The packet as ``nft-harness ask`` takes it, with those before it."""
    return ", then ".join(describe_send(send) for send in change.witness.sends)


def as_json(comparisons: Sequence[Comparison]) -> str:
    """For programs."""
    found = [
        {
            "old": one.old,
            "new": one.new,
            "kernels": one.kernels,
            "sifted": one.sifted,
            "disagreements": one.disagreements,
            "lab": one.lab,
            "seed": one.seed,
            "packets": one.packets,
            "met": {"old": one.met[0], "new": one.met[1]},
            "changes": [_plain(change) for change in one.changes],
            "left_out": list(one.left_out),
            "unmet": one.unmet,
            "too_many": one.too_many,
        }
        for one in comparisons
    ]
    return msgspec.json.format(msgspec.json.encode({"version": 1, "comparisons": found}), indent=2).decode()


def _plain(change: Change) -> dict[str, object]:
    return {
        "change": change.kind,
        "accepted": change.accepted,
        "unconfirmed": change.unconfirmed,
        "packets": change.packets,
        "old": change.old,
        "new": change.new,
        "witness": {
            "summary": change.witness.summary,
            "sends": change.witness.sends,
            "old": change.witness.old,
            "new": change.witness.new,
        },
    }


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """For a comment on a pull request and for a job's summary."""
    lines: list[str] = []
    for one in comparisons:
        lines += [f"### {markdown(one.title)}", ""]
        if one.changes:
            lines += ["| change | packet | old | new |", "|---|---|---|---|"]
        for change in one.changes:
            kind = markdown(change.kind) + change.marks
            more = f" and {change.packets - 1} more" if change.packets > 1 else ""
            cells = (
                kind,
                markdown(change.witness.summary) + more,
                markdown(str(change.old)),
                markdown(str(change.new)),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(f"- {markdown(sentence)}" for sentence in one.left_out), ""]
    return "\n".join(lines)


def as_html(comparisons: Sequence[Comparison]) -> str:
    """One page that needs no network."""
    parts: list[str] = []
    for one in comparisons:
        parts.append(f"<h2>{html_text(one.title)}</h2><p>{html_text(one.lab)}</p>")
        if one.changes:
            parts.append("<table><tr><th>change<th>packet<th>old<th>new<th>what differs</tr>")
        for change in one.changes:
            rows = "<br>".join(
                f"{html_text(name)}: <code>{html_text(before)}</code> → <code>{html_text(after)}</code>"
                for name, before, after in details(change.witness.old, change.witness.new)
            )
            kind = html_text(change.kind) + change.marks
            parts.append(
                f"<tr class={'ok' if change.accepted else 'new'}><td>{kind}"
                f"<td><code>{html_text(change.witness.summary)}</code><br>{counted(change.packets, 'packet')}"
                f"<td><code>{html_text(str(change.old))}</code>"
                f"<td><code>{html_text(str(change.new))}</code><td>{rows}</tr>"
            )
        parts.append(("</table>" if one.changes else "") + "<ul>")
        parts += [f"<li>{html_text(sentence)}</li>" for sentence in one.left_out]
        parts.append("</ul>")
    return html_page("nft-harness diff", ".ok{opacity:.6}", parts)


def warnings(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Workflow commands of GitHub: a warning at the new rule of each change that was not accepted."""
    for one in comparisons:
        for change in one.changes:
            at = change.new.position or change.old.position
            if not change.accepted and at is not None:
                title = "the ruleset treats packets differently"
                where = {"file": at.file, "line": str(at.line), "title": title}
                yield command("warning", where, f"{change.kind}: {change.witness.summary}; before: {change.old}")
