"""From the results of a session to scenario files that expect what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import untrusted
from harness.bounds import SCENARIO_BYTES
from harness.errors import BrokenMeasurement, HarnessError
from harness.model import layers
from harness.model.fields import Keys
from harness.model.result import Result
from harness.project import Project, find
from harness.recording import expectation
from harness.recording.edit import KeptEntry, Splice, Text, UneditableError
from harness.recording.sample import KeyUpdate, NotRecordableError, Sample
from harness.save import save
from harness.scenario.case import Broken, Case
from harness.scenario.load import load_all
from harness.scenario.models.actions import SENDS, SendingAction
from harness.scenario.models.expect import Delivered, Expect


class RecordingOutcome(NamedTuple):
    """What became of one scenario that was to be recorded."""

    position: str
    """``scenarios/edge.yaml:31``; in the file as it is now."""
    name: str
    words: str
    """What was written, or why nothing was."""
    written: bool
    moved: bool
    """Whether it expected something else before."""


class _Scenario(NamedTuple):
    """A scenario as it stands in its file, and all that was made and seen of it."""

    cases: Sequence[Case]
    results: Sequence[Result]

    @property
    def name(self) -> str:
        return self.cases[0].name

    def measurements(self, action: int, case: Case | None = None) -> list[Sample]:
        """What was seen of a step's packets, of ``case`` or of all. Raises :class:`NotRecordableError` unless all
        was."""
        found = []
        for result in self.results:
            if case is not None and result.name != case.name:
                continue
            where = f"'{result.name}' on kernel {result.kernel}"
            sent = [one for one in result.sent if one.action == action]
            if result.outcome in ("error", "skipped") or not sent:
                place = f" on kernel {result.kernel}" if result.kernel else ""
                raise NotRecordableError(f"'{result.name}' was not measured{place} ({result.outcome})")
            rules = result.ruleset.rules if result.ruleset else ()
            for number, one in enumerate(sent, 1):
                which = f"packet {number} of {where}" if len(sent) > 1 else where
                found.append(Sample(sent=one, rules=rules, where=which))
        return found


class _Recorded(NamedTuple):
    """What is to be written of one scenario."""

    scenario: _Scenario
    steps: Mapping[int, list[str]]
    """The keys of each step that are written."""
    moved: bool
    splices: Sequence[Splice]


def record(
    results: Sequence[Result], folder: Path, begun: int, project: Project | None = None
) -> list[RecordingOutcome]:
    """Write into the scenario files below ``folder`` what ``results`` show; what was done, scenario by scenario.

    No file outside of ``project``, by default that of ``folder``, is read or written. ``begun`` is when the session
    began, in nanoseconds since the epoch: a file changed after that is left alone.

    Raises :class:`~harness.errors.HarnessError` when a file can't be written.
    """
    project = project or find([], folder)
    files: dict[str, list[int]] = {}
    for number, result in enumerate(results):
        files.setdefault(result.position.file, []).append(number)
    return [
        outcome
        for name, found in files.items()
        for outcome in _record_file(folder / name, name, [results[number] for number in found], begun, project)
    ]


def _record_file(
    path: Path, name: str, results: Sequence[Result], begun: int, project: Project
) -> list[RecordingOutcome]:
    path = path.resolve()
    try:
        text = Text(untrusted.read(path, SCENARIO_BYTES, allowed=project.allows).decode())
    except (untrusted.Unreadable, UnicodeDecodeError) as error:
        raise HarnessError(f"{name} cannot be recorded: it {error}") from None
    outcomes: list[RecordingOutcome] = []
    recorded: list[_Recorded] = []

    def refuse(scenario: _Scenario, why: str) -> None:
        moved = any(one.outcome == "failed" for one in scenario.results)
        if moved or _is_empty(scenario):
            place = f"{name}:{scenario.cases[0].where(0).line}"
            outcomes.append(RecordingOutcome(place, scenario.name, f"not recorded: {why}", written=False, moved=moved))

    for scenario in _scenarios(load_all(path, layers=layers.NAMES, recording=True, project=project).cases, results):
        try:
            done = _record_scenario(scenario, text)
        except (NotRecordableError, UneditableError) as refused:
            text.changes()
            refuse(scenario, str(refused))
            continue
        if done.steps and path.stat().st_mtime_ns > begun:
            refuse(scenario, "the file was changed meanwhile")
        elif done.steps:
            recorded.append(done)
    # Nothing is written that would not pass; what a scenario cannot have, the others still can.
    while wrong := _untrue(
        path, new := text.changed(one for done in recorded for one in done.splices), recorded, project
    ):
        for done, why in wrong:
            refuse(done.scenario, why)
            recorded.remove(done)
    if recorded:
        _replace(path, new)
        cases = {
            case.name: case for case in load_all(path, recording=True, project=project).cases if isinstance(case, Case)
        }
        for done in recorded:
            for step, keys in done.steps.items():
                line = cases[done.scenario.name].where(step, "expect").line
                words = f"recorded {', '.join(keys)}"
                outcomes.append(
                    RecordingOutcome(f"{name}:{line}", done.scenario.name, words, written=True, moved=done.moved)
                )
    return sorted(outcomes, key=lambda one: int(one.position.rpartition(":")[2]))


def _scenarios(cases: Iterable[object], results: Sequence[Result]) -> list[_Scenario]:
    """The scenarios that were run, those that ``each`` or ``matrix`` makes of one together."""
    by_place: dict[int, list[Case]] = {}
    for case in cases:
        if isinstance(case, Case):
            by_place.setdefault(case.where(0).line, []).append(case)
    found = []
    for made in by_place.values():
        seen = [result for case in made for result in results if result.name == case.name]
        if seen:
            found.append(_Scenario(made, seen))
    return found


def _is_empty(scenario: _Scenario) -> bool:
    return any(expect == Expect() for case in scenario.cases for action in case.actions for _, expect in action.entries)


def _record_scenario(scenario: _Scenario, text: Text) -> _Recorded:
    """What to change in ``text`` for ``scenario``."""
    whole: Keys = ("scenarios", text.entry_at(("scenarios",), scenario.cases[0].places.place))
    in_steps = text.has((*whole, "steps"))
    steps: dict[int, list[str]] = {}
    moved = any(result.outcome == "failed" for result in scenario.results)
    for number, action in enumerate(scenario.cases[0].actions):
        if not isinstance(action, SendingAction) or not isinstance(action.expect, Expect):
            _refuse_list(scenario, number, has_entries=bool(action.entries))
            continue
        expect: Keys = (*whole, *(("steps", number) if in_steps else ()), "expect")
        expects = [expect for case in scenario.cases for _, expect in case.actions[number].entries]
        if all(one == Expect() for one in expects):
            steps[number] = _record_whole(scenario, number, text, expect)
        elif moved and (changed := _record_changes(scenario, number, text, expect, whole)):
            steps[number] = changed
    return _Recorded(scenario, steps, moved, text.changes())


def _refuse_list(scenario: _Scenario, number: int, *, has_entries: bool) -> None:
    """Refuse a step whose list of expectations was not met."""
    if has_entries and any(one.mismatches for r in scenario.results for one in r.sent if one.action == number):
        raise NotRecordableError("of a list of expectations, only you can say which packets each means")


def _record_whole(scenario: _Scenario, number: int, text: Text, expect: Keys) -> list[str]:
    """Expect all that was observed of a step of which nothing is expected yet; the keys."""
    values = expectation.whole(scenario.measurements(number))
    if text.has(expect):
        text.replace(expect, values)
    else:
        text.insert(expect, values, after=next(key for key in SENDS if text.has((*expect[:-1], key))))
    return list(values)


def _record_changes(scenario: _Scenario, number: int, text: Text, expect: Keys, whole: Keys) -> list[str]:
    """Change what no longer holds of a step's expectation; the keys."""
    parameters = any(text.has((*whole, key)) for key in ("each", "matrix"))
    expects = [expect for case in scenario.cases for _, expect in case.actions[number].entries]
    changes = _changes(scenario, number, expects)
    for change in changes:
        _apply(text, expect, change, parameters=parameters)
    return list(dict.fromkeys(_described(change, expects) for change in changes))


def _changes(scenario: _Scenario, number: int, expects: Sequence[object]) -> list[KeyUpdate]:
    """What moved in one step; each case is compared with its own expectation."""
    changes: dict[Keys, KeyUpdate] = {}
    for expect, case in zip(expects, scenario.cases, strict=True):
        assert isinstance(expect, Expect)
        own = scenario.measurements(number, case)
        if any(expectation.judged(expect, seen) for seen in own):
            for change in expectation.moved(expect, own):
                before = changes.setdefault(change.keys, change)
                if before != change:
                    raise NotRecordableError(f"{change.keys[0]} moved in different ways")
    return list(changes.values())


def _described(change: KeyUpdate, expects: Sequence[object]) -> str:
    """The key that moved; of what decides about a packet, from what to what."""
    key = str(change.keys[0])
    before = {_word(getattr(expect, key)) for expect in expects} if key in ("verdict", "delivered") else set()
    after = _word(change.value)
    if len(before) != 1 or "" in before or not after or {after} == before:
        return key
    return f"{key} ({before.pop()} → {after})"


def _word(value: object) -> str:
    """A verdict, or a host; "" for nothing."""
    if isinstance(value, Delivered):
        return value.to
    return str(value.get("to", "") if isinstance(value, Mapping) else value or "")


def _apply(text: Text, expect: Keys, change: KeyUpdate, *, parameters: bool) -> None:
    keys = (*expect, *change.keys)
    if change.new:
        text.insert(keys, change.value, after="verdict")  # type: ignore[arg-type]  # never a list of what stays
        return
    if not text.has(keys):
        raise UneditableError("its expectation is a parameter of each: or matrix:")
    if parameters and "$" in text.written(keys):
        raise UneditableError(f"its {change.keys[0]} is a parameter of each: or matrix:")
    if change.value is None:
        text.remove(keys)
    elif isinstance(change.value, tuple) and any(isinstance(entry, KeptEntry) for entry in change.value):
        text.relist(keys, change.value)
    else:
        text.replace(keys, list(change.value) if isinstance(change.value, tuple) else change.value)


def _untrue(path: Path, text: str, recorded: Sequence[_Recorded], project: Project) -> list[tuple[_Recorded, str]]:
    """Those whose scenarios, as ``text`` has them, do not expect what was seen; with the reason."""
    if not recorded:
        return []
    loaded = load_all(path, layers=layers.NAMES, recording=True, text=text, project=project)
    if loaded.errors:
        return [(done, f"the file would be broken: {loaded.errors[0].sentence}") for done in recorded]
    cases: Mapping[str, object] = {case.name: case for case in loaded.cases}
    return [(done, why) for done in recorded if (why := _why_untrue(done.scenario, cases))]


def _why_untrue(scenario: _Scenario, cases: Mapping[str, object]) -> str:
    for result in scenario.results:
        case = cases.get(result.name)
        if not isinstance(case, Case):
            return f"the scenario would be broken: {case.errors[0].sentence}" if isinstance(case, Broken) else "no case"
        rules = result.ruleset.rules if result.ruleset else ()
        where = f"'{result.name}' on kernel {result.kernel}"
        for sent in result.sent:
            entries = case.actions[sent.action].entries
            try:
                seen = Sample(sent=sent, rules=rules, where=where)
                differing = expectation.judged(entries[0][1], seen) if len(entries) == 1 else ()
            except BrokenMeasurement as broken:
                return str(broken)
            if differing:
                return (
                    f"no single expectation holds on all of them: {differing[0].key} does not for {where}; make what "
                    "differs a parameter of each:, or write a scenario for each"
                )
    return ""


def _replace(path: Path, text: str) -> None:
    try:
        save(path, text, durable=True)
    except OSError as error:
        raise HarnessError(f"{path} can't be written: {error.strerror}") from None
