"""``nft-harness init --complete``: scenarios for what those of a file leave open.

::

    the file's scenarios ── run ──> gaps ──┐
    generate.pool ── packets, measured ────┴─> those that close a gap ── run as scenarios ──> appended
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness.batch import drafts, saving
from harness.batch.messages import Seen
from harness.batch.session import BatchSession
from harness.errors import HarnessError, Position
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.lab import ChosenLab
from harness.generate.pool import Pool, PooledPacket, cost_of
from harness.generate.simulate import SimulatedRuleset
from harness.generate.targets import joined, targets
from harness.init.command import copied, usual
from harness.model import layers
from harness.model.observation import Place
from harness.model.problem import Problem
from harness.model.result import Result, RulesetPlan
from harness.packets import frames
from harness.project import find
from harness.report.evaluated import covered_rules
from harness.scenario.case import Broken, Case
from harness.scenario.load import load_all
from harness.scenario.models.actions import NftAction, ReloadAction
from harness.text import counted, escape
from harness.vm import placement

PACKETS: Final = 1000
"""Packets that are sent at most."""
AT_ONCE: Final = 100
"""Packets after which what is open yet is looked at."""
TRIES: Final = 4
"""Packets run as scenarios for one gap."""
SEED: Final = 1


class GapKind(Enum):
    """What can be open about a rule or policy."""

    MET = "met"
    """Whether a packet meets the rule, or the policy decides."""
    ELEMENT = "element"
    """Whether a packet meets an element of it."""
    HOLDS = "holds"
    """Whether a match of it holds for a packet."""
    FAILS = "fails"
    """Whether a match of it fails for a packet."""


Progress = Callable[[str], None]


class Gap(NamedTuple):
    """What a packet can show of a rule or policy."""

    position: Position
    chain: str
    text: str
    """The rule or policy as nft lists it."""
    kind: GapKind
    what: str = ""
    """The element or match."""

    @property
    def title(self) -> str:
        """As scenarios are named for it."""
        at = f"{Path(self.position.file).name}:{self.position.line}"
        words = {
            GapKind.MET: self.text,
            GapKind.ELEMENT: f"{self.what} at {at}",
            GapKind.HOLDS: f"{self.what} holds at {at}",
            GapKind.FAILS: f"{self.what} fails at {at}",
        }
        return " ".join(f"{self.chain.rpartition(' ')[2]}: {words[self.kind]}".split())

    @property
    def located(self) -> str:
        """What is open, with its place."""
        never = {
            GapKind.MET: "never decided" if self.text.startswith("policy ") else "never met",
            GapKind.ELEMENT: f"no packet met {self.what}",
            GapKind.HOLDS: f"never seen to hold: {self.what}",
            GapKind.FAILS: f"never seen to fail: {self.what}",
        }
        of = "" if self.kind is GapKind.MET else " of"
        return f"{self.position.file}:{self.position.line}: {never[self.kind]}{of or ':'} {self.text}"


Shown = Mapping[Gap, Collection[str]]
"""All that can be shown, each with the names of the scenarios that do."""


def run(
    rulesets: Sequence[Path], output: Path | None, *, kernel: str, progress: Progress, tracer: str = placement.AUTO
) -> int:
    """Append to the scenario file ``output`` scenarios for what its own about ``rulesets`` leave open.

    Returns 0 when nothing is left open, else 1.

    Raises :class:`~harness.errors.HarnessError` where there is no such file, or none of its scenarios loads
    ``rulesets`` and can be measured.
    """
    output = output or usual(rulesets)
    project = find([output])
    cases = _cases([one if project.allows(one.resolve()) else copied(one, output) for one in rulesets], output)
    with BatchSession.open(kernel, tracer) as session:
        work = _Completing(session, cases, progress)
        total = len(work.shown)
        left = work.open()
        if not left:
            progress(f"{output}: nothing to complete: all {total} {_THINGS} were seen")
            return 0
        progress(f"{output}: {len(left)} of {total} {_THINGS} are open")
        facts, device = work.facts()
        generator = Pool([device], SEED)
        work.measure(generator.packets(PACKETS))
        added = work.save(output)
        left = work.open()
        names = {one.key: one.located for one in targets(facts)}
        why_none = partial(generator.why_none, device, named=lambda place: names.get(place, " ".join(place[:3])))
        for gap in _listed(left):
            progress(f"still open: {escape(gap.located)}: {escape(work.reason(gap, facts, why_none))}")
        progress(f"{output}: scenarios added: {added}; still open: {len(left)} of {total} {_THINGS}")
        return 1 if left else 0


_THINGS: Final = "rules, policies, elements and outcomes of matches"


def _cases(rulesets: Sequence[Path], output: Path) -> list[Case]:
    """The scenarios of ``output`` that load ``rulesets`` on their device."""
    if not output.exists():
        raise HarnessError(
            f"{output} does not exist, so there is nothing to complete",
            remedy="leave out --complete to begin it, or name the scenario file with -o",
        )
    project = saving.refuse_name(output)
    loaded = load_all(output, layers=layers.NAMES, recording=True, project=project)
    for error in (*loaded.errors, *(one.errors[0] for one in loaded.cases if isinstance(one, Broken))):
        raise error
    wanted = tuple(one.resolve() for one in rulesets)
    read = [one for one in loaded.cases if isinstance(one, Case)]
    cases = [one for one in read if one.rulesets[one.network.device].paths == wanted]
    if not cases:
        others = dict.fromkeys(",".join(path.name for path in one.rulesets[one.network.device].paths) for one in read)
        named = ",".join(map(str, rulesets))
        raise HarnessError(
            f"no scenario of {output} loads {named}, but {' or '.join(others) or 'none loads any'}",
            remedy="name the ruleset that they load, or another scenario file with -o",
        )
    if any(one.rulesets[one.network.device].defines for one in cases):
        raise HarnessError(
            f"scenarios of {output} give variables to the ruleset, of which packets cannot be made",
            remedy="write scenarios for the rules that --nft-cov lists",
        )
    return cases


class _Completing:
    """What scenarios show of a ruleset, and packets that show more."""

    def __init__(self, session: BatchSession, cases: Sequence[Case], progress: Progress) -> None:
        self._session = session
        self._progress = progress
        self._packets: dict[str, tuple[dict[str, Any], ...]] = {}
        """Those that were measured, by their number."""
        self._shows: dict[str, set[Gap]] = defaultdict(set)
        """What each of them showed."""
        self._reasons: dict[Gap, str] = {}
        self._unclear: set[Gap] = set()
        """What a packet may have shown."""
        self._came: set[Gap] = set()
        """The rules and policies that a packet met, whether they decided about it or not."""
        results: list[Result] = []
        usable: list[tuple[Case, RulesetPlan]] = []
        for number, (case, seen) in enumerate(zip(cases, self._ran(cases), strict=True)):
            if seen.error or not seen.sent:
                progress(f"not counted: {escape(case.name)}: {escape(seen.error or 'nothing was observed of it')}")
                continue
            results.append(_result(str(number), case, seen, _plan(case, seen)))
            if not any(isinstance(action, NftAction | ReloadAction) for action in case.actions):
                usable.append((case, _plan(case, seen)))
        if not usable:
            raise HarnessError(
                f"no scenario of {cases[0].file} that leaves its ruleset as it is could be measured",
                remedy="run pytest to see why, or write one",
            )
        self._like, self._ruleset = usable[0]
        own = self._seen([_result("", self._like, Seen(name=""), self._ruleset)])
        self.shown: dict[Gap, set[str]] = {gap: set(names) for gap, names in self._seen(results).items() if gap in own}
        """All that can be shown; with who did."""
        if not self.shown:
            raise HarnessError("no rule of the ruleset was found in its file, so it is not known which are open")

    def facts(self) -> tuple[Facts, SimulatedDevice]:
        """What packets are made from: the ruleset, and the device in the lab of the scenarios."""
        network = self._like.network
        facts = self._session.look(self._like.rulesets[network.device].paths)
        return facts, SimulatedDevice(SimulatedRuleset(facts), network)

    def open(self) -> list[Gap]:
        """What nothing has shown."""
        return [gap for gap, names in self.shown.items() if not names]

    def measure(self, packets: Iterable[PooledPacket]) -> None:
        """Send ``packets`` until all that is open has been shown by one."""
        waiting = []
        for packet in packets:
            with suppress(Problem, msgspec.ValidationError):
                case = drafts.like(self._like, packet.sends)
                for send, network in case.sends:
                    frames.build(send, network)
                waiting.append((packet.sends, case))
        left = set(self.open())
        for first in range(0, len(waiting), AT_ONCE):
            left -= {gap for shows in self._shows.values() for gap in shows}
            if not left:
                break
            self._progress(f"sending packets {first + 1} to {min(first + AT_ONCE, len(waiting))} of {len(waiting)}")
            self._measure(waiting[first : first + AT_ONCE])

    def _measure(self, waiting: Sequence[tuple[tuple[dict[str, Any], ...], Case]]) -> None:
        cases = [case for _, case in waiting]
        prepared = frames.prepare(sent for case in cases for sent in case.sends)
        results = []
        plan = self._ruleset
        for (sends, case), seen in zip(waiting, self._session.measure(cases, prepared), strict=True):
            if seen.rules:
                plan = msgspec.structs.replace(self._ruleset, rules=seen.rules)
            if not seen.error and seen.sent:
                name = str(len(self._packets))
                self._packets[name] = sends
                results.append(_result(name, case, seen, plan))
        for gap, names in self._seen(results).items():
            for name in names:
                self._shows[name].add(gap)

    def save(self, output: Path) -> int:
        """Append a scenario for each packet that closes a gap, the most at once first; how many were."""
        tried: Counter[Gap] = Counter()
        lab = drafts.lab_of(self._like)
        added = 0
        while True:
            left = {gap for gap in self.open() if tried[gap] < TRIES}
            closing = {name: shows & left for name, shows in self._shows.items()}
            best = min(closing, key=lambda name: (-len(closing[name]), cost_of(self._packets[name])), default=None)
            if best is None or not closing[best]:
                return added
            tried.update(closing[best])
            del self._shows[best]
            why = self._save(output, best, left, lab)
            added += not why
            self._reasons |= dict.fromkeys(closing[best], why)

    def _save(self, output: Path, name: str, left: Collection[Gap], lab: ChosenLab) -> str:
        """Run a packet as a scenario of its own and append that, if it closes a gap of ``left``; why not, or ""."""
        case = drafts.like(self._like, self._packets[name])
        (seen,) = self._ran([case])
        if seen.error or not seen.sent:
            return seen.error or "nothing was observed of its packet"
        shows = self._seen([_result(name, case, seen, _plan(case, seen))])
        closed = [gap for gap, names in shows.items() if names and gap in left]
        if not closed:
            return "the packet that showed it does not show it in a scenario of its own"
        try:
            self._progress(saving.save(output, joined([one.title for one in _listed(closed)]), case, seen, lab))
        except HarnessError as error:
            if any("count" in send for send in self._packets[name]):
                return "only a series of packets with different outcomes shows it: write that scenario by hand"
            return str(error).splitlines()[0]
        for gap, names in shows.items():
            self.shown.setdefault(gap, set()).update(names)
        return ""

    def _seen(self, results: Sequence[Result]) -> Shown:
        """All that can be shown, each with the names of those of ``results`` that do."""
        found: dict[Gap, Collection[str]] = {}
        for place in covered_rules(results):
            about = place.position, place.chain_path, place.text
            found[Gap(*about, GapKind.MET)] = place.decided if place.is_policy else place.matched
            if place.matched:
                self._came.add(Gap(*about, GapKind.MET))
            for element, names in place.elements.items():
                found[Gap(*about, GapKind.ELEMENT, element)] = names
            self._unclear.update(Gap(*about, GapKind.ELEMENT, element) for element in place.unclear)
            for match, seen in place.clauses.items():
                found[Gap(*about, GapKind.HOLDS, match)] = seen.held
                found[Gap(*about, GapKind.FAILS, match)] = seen.failed
                if seen.is_open:
                    self._unclear.update(Gap(*about, kind, match) for kind in (GapKind.HOLDS, GapKind.FAILS))
        return found

    def _ran(self, cases: Sequence[Case]) -> Iterator[Seen]:
        return self._session.run(cases, frames.prepare(sent for case in cases for sent in case.sends))

    def reason(self, gap: Gap, facts: Facts, why_none: Callable[[Place], str]) -> str:
        """Why ``gap`` is open; ``why_none`` says why no packet that was made meets a rule or policy, or ""."""
        if why := self._reasons.get(gap):
            return why
        if gap in self._came:
            return "packets met it, but it decided about none of them"
        if gap.kind is GapKind.MET and (key := _key(gap, facts)) and (why := why_none(key)):
            return why
        if gap in self._unclear:
            return "packets may have shown it, but nf_tables' trace does not tell"
        return f"none of {counted(len(self._packets), 'packet')} showed it"


def _plan(case: Case, seen: Seen) -> RulesetPlan:
    file = str(case.rulesets[case.network.device].paths[0])
    return RulesetPlan(file=file, rules=seen.rules, policies=seen.policies, sets=seen.sets)


def _result(name: str, case: Case, seen: Seen, plan: RulesetPlan) -> Result:
    """What ``seen`` shows of the ruleset of ``case``, and not of one that a step changed it to."""
    return Result(
        id=name,
        name=name,
        position=case.where(0),
        outcome="passed",
        kernel=seen.kernel,
        sent=tuple(one for one in seen.sent if one.ruleset is None or one.ruleset.is_like(plan)),
        ruleset=plan,
    )


def _listed(gaps: Sequence[Gap]) -> Iterator[Gap]:
    """``gaps`` without what follows from another: where no packet met a rule, none met its elements."""
    unmet = {gap[:3] for gap in gaps if gap.kind is GapKind.MET}
    yield from (gap for gap in gaps if gap.kind in (GapKind.MET, GapKind.FAILS) or gap[:3] not in unmet)


def _key(gap: Gap, facts: Facts) -> Place | None:
    """The rule or policy of ``gap`` among ``facts``."""
    if gap.text.startswith("policy "):
        family, table, chain = gap.chain.split(" ", 2)
        return family, table, chain, 0
    return next((one.place for one in facts.rules if one.position and one.position[1:] == gap.position[1:]), None)
