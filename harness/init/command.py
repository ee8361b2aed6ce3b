"""The command ``nft-harness init``, top to bottom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.batch.messages import Seen
from harness.batch.saving import placed, put_schema
from harness.batch.session import BatchSession
from harness.errors import HarnessError
from harness.generate import file, lab
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts, look
from harness.generate.file import ScenarioDraft
from harness.generate.interfaces import in_statements
from harness.generate.packets import Candidate, Candidates
from harness.generate.pool import EVALUATED_AT_MOST, LEFT_OUT
from harness.generate.simulate import SimulatedRule, SimulatedRuleset
from harness.generate.targets import NOTHING_FOUND, Target, joined, targets, why_never, why_none
from harness.init import scenarios
from harness.init.scenarios import MeasuredPackets
from harness.model import layers
from harness.model.observation import Place, Rule
from harness.project import FILES, Project, find
from harness.recording.checking import differing
from harness.save import save
from harness.scenario.case import Broken, Case
from harness.scenario.files import is_called_so
from harness.scenario.load import load_all
from harness.text import counted, escape
from harness.vm import images, placement

SAVES: Final = (".v4", ".v6", ".ipset")
"""Ends of files of iptables-save and ipset save."""
TRIES: Final = 3
"""Packets for a rule that the first one did not meet."""
REPORTED: Final = 50
"""Packets from one line about the progress to the next."""

Progress = Callable[[str], None]
"""Called with each line about the progress."""
Measure = Callable[[Sequence[Case]], Iterator[Seen]]
"""Sends the packets of scenarios; what became of each, in their order."""


def run(
    rulesets: Sequence[Path],
    output: Path | None,
    *,
    kernel: str,
    measure: bool,
    progress: Progress,
    at: str = "",
    tracer: str = placement.AUTO,
) -> int:
    """Write a scenario file for ``rulesets``, which are loaded in this order, in the lab ``at`` or a chosen one.

    Returns 0 when all is done, 1 when a rule is left without a packet.

    Raises :class:`~harness.errors.HarnessError` for a ruleset that cannot be loaded, and for a file that exists.
    """
    output = output or usual(rulesets)
    project = find([output])
    if output.exists():
        remedy = "remove it, name another with -o, or add --complete for scenarios of what it leaves open"
        raise HarnessError(f"{output} already exists", remedy=remedy)
    if not is_called_so(output.absolute(), project):
        raise HarnessError(
            f"{output} is not called {' or '.join(project.patterns)}, so pytest would not take it",
            remedy=f"name another with -o, or set {FILES} in the project's pytest settings",
        )
    with BatchSession.open(kernel, tracer) if measure else nullcontext() as session:
        # What measures looks at it, too: another nft might give other handles to the rules.
        facts = look(rulesets, _image(kernel)) if session is None else session.look(rulesets)
        rulesets = [_in_project(one, output, project, progress) for one in rulesets]
        if not any(one.is_base for one in facts.chains):
            raise HarnessError(
                f"{', '.join(map(str, rulesets))} has no base chain, so no packet reaches its rules",
                remedy="name a file that has one or includes it, such as the one that the firewall loads",
            )
        chosen = placed(lab.given(at), output) if at else lab.choose(facts)
        about = list(targets(facts))
        progress(f"looking for packets for {len(about)} rules and policies")
        work = _Work(about, _device(facts, chosen), _Writer(rulesets, output, chosen, project))
        if not at and work.gains(_device(facts, wider := lab.choose(facts, wider=True))):
            chosen = wider
            work = _Work(about, _device(facts, chosen), _Writer(rulesets, output, chosen, project))
        progress(f"lab: {chosen.described}")
        progress(f"found packets for {sum(map(bool, work.candidates.values()))} of {len(about)} rules and policies")
        if session is not None:
            work.measure(partial(_measured, session), progress)
    writer = work.writer
    found = work.scenarios(measured=measure)
    missed = [(one, work.reason(one)) for one in about if one.key not in found]
    comments = [escape(f"{one.located}: {why}") for one, why in missed]
    for comment in comments:
        progress(f"no scenario for {comment}")
    if not found:
        raise HarnessError(
            "no packet was found that meets any of the rules or policies", remedy="write scenarios by hand"
        )
    try:
        save(output, writer.text(_once(found.values()), comments))
        put_schema(output.parent)
    except OSError as error:
        raise HarnessError(f"{output} can't be written: {error.strerror}") from None
    progress(f"{output}: scenarios for {len(found)} of {len(about)} rules and policies")
    return 1 if missed else 0


def _in_project(ruleset: Path, output: Path, project: Project, progress: Progress) -> Path:
    """A ruleset that scenarios may name: itself, or a copy when it lies elsewhere."""
    full = ruleset.resolve()
    if project.allows(full):
        return ruleset
    if re.search(r'^\s*include\s+"(?!/)', full.read_text(errors="replace"), re.MULTILINE):
        remedy = "copy it there, together with the files it includes"
        raise HarnessError(f"{ruleset} lies outside of the project, and includes other files", remedy=remedy)
    copy = copied(ruleset, output)
    if copy.exists():
        if copy.read_bytes() == full.read_bytes():
            return copy
        raise HarnessError(f"{ruleset} lies outside of the project, and {copy} already exists", remedy="remove it")
    try:
        save(copy, full.read_bytes())
    except OSError as error:
        raise HarnessError(f"{copy} can't be written: {error.strerror}") from None
    progress(f"{ruleset} lies outside of the project: copied to {copy}")
    return copy


def usual(rulesets: Sequence[Path]) -> Path:
    """The scenario file for ``rulesets`` where none is named."""
    return Path("scenarios", f"{rulesets[0].stem}.yaml")


def copied(ruleset: Path, output: Path) -> Path:
    """Where a ruleset that lies elsewhere is copied to."""
    return output.parent / "rulesets" / (ruleset.name if ruleset.suffix in SAVES else f"{ruleset.stem}.nft")


class _Writer(NamedTuple):
    """The file to be written, read back before it is."""

    rulesets: Sequence[Path]
    output: Path
    lab: lab.ChosenLab
    project: Project

    def text(self, drafts: Sequence[ScenarioDraft], comments: Sequence[str] = ()) -> str:
        """The file with ``drafts``."""
        return file.head(self.rulesets, self.output, self.lab) + file.body(drafts, comments)

    def read(self, drafts: Sequence[ScenarioDraft]) -> tuple[list[Case], dict[int, str]]:
        """``drafts`` as they would be read, and the numbers of those that would not, with the reason.

        Where one is refused, not all of the others need be among the first.
        """
        loaded = self._load(drafts)
        if isinstance(loaded, str):
            # Which of them it is, the parser cannot say.
            if len(drafts) == 1:
                return [], {0: loaded}
            half = len(drafts) // 2
            before, behind = self.read(drafts[:half])[1], self.read(drafts[half:])[1]
            return [], before | {half + number: why for number, why in behind.items()}
        refused = {number: one.errors[0].sentence for number, one in enumerate(loaded) if isinstance(one, Broken)}
        return [one for one in loaded if isinstance(one, Case)], refused

    def _load(self, drafts: Sequence[ScenarioDraft]) -> list[Case | Broken] | str:
        if not drafts:
            return []
        found = load_all(self.output, layers=layers.NAMES, recording=True, text=self.text(drafts), project=self.project)
        if found.errors:
            return found.errors[0].sentence
        return list(found.cases) if len(found.cases) == len(drafts) else "it is not read back as one scenario"


class _Work:
    """Packets for rules and policies, and what became of them."""

    def __init__(self, about: Sequence[Target], device: SimulatedDevice, writer: _Writer) -> None:
        self._targets = about
        self._device = device
        self.writer = writer
        self._reasons: dict[Place, str] = {}
        self._measured: list[MeasuredPackets] = []
        self._tried: dict[Place, list[int]] = {}
        self._packets = Candidates(device)
        self._before = device.ruleset.evaluated
        self._search = {one.key: self._packets.of(one.key) for one in about}
        self.candidates: dict[Place, list[Candidate]] = {one.key: [] for one in about}
        """The packets that have been made for a rule or policy so far."""
        self._cases: dict[str, Case | str] = {}
        for _ in range(1 + TRIES):
            self._made([key for key, several in self.candidates.items() if not several])

    def gains(self, wider: SimulatedDevice) -> bool:
        """Whether a rule about interfaces that no packet was found for gets one in the lab of ``wider``."""
        if len(wider.facing) <= len(self._device.facing):
            return False
        chains = self._device.ruleset.chains.values()
        named = {rule.key for chain in chains for rule in chain.rules if any(in_statements(_objects(rule)))}
        search = Candidates(wider)
        return any(
            next(search.of(key), None) is not None
            for key, found in self.candidates.items()
            if key in named and not found and wider.ruleset.evaluated < EVALUATED_AT_MOST
        )

    def _made(self, keys: Iterable[Place]) -> dict[Place, Candidate]:
        """One more packet for each rule or policy; what goes wrong for one rule is its reason, and no more."""
        found: dict[Place, Candidate] = {}
        for key in keys:
            if self._device.ruleset.evaluated - self._before >= EVALUATED_AT_MOST:
                self._reasons.setdefault(key, LEFT_OUT)
                continue
            try:
                if (candidate := next(self._search[key], None)) is not None:
                    found[key] = candidate
            except (HarnessError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                self._reasons[key] = (
                    f"no packet could be built from what it matches on ({type(error).__name__}: {error})"
                )
        self._read({repr(one.sends): one.sends for one in found.values() if repr(one.sends) not in self._cases})
        for key, candidate in list(found.items()):
            case = self._cases[repr(candidate.sends)]
            if isinstance(case, str):
                self._reasons[key] = f"no packet could be built from what it matches on: {case}"
                del found[key]
            else:
                self.candidates[key].append(candidate)
        return found

    def _read(self, texts: Mapping[str, tuple[dict[str, Any], ...]]) -> None:
        """Read packets back, as scenarios; why one is refused stands in place of its case."""
        drafts = {text: ScenarioDraft(f"packet {number}", sends) for number, (text, sends) in enumerate(texts.items())}
        cases, refused = self.writer.read(list(drafts.values()))
        self._cases |= {text: refused[number] for number, text in enumerate(drafts) if number in refused}
        accepted = [text for text in drafts if text not in self._cases]
        if refused:
            cases, _ = self.writer.read([drafts[text] for text in accepted])
        self._cases |= dict(zip(accepted, cases, strict=True))

    def measure(self, send: Measure, progress: Progress) -> None:
        """Send the first packet for each rule, then others for those that none has met."""
        known: dict[str, int | None] = {}
        waiting = {key: one for key, several in self.candidates.items() for one in several}
        for turn in range(1 + TRIES):
            if turn:
                met = {key for one in self._measured for key in one.met}
                waiting = self._made(one.key for one in self._targets if one.key not in met)
            unknown = {text: one for one in waiting.values() if (text := repr(one.sends)) not in known}
            known |= self._sent(unknown, send, progress)
            for key, candidate in waiting.items():
                if (number := known[repr(candidate.sends)]) is not None:
                    self._tried.setdefault(key, []).append(number)

    def _sent(self, waiting: Mapping[str, Candidate], send: Measure, progress: Progress) -> dict[str, int | None]:
        """The numbers of the measurements of packets; None for those that could not be measured."""
        found: dict[str, int | None] = dict.fromkeys(waiting)
        if not waiting:
            return found
        progress(f"sending {counted(len(waiting), 'packet')}")
        rules: tuple[Rule, ...] = ()
        cases = {text: case for text in waiting if isinstance(case := self._cases[text], Case)}
        for done, (text, seen) in enumerate(zip(cases, send(list(cases.values())), strict=True)):
            if done and done % REPORTED == 0:
                progress(f"  {done} of {len(waiting)}")
            rules = seen.rules or rules
            if seen.error or not seen.sent:
                self._refuse(text, seen.error or "nothing was observed of its packet")
                continue
            found[text] = len(self._measured)
            names = scenarios.blocks(self._targets, rules)
            self._measured.append(MeasuredPackets(waiting[text].sends, seen.sent, rules, seen.kernel, names))
        return found

    def _refuse(self, packet: str, why: str) -> None:
        for key, candidates in self.candidates.items():
            if any(repr(one.sends) == packet for one in candidates):
                self._reasons.setdefault(key, why)

    def scenarios(self, *, measured: bool) -> dict[Place, ScenarioDraft]:
        """The scenario of each rule and policy that has one; read back, and judged by what was observed."""
        if not measured:
            return {
                one.key: ScenarioDraft(one.title, packets[0].sends)
                for one in self._targets
                if (packets := self.candidates[one.key])
            }
        wrong: set[str] = set()
        while True:
            measured_packets = [one for one in self._measured if repr(one.sends) not in wrong]
            numbers = {id(one): number for number, one in enumerate(measured_packets)}
            tried = {
                key: [numbers[id(one)] for number in found if id(one := self._measured[number]) in numbers]
                for key, found in self._tried.items()
            }
            found = scenarios.drafts(self._targets, measured_packets, tried, self._reasons)
            refused = self._untrue(_once(found.values()))
            if not refused:
                return found
            for draft, why in refused:
                wrong |= {repr(one.sends) for one in measured_packets if one.sends[: len(draft.sends)] == draft.sends}
                for key, kept in found.items():
                    if kept.sends == draft.sends:
                        self._reasons[key] = why

    def _untrue(self, drafts: Sequence[ScenarioDraft]) -> list[tuple[ScenarioDraft, str]]:
        """The scenarios that would not be read, or would not expect what was observed; with the reason."""
        cases, refused = self.writer.read(drafts)
        if refused:
            return [
                (drafts[number], f"what was observed could not be written: {why}") for number, why in refused.items()
            ]
        found = []
        for draft, case in zip(drafts, cases, strict=True):
            packets = next(one for one in self._measured if one.sends[: len(draft.sends)] == tuple(draft.sends))
            if why := differing(case, packets.sent, packets.rules, packets.kernel):
                found.append((draft, f"its expectation would not hold: {why}"))
        return found

    def reason(self, target: Target) -> str:
        """Why a rule or policy has no scenario."""
        if target.key in self._reasons:
            return self._reasons[target.key]
        if numbers := self._tried.get(target.key):
            return why_never(self._device, target.key) or self._measured[numbers[0]].missed()
        names = {one.key: one.located for one in self._targets}
        before = [names[place] for place in self._packets.decided_before(target.key) if place in names]
        why = why_none(self._device, target.key, before)
        return (self._packets.unbegun(target.key) if why == NOTHING_FOUND else "") or why


def _device(facts: Facts, chosen: lab.ChosenLab) -> SimulatedDevice:
    return SimulatedDevice(SimulatedRuleset(facts), chosen.network)


def _objects(rule: SimulatedRule) -> Iterator[dict[str, Any]]:
    """The statements of ``rule`` as in nft's JSON."""
    return ({word: what} for word, what in rule.statements)


def _once(drafts: Iterable[ScenarioDraft]) -> list[ScenarioDraft]:
    """``drafts``, each once; those of rules that send the same are one."""
    found: dict[str, list[ScenarioDraft]] = {}
    for one in drafts:
        found.setdefault(repr(one.sends), []).append(one)
    return [_named(list({id(one): one for one in group}.values())) for group in found.values()]


def _named(group: Sequence[ScenarioDraft]) -> ScenarioDraft:
    """One for several that send the same and expect nothing yet."""
    return group[0]._replace(name=joined([one.name for one in group]))


def _image(kernel: str) -> str:
    return images.DEFAULT if kernel in (placement.AUTO, placement.HOST) else kernel


def _measured(session: BatchSession, cases: Sequence[Case]) -> Iterator[Seen]:
    """What became of the packets of ``cases``; they are built here, where that is quicker than in a guest."""
    from harness.packets import frames

    return session.measure(cases, frames.prepare(sent for case in cases for sent in case.sends))
