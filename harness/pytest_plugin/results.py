"""What became of a scenario, put into the form in which results are stored."""

from __future__ import annotations

import os
import re
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import msgspec
import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprTraceback

from harness.errors import Position, ScenarioError
from harness.model.mismatch import Mismatch
from harness.model.result import LabInterface, LabPlan, OutcomeName, PacketResult, Result, RulesetPlan
from harness.pytest_plugin.trial import Trial, decided
from harness.reading.decision import ended
from harness.ruleset.nft import nft_version
from harness.scenario.case import Broken, Case
from harness.scenario.files import shortened

if TYPE_CHECKING:
    from harness.experiment.run import Measurement
    from harness.ruleset.load import Ruleset
    from harness.topology.network import Network

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def to_result(trial: Trial, report: pytest.TestReport) -> Result:
    """What became of ``trial``, whose last ``report`` this is, for the reports to read."""
    case, measurements = trial.case, trial.measurements
    how: OutcomeName = "error" if report.when == "setup" and report.failed else report.outcome
    if trial.failure:  # although, when expectations are being recorded, the report says it passed
        how = "failed"
    return Result(
        id=trial.nodeid,
        name=trial.name if isinstance(case, ScenarioError) else case.name,
        position=Position(str(shortened(trial.path)), trial.line),
        outcome=how,
        where=_where(trial, report),
        message=_message(report) or (trial.failure.text if trial.failure else ""),
        kernel=measurements[0].observation.kernel if measurements else os.uname().release,
        engine=measurements[0].observation.engine if measurements else "",
        nft=nft_version() if measurements else "",
        sent=tuple(
            packet_result(measurement, found, case, measurements[0].ruleset)
            for measurement, found in zip(measurements, chain(trial.mismatches, repeat(())), strict=False)
        ),
        ruleset=_ruleset(shortened(_main(case)), measurements[0].ruleset)
        if measurements and isinstance(case, Case)
        else None,
        lab=lab_plan(case.network) if isinstance(case, Case) else None,
        seconds=trial.seconds,
    )


def _where(trial: Trial, report: pytest.TestReport) -> Position | None:
    if trial.failure:
        return trial.failure.position
    if _is_for_the_user(report.longrepr) and (crash := report.longrepr.reprcrash):
        return Position(str(shortened(Path(crash.path))), crash.lineno)
    return None


def _is_for_the_user(longrepr: object) -> TypeGuard[ReprExceptionInfo]:
    """Whether it is about the user's files; otherwise it is a traceback of a bug in nft-harness."""
    return (
        isinstance(longrepr, ReprExceptionInfo)
        and isinstance(longrepr.reprtraceback, ReprTraceback)
        and all(isinstance(entry, ReprEntryNative) for entry in longrepr.reprtraceback.reprentries)
    )


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return str(report.longrepr[2])
    if _is_for_the_user(report.longrepr):
        entries = report.longrepr.reprtraceback.reprentries
        return _COLOUR.sub("", "".join(line for entry in entries for line in entry.lines)).rstrip()
    return report.longreprtext


def packet_result(
    measurement: Measurement, mismatches: tuple[Mismatch, ...], case: Case | Broken | ScenarioError, first: Ruleset
) -> PacketResult:
    """What was observed of a packet and how it was judged, in the form in which that is stored."""
    seen = decided(measurement)
    return PacketResult(
        action=measurement.action,
        summary=measurement.summary,
        packet=measurement.packet.number,
        observation=msgspec.structs.replace(measurement.observation, traced=frozenset()),
        verdict=seen.verdict if seen else None,
        with_=seen.with_ if seen else "",
        decided=seen.deciding if seen else (),
        ended=ended(measurement.packet, seen, measurement.observation.device) if seen else "",
        mismatches=mismatches,
        advice=_advice(measurement) if seen and mismatches else (),
        notes=measurement.notes,
        ruleset=_ruleset(shortened(_main(case)), measurement.ruleset)
        if measurement.ruleset is not first and isinstance(case, Case)
        else None,
    )


def _advice(measurement: Measurement) -> tuple[str, ...]:
    from harness.judge.advice import advise  # expensive to import, and rarely needed

    return tuple(advise(measurement.evidence))


def _main(case: Case) -> Path:
    """The first file that the device under test loads."""
    return case.rulesets[case.network.device].paths[0]


def _ruleset(file: Path, loaded: Ruleset) -> RulesetPlan:
    return RulesetPlan(
        file=str(file),
        rules=loaded.rules,
        policies=loaded.policies,
        sets=loaded.sets,
    )


def lab_plan(network: Network) -> LabPlan:
    """The lab as reports show it."""
    return LabPlan(
        hosts=tuple(network.hosts),
        device=network.device,
        interfaces=tuple(
            LabInterface(
                host=one.host,
                name=one.name,
                addresses=tuple(map(str, one.addresses)),
                peer=(one.peer.host, one.peer.interface),
            )
            for one in network.interfaces
        ),
    )
