"""The command ``nft-harness init``, top to bottom."""

from __future__ import annotations

import itertools
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from harness.batch.messages import Seen
from harness.batch.session import Session
from harness.errors import HarnessError
from harness.generate import file, lab
from harness.generate.device import SimulatedDevice
from harness.generate.facts import look
from harness.generate.file import ScenarioDraft
from harness.generate.packets import Candidate, Candidates
from harness.generate.simulate import Key, SimulatedRuleset
from harness.generate.targets import Target, joined, targets, why_none
from harness.init import scenarios
from harness.init.scenarios import MeasuredPackets
from harness.model import layers
from harness.model.observation import Rule
from harness.project import ALLOW, FILES, Project, find
from harness.recording.checking import differing
from harness.save import save
from harness.scenario.case import Broken, Case
from harness.scenario.files import is_called_so
from harness.scenario.load import load_all
from harness.text import escape
from harness.vm import images, placement

TRIES: Final = 3
"""Packets for a rule that the first one did not meet."""
REPORTED: Final = 50
"""Packets from one line about the progress to the next."""

Tell = Callable[[str], None]
Heard = Callable[[Seen], None]
Measure = Callable[[Sequence[ScenarioDraft], Heard], None]


def run(ruleset: Path, output: Path | None, *, kernel: str, measure: bool, tell: Tell) -> int:
    """Write a scenario file for ``ruleset``; 0 when all is done, 1 when a rule is left without a packet.

    Raises :class:`~harness.errors.HarnessError` for a ruleset that cannot be loaded, and for a file that exists.
    """
    if not ruleset.is_file():
        raise HarnessError(f"{ruleset} is not a file")
    output = output or Path("scenarios", f"{ruleset.stem}.yaml")
    project = find([output])
    if output.exists():
        raise HarnessError(f"{output} already exists", remedy="remove it, or name another with -o")
    if not is_called_so(output.absolute(), project):
        raise HarnessError(
            f"{output} is not called {' or '.join(project.patterns)}, so pytest would not take it",
            remedy=f"name another with -o, or set {FILES} in the project's pytest settings",
        )
    facts = look(ruleset, images.DEFAULT if kernel in (placement.AUTO, placement.HOST) else kernel)
    ruleset = _in_project(ruleset, output, project, tell)
    chosen = lab.choose(facts)
    tell(f"the lab: {chosen.described}")
    about = list(targets(facts))
    device = SimulatedDevice(SimulatedRuleset(facts), chosen.network)
    writer = _Writer(ruleset, output, chosen, project)
    work = _Work(about, device, writer)
    tell(f"packets for {sum(map(bool, work.candidates.values()))} of {len(about)} rules and policies")
    if measure:
        with _session(ruleset, chosen, kernel) as send:
            work.measure(send, tell)
    found = work.scenarios(measured=measure)
    if not found:
        raise HarnessError(
            "no packet was found that meets any of the rules or policies", remedy="write the file yourself"
        )
    missed = [(one, work.reason(one)) for one in about if one.key not in found]
    comments = [escape(f"{target.place or 'not in a file'}: {target.name}: {why}") for target, why in missed]
    for comment in comments:
        tell(f"no scenario for {comment}")
    try:
        save(output, writer.text(_once(found.values()), comments))
    except OSError as error:
        raise HarnessError(f"{output} can't be written: {error.strerror}") from None
    tell(f"{output}: scenarios for {len(found)} of {len(about)} rules and policies")
    return 1 if missed else 0


def _in_project(ruleset: Path, output: Path, project: Project, tell: Tell) -> Path:
    """A ruleset that scenarios may name: itself, or a copy when it lies elsewhere."""
    full = ruleset.resolve()
    if project.allows(full):
        return ruleset
    if re.search(r'^\s*include\s+"(?!/)', full.read_text(errors="replace"), re.MULTILINE):
        remedy = "copy it there, together with the files it includes"
        raise HarnessError(f"{ruleset} lies outside of the project, and includes other files", remedy=remedy)
    copy = output.parent / "rulesets" / (f"{ruleset.stem}.nft")
    if copy.exists():
        if copy.read_bytes() == full.read_bytes():
            return copy
        raise HarnessError(f"{ruleset} lies outside of the project, and {copy} already exists", remedy="remove it")
    try:
        save(copy, full.read_bytes())
    except OSError as error:
        raise HarnessError(f"{copy} can't be written: {error.strerror}") from None
    tell(f"{ruleset} lies outside of the project: copied to {copy}")
    return copy


class _Writer(NamedTuple):
    """The file to be written, read back before it is."""

    ruleset: Path
    output: Path
    lab: lab.ChosenLab
    project: Project

    def text(self, drafts: Sequence[ScenarioDraft], comments: Sequence[str] = ()) -> str:
        """The file with ``drafts``."""
        return file.head(self.ruleset, self.output, self.lab) + file.body(drafts, comments)

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
        self._writer = writer
        self._reasons: dict[Key, str] = {}
        self._measured: list[MeasuredPackets] = []
        self._tried: dict[Key, list[int]] = {}
        packets = Candidates(device)
        self.candidates: Mapping[Key, list[Candidate]] = {one.key: self._made(packets, one.key) for one in about}

    def _made(self, packets: Candidates, key: Key) -> list[Candidate]:
        """The packets for a rule or policy. What goes wrong for one rule is its reason, and no more."""
        found: list[Candidate] = []
        try:
            found.extend(itertools.islice(packets.of(key), 1 + TRIES))
        except (HarnessError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            self._reasons[key] = f"no packet could be made of what it asks for ({type(error).__name__}: {error})"
        _, wrong = self._writer.read([ScenarioDraft(f"packet {number}", one.sends) for number, one in enumerate(found)])
        if wrong and len(wrong) == len(found):
            self._reasons[key] = f"no packet could be made of what it asks for: {wrong[0]}"
        return [one for number, one in enumerate(found) if number not in wrong]

    def measure(self, send: Measure, tell: Tell) -> None:
        """Send the first packet for each rule, then others for those that none has met."""
        met: set[Key] = set()
        known: dict[str, int | None] = {}
        for turn in range(1 + TRIES):
            waiting: dict[str, Candidate] = {}
            for target in self._targets:
                for candidate in self.candidates[target.key][turn : turn + 1]:
                    if target.key not in met and repr(candidate.sends) not in known:
                        waiting.setdefault(repr(candidate.sends), candidate)
            known |= self._sent(waiting, send, tell)
            for target in self._targets:
                for candidate in self.candidates[target.key][turn : turn + 1]:
                    if target.key not in met and (number := known.get(repr(candidate.sends))) is not None:
                        self._tried.setdefault(target.key, []).append(number)
            met = {key for one in self._measured for key in one.met}

    def _sent(self, waiting: Mapping[str, Candidate], send: Measure, tell: Tell) -> dict[str, int | None]:
        """The numbers of the measurements of packets; None for those that could not be measured."""
        found: dict[str, int | None] = dict.fromkeys(waiting)
        if not waiting:
            return found
        tell(f"sending {len(waiting)} packets")
        names = {f"packet {number}": text for number, text in enumerate(waiting)}
        rules: tuple[Rule, ...] = ()
        done = 0

        def heard(seen: Seen) -> None:
            nonlocal rules, done
            rules = seen.rules or rules
            done += 1
            if done % REPORTED == 0 and done < len(waiting):
                tell(f"  {done} of {len(waiting)}")
            text = names.get(seen.name)
            if text is None:
                return
            if seen.error or not seen.sent:
                self._refuse(text, seen.error or "nothing was observed of its packet")
                return
            found[text] = len(self._measured)
            self._measured.append(MeasuredPackets(waiting[text].sends, seen.sent, rules, seen.kernel))

        send([ScenarioDraft(name, waiting[text].sends) for name, text in names.items()], heard)
        return found

    def _refuse(self, packet: str, why: str) -> None:
        for key, candidates in self.candidates.items():
            if any(repr(one.sends) == packet for one in candidates):
                self._reasons.setdefault(key, why)

    def scenarios(self, *, measured: bool) -> dict[Key, ScenarioDraft]:
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
        cases, refused = self._writer.read(drafts)
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
            return self._measured[numbers[0]].missed()
        return why_none(self._device, target.key)


def _once(drafts: Iterable[ScenarioDraft]) -> list[ScenarioDraft]:
    """``drafts``, each once; those of rules that send the same are one."""
    found: dict[str, list[ScenarioDraft]] = {}
    for one in drafts:
        found.setdefault(repr(one.sends), []).append(one)
    return [_named(list({id(one): one for one in group}.values())) for group in found.values()]


def _named(group: Sequence[ScenarioDraft]) -> ScenarioDraft:
    """One for several that send the same and expect nothing yet."""
    return group[0]._replace(name=joined([one.name for one in group]))


@contextmanager
def _session(ruleset: Path, chosen: lab.ChosenLab, kernel: str) -> Iterator[Measure]:
    """What measures scenarios, in a project of their own: the user's settings are for the user's scenarios."""
    with tempfile.TemporaryDirectory(prefix="nft-harness-init-") as folder:
        project = find([ruleset])
        allowed = "\n  ".join(shlex.quote(str(one)) for one in (project.root, *project.allowed))
        Path(folder, "pytest.ini").write_text(f"[pytest]\n{ALLOW} =\n  {allowed}\n")
        draft = Path(folder, "scenarios", "draft.yaml")
        draft.parent.mkdir()
        with Session.open(kernel) as session:
            yield lambda drafts, heard: session.measure(
                draft, file.head(ruleset, draft, chosen) + file.body(drafts, ()), heard
            )
