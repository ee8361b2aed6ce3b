"""Whether what was recorded of a scenario holds for what was seen."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import BrokenMeasurement, Unsupported
from harness.model.observation import Rule
from harness.model.result import PacketResult
from harness.recording import expectation
from harness.recording.sample import Sample
from harness.scenario.case import Case
from harness.scenario.models.expect import Expect


def differing(case: Case, sent: Sequence[PacketResult], rules: tuple[Rule, ...], kernel: str) -> str:
    """The first key of ``case`` that does not hold for what was observed; "" where all do."""
    for one in sent:
        if one.action >= len(case.actions):
            continue
        for _, expect in case.actions[one.action].entries:
            try:
                seen = Sample(sent=one, rules=rules, where=kernel)
                if isinstance(expect, Expect) and (found := expectation.judged(expect, seen)):
                    return str(found[0].key)
            except (BrokenMeasurement, Unsupported) as broken:
                return str(broken)
    return ""
