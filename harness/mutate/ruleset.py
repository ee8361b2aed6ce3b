"""The mutants of one ruleset: which scenarios are run under which, and what is known after that.

::

    structure, baselines ──> mutants ──> sifted, where functions decide nothing ──> with functions ──> survivors
"""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from harness.batch.messages import Seen
from harness.batch.session import BatchSession
from harness.errors import HarnessError, Position
from harness.model.observation import Place, Rule
from harness.mutate import known, values
from harness.mutate.edits import Deleted, Elements, Swapped, Turned, rewritten
from harness.mutate.known import BROKEN, KILLED, OPEN, PASSED, SIFTED, Known, KnownMutant
from harness.mutate.messages import (
    AskedBaselines,
    AskedMutant,
    AskedMutants,
    AskedStructure,
    Baseline,
    Structure,
    Tried,
    pickled,
)
from harness.mutate.operators import Mutant, mutants
from harness.mutate.results import MutantResult, RulesetResult, Status
from harness.mutate.survivors import Searching
from harness.pytest_plugin import kept_frames
from harness.scenario.case import Case, Files
from harness.scenario.files import shortened
from harness.text import counted

REPORTED_S = 5.0
"""Seconds from one line about the progress to the next."""
MUTANTS: Final = 1_000
"""Mutants of a ruleset at most, unless another number is asked for."""
LISTED: Final = 250_000
"""Rules of all mutants of a ruleset at most, unless a number of mutants is asked for: nft lists each mutant."""
SEARCHED: Final = 64
"""Survivors for which packets are looked for at once."""
PARTS: Final = 3
"""Of the search for one: packets are made, the first are tried, and more."""

Progress = Callable[[str], None]


class Subject(NamedTuple):
    """A ruleset, and the scenarios whose device loads it."""

    name: str
    files: Files
    cases: list[Case]


class MutatedRuleset:
    """The mutants of one ruleset."""

    def __init__(
        self,
        subject: Subject,
        kept: Known,
        session: Callable[[], BatchSession],
        progress: Progress,
        *,
        sift: bool,
        seed: int,
        budget: int | None = None,
    ) -> None:
        """What is found is added to ``kept``; ``session`` opens the session when it is first needed; ``budget`` are
        the mutants at most, by default as many as the size of the ruleset allows."""
        self.subject = subject
        self._kept = kept
        self._session = session
        self._progress = progress
        self._sift = sift
        self._seed = seed
        self._budget = budget
        self._possible = 0
        """Mutants that could be made."""
        self._cases = subject.cases
        self._names = [f"{shortened(case.file)}::{case.id}" for case in subject.cases]
        self._digests = [known.digest(case) for case in subject.cases]
        self._labs: dict[str, list[int]] = {}
        """The numbers of the scenarios that have the same lab and rulesets."""
        for number, case in enumerate(subject.cases):
            others = known.stable({host: files.paths for host, files in case.rulesets.items()})
            self._labs.setdefault(f"{known.lab_of(case)} {others}", []).append(number)
        self._frames: dict[str, bytes] = {}
        self._mutants: list[Mutant] = []
        self._cached = 0
        self.is_begun = False
        """Whether there is a result."""

    @property
    def structure(self) -> Structure:
        """The ruleset as it was loaded."""
        assert self._kept.structure is not None
        return self._kept.structure

    @property
    def network_case(self) -> Case:
        """The scenario whose lab packets are made for."""
        return self._cases[0]

    def run(self) -> None:
        """Find out what becomes of each mutant, as far as that is not known."""
        if self._kept.structure is None:
            (self._kept.structure,) = self._session().answers(
                AskedStructure(case=pickle.dumps(self._cases[0])), Structure
            )
        self._mutants = self._made()
        self._cached = sum(self._is_known(mutant) for mutant in self._mutants)
        self._measure_baselines()
        self._refuse_unused()
        self.is_begun = True
        if self._sift:
            self._run(sift=True)
        self._run(sift=False)
        self._search()

    def _made(self) -> list[Mutant]:
        """The mutants, without those of rules that cannot be written."""
        device = self._cases[0].network.hosts[self._cases[0].network.device]
        fixed = set(self.structure.fixed)
        found = []
        for one in mutants(self.structure.objects, sorted(device.interfaces)):
            if isinstance(one.edit, Deleted) or rewritten(one.edit) not in fixed:
                found.append(one)
        self._possible = len(found)
        budget = self._budget or min(MUTANTS, max(LISTED // max(len(self.structure.rules), 1), 1))
        if len(found) > budget:
            chosen = sorted(random.Random(self._seed).sample(range(len(found)), budget))
            found = [found[number] for number in chosen]
            self._progress(f"  {self._drawn(len(found))}")
        return found

    def _drawn(self, number: int) -> str:
        """What is left out of the mutants."""
        rules = counted(len(self.structure.rules), "rule")
        return (
            f"{number:,} of {self._possible:,} mutants of {rules} are tested, drawn by seed {self._seed}; the score is "
            "theirs (--mutants tests more)"
        )

    def _is_known(self, mutant: Mutant) -> bool:
        one = self._kept.mutants.get(mutant.key)
        if one is None or not one.is_listed:
            return False
        return bool(one.outcome or one.killed(self._digests) or one.is_searched)

    # -- scenarios --------------------------------------------------------------------------------

    def _measure_baselines(self) -> None:
        """Run the scenarios under the ruleset as it is."""
        for numbers in self._labs.values():
            missing = [number for number in numbers if self._digests[number] not in self._kept.baselines]
            if not missing:
                continue
            cases = [self._cases[number] for number in missing]
            asked = AskedBaselines(cases=pickled(cases), frames=self._prepared(cases))
            for number, found in zip(missing, self._session().answers(asked, Baseline), strict=True):
                self._kept.baselines[self._digests[number]] = found

    def _refuse_unused(self) -> None:
        """Raise :class:`~harness.errors.HarnessError` where no scenario can be used."""
        unused = self._unused()
        if len(unused) == len(self._cases):
            number = f"none of {len(unused)} scenarios passes" if len(unused) > 1 else "the only scenario does not pass"
            sentence = f"{number} with {self.subject.name} as it is: {unused[0]}"
            raise HarnessError(sentence, remedy="have it pass under pytest first")

    def _unused(self) -> list[str]:
        """Which scenarios are not used, and why."""
        found = []
        for name, digest in zip(self._names, self._digests, strict=True):
            one = self._kept.baselines.get(digest)
            if one is not None and one.error:
                found.append(f"{name}: {one.error}")
        return found

    def _prepared(self, cases: Sequence[Case]) -> dict[str, bytes]:
        self._frames |= kept_frames.prepare(sent for case in cases for sent in case.sends)
        return self._frames

    def _baseline(self, number: int) -> Baseline:
        return self._kept.baselines[self._digests[number]]

    def covering(self, mutant: Mutant) -> list[int]:
        """The numbers of the scenarios that may notice ``mutant``, those first that most likely do."""
        touched = set(mutant.touched)
        found = []
        for number in range(len(self._cases)):
            one = self._kept.baselines.get(self._digests[number])
            if one is not None and not one.error and (one.is_open or touched & set(one.evaluated)):
                found.append(number)
        return sorted(found, key=lambda number: self._order(number, touched))

    def _order(self, number: int, touched: set[Place]) -> tuple[bool, bool, float]:
        one = self._baseline(number)
        return not self._cases[number].only_sends, not touched & set(one.matched), one.seconds

    def _run(self, *, sift: bool) -> None:
        """Run scenarios under mutants that none has killed yet."""
        todo = {lab: list(self._todo(lab, sift=sift)) for lab in self._labs}
        estimate = _Estimate(
            self._progress, sum(map(len, todo.values())), "mutants" if sift else "mutants with functions"
        )
        for lab, of_lab in todo.items():
            some = [one for one in of_lab if not self.known(one[0]).killed(self._digests)]
            for mutant, own, found in self._tried(lab, some, sift=sift):
                self._note(self.known(mutant), own, found, sift=sift)
                estimate.step()

    def _todo(self, lab: str, *, sift: bool) -> Iterator[tuple[Mutant, list[int]]]:
        """The mutants that are not killed, each with the scenarios of ``lab`` that are to be run under it.

        In the first lab each is loaded once, also if no scenario is run there: nft may refuse it.
        """
        for mutant in self._mutants:
            one = self.known(mutant)
            if one.outcome or one.killed(self._digests):
                continue
            covering = self.covering(mutant)
            own = [number for number in covering if number in self._labs[lab]]
            own = [number for number in own if self._is_left(one, number, sift=sift)]
            if own or (not one.is_listed and lab == next(iter(self._labs))):
                yield mutant, own

    def _is_left(self, one: KnownMutant, number: int, *, sift: bool) -> bool:
        verdict = one.verdicts.get(self._digests[number])
        if sift:
            return verdict is None and self._cases[number].only_sends
        return verdict is None or verdict == SIFTED

    def _tried(
        self, lab: str, some: Sequence[tuple[Mutant, list[int]]], *, sift: bool
    ) -> Iterator[tuple[Mutant, list[int], Tried]]:
        if not some:
            return
        numbers = list(dict.fromkeys(number for _, own in some for number in own)) or self._labs[lab][:1]
        cases = [self._cases[number] for number in numbers]
        asked = AskedMutants(
            cases=pickled(cases),
            mutants=tuple(AskedMutant(edit=mutant.edit, cases=tuple(map(numbers.index, own))) for mutant, own in some),
            objects=self.structure.objects,
            fixed=self.structure.fixed,
            frames=self._prepared(cases),
            sift=sift,
        )
        for (mutant, own), found in zip(some, self._session().answers(asked, Tried), strict=True):
            yield (
                mutant,
                own,
                msgspec.structs.replace(
                    found,
                    by=numbers[found.by] if found.by >= 0 else -1,
                    open=tuple(numbers[one] for one in found.open),
                    broken=tuple(numbers[one] for one in found.broken),
                ),
            )

    def _note(self, one: KnownMutant, own: Sequence[int], found: Tried, *, sift: bool) -> None:
        """Keep what became of a mutant."""
        one.is_listed = True
        one.texts = found.texts or one.texts
        if found.outcome in ("refused", "same"):
            one.outcome, one.why = found.outcome, found.why
            return
        for number in own:
            digest = self._digests[number]
            if number == found.by:
                one.verdicts[digest] = KILLED + found.why
                return
            if number in found.broken:
                one.verdicts[digest] = SIFTED if sift else BROKEN
            elif number in found.open:
                one.verdicts[digest] = SIFTED if sift else OPEN
            else:
                one.verdicts[digest] = PASSED

    # -- survivors --------------------------------------------------------------------------------

    def survivors(self) -> list[Mutant]:
        """The mutants that no scenario has killed."""
        found = []
        for mutant in self._mutants:
            one = self._kept.mutant(mutant.key)
            if one.is_listed and not one.outcome and not one.killed(self._digests):
                found.append(mutant)
        return found

    def known(self, mutant: Mutant) -> KnownMutant:
        """What is known of ``mutant``."""
        return self._kept.mutant(mutant.key)

    def _search(self) -> None:
        """Look for a packet that distinguishes each survivor from the original."""
        todo = [mutant for mutant in self.survivors() if not self.known(mutant).is_searched]
        if not todo:
            return
        self._progress(
            f"  {counted(len(todo), 'survivor')}: looking for packets that distinguish them from the original"
        )
        searching = Searching(self.structure, self.network_case, self._session(), self._seed)
        estimate = _Estimate(self._progress, len(todo), "survivors searched", PARTS)
        for first in range(0, len(todo), SEARCHED):
            some = todo[first : first + SEARCHED]
            self._search_some(searching, some, estimate.step)
            estimate.reach(first + len(some))

    def _search_some(self, searching: Searching, todo: Sequence[Mutant], step: Callable[[], None]) -> None:
        is_searched = False
        try:
            searching.search(todo, first=True, step=step)
            searching.search([one for one in todo if not searching.found.get(one.key)], first=False, step=step)
            searching.confirm(todo)
            is_searched = True
        finally:  # also of a search that is interrupted, what was found by then
            for mutant in todo:
                one = self.known(mutant)
                one.is_searched = is_searched and not searching.unmeasured(mutant)
                one.packets = searching.packets.get(mutant.key, 0) if is_searched else 0
                one.witness = next(iter(searching.found.get(mutant.key, ())), None)
        if reasons := [why for mutant in todo if (why := searching.unmeasured(mutant))]:
            self._progress(f"  no packet for {counted(len(reasons), 'survivor')} could be measured: {reasons[0]}")

    def run_alone(self, case: Case, frames: Mapping[str, bytes]) -> Iterator[Seen]:
        """Run a scenario in a lab of its own."""
        return self._session().run([case], frames)

    # -- the result -------------------------------------------------------------------------------

    def result(self, seconds: float) -> RulesetResult:
        """What is known so far."""
        found = [self._result(mutant) for mutant in self._mutants if not self.known(mutant).outcome]
        structure = self.structure
        baselines = [self._kept.baselines.get(digest) for digest in self._digests]
        left_out = []
        if self._possible > len(self._mutants):
            left_out.append(self._drawn(len(self._mutants)))
        if structure.fixed:
            left_out.append(f"only deleted, as nft's JSON cannot express them: {counted(len(structure.fixed), 'rule')}")
        texts = {str(shortened(path)): text for path, text in known.texts(self.subject.files).items()}
        return RulesetResult(
            name=self.subject.name,
            kernel=structure.kernel,
            nft=structure.nft,
            watched=next((one.watched for one in baselines if one and one.watched), ""),
            texts=texts,
            scenarios=tuple(name for name, one in zip(self._names, baselines, strict=True) if one and not one.error),
            unused=tuple(self._unused()),
            mutants=tuple(found),
            none=len(self._mutants) - len(found),
            left_out=tuple(left_out),
            seconds=seconds,
            cached=self._cached,
        )

    def _result(self, mutant: Mutant) -> MutantResult:
        one = self.known(mutant)
        ids = self._ids
        killer = one.killed(self._digests)
        covering = [self._digests[number] for number in self.covering(mutant)]
        left = [digest for digest in covering if one.verdicts.get(digest) in (OPEN, BROKEN)]
        status: Status = "survived" if one.witness else "equivalent"
        if killer:
            status = "killed"
        elif covering and all(one.verdicts.get(digest) == BROKEN for digest in covering):
            status = "unjudged"
        elif not one.is_listed or any(one.verdicts.get(digest, SIFTED) == SIFTED for digest in covering):
            status = "not run"
        elif not one.is_searched:
            status = "survived"
        return MutantResult(
            operator=mutant.operator,
            what=mutant.what,
            chain=" ".join(mutant.place[:3]),
            position=self._positions.get(mutant.place),
            written=self._text(mutant),
            texts=self._texts(mutant),
            status=status,
            killed_by=ids.get(killer, ""),
            why=one.verdicts.get(killer, "")[1:] if killer else "",
            covered_by=tuple(ids[digest] for digest in covering),
            left_open=tuple(ids[digest] for digest in left),
            witness=None if killer else one.witness,
            packets=one.packets,
        )

    @cached_property
    def _rules(self) -> Mapping[Place, Rule]:
        return {rule.place: rule for rule in self.structure.rules}

    @cached_property
    def _ids(self) -> Mapping[str, str]:
        """What pytest calls the scenarios, by their digests."""
        return dict(zip(self._digests, self._names, strict=True))

    @cached_property
    def _positions(self) -> Mapping[Place, Position | None]:
        rules = {one.place: one.position for one in self.structure.rules}
        return rules | {one.place: one.position for one in self.structure.policies}

    def _text(self, mutant: Mutant) -> str:
        """The rule or policy that a mutant is shown at, as it is written."""
        rule = self._rules.get(mutant.place)
        return (rule.written or rule.text) if rule else ""

    def _texts(self, mutant: Mutant) -> tuple[tuple[str, str], ...]:
        """What a mutant changes, as it was and as it is."""
        match mutant.edit:
            case Turned(policy=policy):
                return ((f"policy {'accept' if policy == 'drop' else 'drop'}", f"policy {policy}"),)
            case Elements(removed=removed, added=added, name=name):
                before, after = (f"@{name} {{ {values.several(one)} }}" if one else "" for one in (removed, added))
                return ((before, after),)
            case Swapped(rule=place, following=following):
                first, second = self._rules[place].text, self._rules[(*place[:3], following)].text
                return ((first, second), (second, first))
            case Deleted():
                return ((self._text(mutant), ""),)
        return self.known(mutant).texts or ((self._text(mutant), ""),)


class _Estimate:
    """Lines about the progress, with the time that is left."""

    def __init__(self, progress: Progress, number: int, what: str, parts: int = 1) -> None:
        """``number`` of ``what`` are to be done, each in so many ``parts``."""
        self._progress = progress
        self._number = number
        self._what = what
        self._parts = parts
        self._started = self._said = time.monotonic()
        self._done = 0

    def step(self) -> None:
        """Count one part, and report from time to time."""
        self._done += 1
        now, steps = time.monotonic(), self._number * self._parts
        if now - self._said > REPORTED_S and self._done < steps:
            self._said = now
            rest = (now - self._started) / self._done * (steps - self._done)
            done = self._done // self._parts
            self._progress(f"  {done} of {self._number} {self._what}, about {rest:.0f} s left")

    def reach(self, number: int) -> None:
        """So many are done, as far as they had parts to do."""
        self._done = number * self._parts
