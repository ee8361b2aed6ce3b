"""The answer: the lines of a failure's text without a failure, or a stored result as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from harness.batch.messages import Seen
from harness.errors import BrokenMeasurement, Position
from harness.judge.evidence import Evidence
from harness.model.result import PacketResult, Result, RulesetPlan, with_texts
from harness.pytest_plugin.results import lab_plan
from harness.reading.decision import outcome
from harness.report.terminal import story
from harness.scenario.models.expect import Expect
from harness.text import counted, escape
from harness.topology.network import Network

SHOWN = 20
"""Packets of which the text shows the whole story."""


def text(title: str, about: str, seen: Seen, network: Network, *, colour: bool) -> str:
    """What became of each packet, and why; ``about`` is a line on where it was measured.

    Raises :class:`~harness.errors.BrokenMeasurement` where the oracles disagree.
    """
    bold, faint, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    parts = [f"{bold}{escape(title)}{plain}\n  {faint}{'where':10}{plain}{escape(about)}"]
    for sent in seen.sent[:SHOWN]:
        evidence = Evidence(
            *(Expect(), outcome(sent.seen, sent.observation.device), sent.observation, sent.seen),
            *(seen.rules, seen.policies, seen.sets, network),
        )
        parts.append(story(sent.summary, evidence, colour=colour))
        parts += [f"  {faint}{'note':10}{plain}{escape(note)}" for note in sent.notes]
    if len(seen.sent) > SHOWN:
        parts.append(f"  and {counted(len(seen.sent) - SHOWN, 'more packet')}, which --json shows")
    return parts[0] + "\n" + "\n\n".join(parts[1:])


def result(title: str, file: Path, seen: Seen, network: Network) -> Result:
    """The answer as the result of a scenario is stored, for other programs and ``nft-harness report``."""
    for sent in seen.sent:
        if sent.verdict is None and not sent.ended:
            raise BrokenMeasurement("the oracles disagree about this packet")
    plan = RulesetPlan(file=str(file), rules=seen.rules, policies=seen.policies, sets=seen.sets)
    found = Result(
        id=f"{file}::{title}",
        name=title,
        position=Position(str(file)),
        outcome="passed",
        kernel=seen.kernel,
        engine=seen.sent[0].observation.engine if seen.sent else "",
        sent=seen.sent,
        ruleset=plan,
        lab=lab_plan(network),
    )
    return with_texts(found, Path(), {})


def as_json(found: Result) -> str:
    """``found`` as JSON, for people as well."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def verdicts(sent: tuple[PacketResult, ...]) -> Iterator[str]:
    """What was decided about each packet, in a word or a few."""
    for one in sent:
        if one.observation.flow:
            yield one.observation.flow.result
        else:
            yield f"{one.verdict or 'undecided'}" + (f" with {one.with_}" if one.with_ else "")
