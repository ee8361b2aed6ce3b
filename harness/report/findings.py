"""What a reader is to be pointed at, line by line: the common ground of the reports for CI.

A failed scenario gives two: one where its expectation stands, and one where the rule stands that
decided otherwise, for either may be what a change got wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from harness.errors import Position
from harness.model.observation import Step, Value
from harness.model.result import PacketResult, Result
from harness.reading.words import describe_decision
from harness.report.evaluated import covered_rules
from harness.text import escape

Kind = Literal["failed", "error", "decided", "never-met", "doubtful"]
"""``failed``: an expectation that was not met. ``error``: a mistake in a scenario, or a broken
measurement. ``decided``: a rule or policy that decided otherwise than expected. ``never-met``: a rule
that no packet of the run matched. ``doubtful``: what ``nft-harness check`` warns of."""


class Finding(Value, frozen=True, kw_only=True):
    """A place in one of the user's files, and what is reported about it. All texts are escaped."""

    kind: Kind
    position: Position
    title: str
    """One line."""
    text: str
    """Lines."""
    related: tuple[Position, ...] = ()
    """Of a ``failed`` one: where it was decided."""


def findings(results: Sequence[Result]) -> list[Finding]:
    """Return all that ``results`` give, what is bad first, each once however many kernels saw it."""
    return [*_failed(results), *_errors(results), *_decided(results), *_never_met(results)]


def _failed(results: Sequence[Result]) -> Iterator[Finding]:
    """One for each scenario and way to differ, in the words of the first kernel that saw it."""
    found: dict[tuple[Position, str, tuple[str, ...]], tuple[Finding, dict[str, None]]] = {}
    for result in (one for one in results if one.outcome == "failed"):
        sent = next((one for one in result.sent if one.mismatches), None)
        finding = Finding(
            kind="failed",
            position=result.where or result.position,
            title=escape(result.name),
            text="\n".join(_story(sent)) if sent else _lines(result.message),
            related=_deciding(sent) if sent else (),
        )
        key = (finding.position, finding.title, tuple(_differences(sent)) if sent else (finding.text,))
        found.setdefault(key, (finding, {}))[1][escape(result.kernel)] = None
    several = len({result.kernel for result in results if result.kernel}) > 1
    for finding, kernels in found.values():
        text = f"{finding.text}\non Linux {', '.join(kernels)}" if several else finding.text
        yield msgspec.structs.replace(finding, text=text)


def _errors(results: Iterable[Result]) -> Iterator[Finding]:
    """One for each mistake: that in a ruleset stops every scenario that loads it."""
    names: dict[tuple[Position, str], dict[str, None]] = {}
    for result in (one for one in results if one.outcome == "error"):
        place = result.where or result.position
        names.setdefault((place, _lines(result.message)), {})[escape(result.name)] = None
    for (place, text), (name, *others) in names.items():
        title = f"{name}, and {len(others)} more" if others else name
        yield Finding(kind="error", position=place, title=title, text=text)


def _decided(results: Iterable[Result]) -> Iterator[Finding]:
    """One for each place that decided otherwise than expected, with all that it decided."""
    found: dict[Position, tuple[str, dict[str, None]]] = {}
    for result in results:
        for sent in (one for one in result.sent if one.mismatches and result.outcome == "failed"):
            for step in deciders(sent):
                if place := step.position:
                    where = result.where or result.position
                    line = f"“{escape(result.name)}” ({where.file}:{where.line}): {'; '.join(_differences(sent))}"
                    found.setdefault(place, (said(step), {}))[1][line] = None
    for place, (text, lines) in found.items():
        yield Finding(kind="decided", position=place, title=f"decided here: {escape(text)}", text="\n".join(lines))


def _never_met(results: Iterable[Result]) -> Iterator[Finding]:
    for place in covered_rules(results):
        if not place.matched and not place.is_policy:
            text = f"{place.chain_path}: no scenario met this rule ({place.status}): {place.text}"
            yield Finding(kind="never-met", position=place.position, title="rule never met", text=escape(text))
        elif place.missed:
            text = f"{place.chain_path}: no scenario met {', '.join(place.missed)} of: {place.text}"
            yield Finding(kind="never-met", position=place.position, title="elements never met", text=escape(text))


def _story(sent: PacketResult) -> Iterator[str]:
    yield from _differences(sent)
    yield escape(f"packet: {sent.summary}")
    for step in deciders(sent):
        yield escape(f"decided: {describe_decision(step)}: {said(step)}")
    if sent.ended:
        yield escape(f"ended: {sent.ended}")
    yield from (escape(f"advice: {sentence}") for sentence in sent.advice)


def _differences(sent: PacketResult) -> list[str]:
    return [escape(f"{one.key}: expected {one.expected}, seen {one.seen}") for one in sent.mismatches]


def _deciding(sent: PacketResult) -> tuple[Position, ...]:
    return tuple(dict.fromkeys(step.position for step in deciders(sent) if step.position))


def _lines(text: str) -> str:
    return "\n".join(map(escape, text.splitlines()))


def deciders(sent: PacketResult) -> Sequence[Step]:
    """Return the steps that say why: rules where any decided, else policies."""
    return [step for step in sent.decided if step.kind != "policy"] or sent.decided


def said(step: Step) -> str:
    """Return what stands in the user's file for ``step``."""
    if step.rule:
        return step.rule.written or step.rule.text
    return f"policy {step.verdict}" if step.kind == "policy" else "end of the chain"


def in_repository(file: str, folder: Path) -> str:
    """Return ``file``, a name relative to ``folder``, as CI wants it: seen from the repository's root.

    The root is what CI says it is, or else the nearest folder above that holds ``.git``, or else
    ``folder``. A file outside of it keeps its name.
    """
    folder = folder.resolve()
    workspace = os.environ.get("GITHUB_WORKSPACE") or os.environ.get("CI_PROJECT_DIR")
    above = (one for one in (folder, *folder.parents) if (one / ".git").exists())
    root = Path(workspace).resolve() if workspace else next(above, folder)
    full = Path(os.path.normpath(folder / file))
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else file
