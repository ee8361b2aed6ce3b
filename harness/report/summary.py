"""The summary of a CI job, in Markdown as GitHub and GitLab show it; of a failure with a Mermaid diagram.

GitHub takes up to 1 MiB a step (`GITHUB_STEP_SUMMARY`), of which this leaves some to others.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from harness.errors import Position
from harness.model.observation import Step, Verdict
from harness.model.result import OutcomeName, PacketResult, Result
from harness.reading.path import located
from harness.report.evaluated import covered_rules
from harness.report.findings import said
from harness.text import counted, escape, html_text, markdown
from harness.text import mermaid as _label

SIZE = 900_000
"""Bytes, at most."""
DIAGRAMS = 20
"""At most: a browser draws each anew."""
_LABEL = 40
"""Characters of a line in a diagram."""


def render(results: Sequence[Result]) -> str:
    """Return the summary of ``results``."""
    counts: Counter[OutcomeName] = Counter()
    mistakes: Counter[tuple[Position | None, str]] = Counter()
    failed: list[int] = []
    errors: list[int] = []
    reasons: Counter[str] = Counter()
    for number, result in enumerate(results):  # which are not all in memory
        counts[result.outcome] += 1
        if result.outcome == "failed":
            failed.append(number)
        elif result.outcome == "skipped":
            reasons[result.message] += 1
        elif result.outcome == "error":
            if not mistakes[result.where, result.message]:  # one in a ruleset stops every scenario that loads it
                errors.append(number)
            mistakes[result.where, result.message] += 1
    ends = ", ".join(f"{counts[one]} {one}" for one in ("failed", "error", "skipped", "passed") if counts[one])
    parts = [f"## {_icon(counts)} {ends or 'no scenario ran'}\n", *_facts(results)]
    bad = [*failed, *errors]
    size = sum(len(part.encode()) for part in parts)
    for number, result in enumerate(map(results.__getitem__, bad)):
        others = mistakes[result.where, result.message] - 1 if result.outcome == "error" else 0
        part = "\n".join(_failure(result, others, diagram=number < DIAGRAMS))
        size += len(part.encode(errors="replace"))
        if size > SIZE:
            parts.append(f"… and {len(bad) - number} more\n")
            break
        parts.append(part)
    parts += [f"- {count} skipped: {markdown(reason)}" for reason, count in reasons.most_common(10)]
    parts += [f"- note: {markdown(f'{file}: {sentence}')}" for file, sentence in _notes(results)[:10]]
    return "\n".join(parts) + "\n"


def _notes(results: Sequence[Result]) -> list[tuple[str, str]]:
    """The first that there is to say of each ruleset though all may be as expected."""
    found: dict[str, str] = {}
    for result in results:
        for sentence in (note for sent in result.sent for note in sent.notes):
            found.setdefault(result.ruleset.file if result.ruleset else result.position.file, sentence)
    return list(found.items())


def _icon(counts: Mapping[OutcomeName, int]) -> str:
    return "❌" if counts["failed"] else "⚠️" if counts["error"] else "✅"


def _facts(results: Sequence[Result]) -> Iterator[str]:
    kernels = sorted({result.kernel for result in results if result.kernel})
    facts = [f"on Linux {', '.join(map(markdown, kernels))}"] if kernels else []
    if versions := sorted({result.nft for result in results if result.nft}):
        facts.append(f"rulesets read by nft {', '.join(map(markdown, versions))}")
    rules = [place for place in covered_rules(results) if not place.is_policy]
    if rules:
        met = sum(bool(place.matched) for place in rules)
        facts.append(f"{met} of {counted(len(rules), 'rule')} met ({met / len(rules):.0%})")
    if facts:
        yield f"{'; '.join(facts)}\n"


def _failure(result: Result, others: int, *, diagram: bool) -> Iterator[str]:
    where = result.where or result.position
    kernel = f" on {html_text(result.kernel)}" if result.kernel else ""
    yield (
        f"<details open><summary><b>{html_text(result.name)}</b>"
        f"{f', and {others} more' if others else ''} ({result.outcome}): "
        f"<code>{html_text(f'{where.file}:{where.line}')}</code>{kernel}</summary>\n"
    )
    sent = next((one for one in result.sent if one.mismatches), None)
    if sent and diagram:
        yield _fenced("mermaid", mermaid(sent))
    yield _fenced("text", "\n".join(map(escape, result.message.splitlines())))
    yield "</details>\n"


def _fenced(language: str, text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"


def mermaid(sent: PacketResult) -> str:
    """Return a Mermaid flowchart of the way of the packet ``sent``: hosts, interfaces, and each rule that spoke."""
    device = sent.observation.device
    lines = ["flowchart LR"]
    before, left_by = "", ""
    for number, (host, visit) in enumerate(groupby(located(sent.seen), key=attrgetter("host"))):
        devices = [hop.device for hop in visit if hop.device]
        steps = [step for step in sent.seen.steps if step.host == host == device and step.kind != "return"]
        nodes = [f"v{number}s{place}" for place in range(len(steps))] or [f"v{number}"]
        if steps:
            lines += [f"  subgraph h{number}[{_label(host)}]", "    direction LR"]
            lines += [f"    {node}{_node(sent, step)}" for node, step in zip(nodes, steps, strict=True)]
            lines += [f"    {' --> '.join(nodes)}", "  end"] if len(nodes) > 1 else ["  end"]
        else:
            lines.append(f"  {nodes[0]}([{_label(host)}])")
        if before:
            ends = dict.fromkeys(name for name in (left_by, *devices[:1]) if name)
            lines.append(f"  {before} -->{f'|{_label(*ends)}|' if ends else ''} {nodes[0]}")
        before, left_by = nodes[-1], devices[-1] if devices else ""
    if before:
        lines.append(f"  {before} --> ended({_label(*_wrapped(sent.ended or 'ended'))})")
        lines.append("  classDef decided stroke-width:3px")
    return "\n".join(lines)


def _node(sent: PacketResult, step: Step) -> str:
    place = step.position
    where = f"{place.file}:{place.line}" if place else ""
    verdict = "" if step.kind == "policy" or step.verdict is Verdict.CONTINUE else f"→ {step.verdict} {step.target}"
    label = _label(*(line for line in (step.chain_path, *_wrapped(said(step)), where, verdict.rstrip()) if line))
    return f"[{label}]{':::decided' if step in sent.decided else ''}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LABEL, max_lines=3, placeholder=" …")
