"""The command ``nft-harness init``, top to bottom."""

from __future__ import annotations

import functools
import itertools
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import ending
from harness.errors import BrokenMeasurement, HarnessError
from harness.init import file, lab
from harness.init.facts import Facts, look
from harness.init.file import ScenarioDraft
from harness.init.packets import Candidate, SimulatedDevice
from harness.init.simulate import Key, SimulatedRuleset
from harness.model import result
from harness.model.observation import Rule, Step
from harness.project import ALLOW, FILES, Project, find
from harness.recording import expectation
from harness.recording.expectation import Sample
from harness.save import save
from harness.scenario.files import is_called_so
from harness.text import escape
from harness.vm import images, placement

TRIES = 3
"""Packets for a rule that the first one did not meet."""

Tell = Callable[[str], None]


class Target(NamedTuple):
    """A rule or a policy."""

    key: Key
    name: str
    """As scenarios name it."""
    title: str
    """Of its scenario; no other has it."""
    place: str
    """``edge.nft:18``; "" when it is not known."""


def run(ruleset: Path, output: Path | None, *, kernel: str, measure: bool, tell: Tell) -> int:
    """Write a scenario file for ``ruleset``; 0 when all is done, 1 when a rule is left without a packet.

    Raises :class:`~harness.errors.HarnessError` for a ruleset that cannot be loaded, and for a file that is there.
    """
    if not ruleset.is_file():
        raise HarnessError(f"{ruleset} is no file")
    output = output or Path("scenarios", f"{ruleset.stem}.yaml")
    project = find([output])
    if output.exists():
        raise HarnessError(f"{output} is there already", remedy="remove it, or name another with -o")
    if not is_called_so(output.absolute(), project):
        raise HarnessError(
            f"{output} is not called {' or '.join(project.patterns)}, so pytest would not take it",
            remedy=f"name another with -o, or set {FILES} in the project's pytest settings",
        )
    facts = look(ruleset, images.DEFAULT if kernel in (placement.AUTO, placement.HOST) else kernel)
    ruleset = _in_project(ruleset, output, project, tell)
    chosen = lab.choose(facts)
    tell(f"the lab: {chosen.described}")
    targets = list(_targets(facts))
    world = SimulatedDevice(SimulatedRuleset(facts), chosen.network)
    candidates = {one.key: list(itertools.islice(world.candidates(one.key), 1 + TRIES)) for one in targets}
    tell(f"packets for {sum(map(bool, candidates.values()))} of {len(targets)} rules and policies")
    reasons: dict[Key, str] = {}
    if measure:
        send = functools.partial(_ran, ruleset, chosen, kernel)
        scenarios = _measured(send, targets, candidates, reasons, tell)
    else:
        scenarios = {
            one.key: ScenarioDraft(one.title, found[0].sends) for one in targets if (found := candidates[one.key])
        }
    missed = [(one, reasons.get(one.key, _why(facts, one))) for one in targets if one.key not in scenarios]
    comments = [escape(f"{target.place or 'not in a file'}: {target.name}: {why}") for target, why in missed]
    for comment in comments:
        tell(f"no scenario for {comment}")
    text = file.head(ruleset, output, chosen) + file.body(
        merged([scenarios[one.key] for one in targets if one.key in scenarios]), comments
    )
    if not scenarios:
        raise HarnessError(
            "no packet was found that meets any of the rules or policies", remedy="write the file yourself"
        )
    try:
        save(output, text)
    except OSError as error:
        raise HarnessError(f"{output} can't be written: {error.strerror}") from None
    tell(f"{output}: scenarios for {len(scenarios)} of {len(targets)} rules and policies")
    return 1 if missed else 0


def _in_project(ruleset: Path, output: Path, project: Project, tell: Tell) -> Path:
    """A ruleset that scenarios may name: itself, or a copy when it lies elsewhere."""
    full = ruleset.resolve()
    if project.allows(full):
        return ruleset
    if re.search(r'^\s*include\s+"(?!/)', full.read_text(errors="replace"), re.MULTILINE):
        remedy = "copy it there, with what it includes"
        raise HarnessError(f"{ruleset} lies outside of the project, and includes other files", remedy=remedy)
    copy = output.parent / "rulesets" / (f"{ruleset.stem}.nft")
    if copy.exists():
        if copy.read_bytes() == full.read_bytes():
            return copy
        raise HarnessError(f"{ruleset} lies outside of the project, and {copy} is there already", remedy="remove it")
    try:
        save(copy, full.read_bytes())
    except OSError as error:
        raise HarnessError(f"{copy} can't be written: {error.strerror}") from None
    tell(f"{ruleset} lies outside of the project: copied to {copy}")
    return copy


def _targets(facts: Facts) -> Iterator[Target]:
    """Every rule, and behind those of a base chain its policy, in the order of nft's listing."""
    taken: set[str] = set()

    def title(words: str) -> str:
        words = words if len(words) <= 150 else f"{words[:149]}…"
        found = next(one for n in itertools.count(1) if (one := f"{words} ({n})" if n > 1 else words) not in taken)
        taken.add(found)
        return found

    chains = [chain.name for chain in facts.chains]
    for chain in facts.chains:
        here_is = chain.family, chain.table, chain.name
        here = " ".join(here_is)
        short = chain.name if chains.count(chain.name) == 1 else here
        for rule in facts.rules:
            if (rule.family, rule.table, rule.chain) == here_is:
                name = str(expectation.name_of_rule(rule, facts.rules))
                place = f"{rule.position.file}:{rule.position.line}" if rule.position else ""
                words = rule.comment or rule.written or rule.text
                yield Target((*here_is, rule.handle), name, title(f"{short}: {words}"), place)
        if chain.is_base:
            place = f"{chain.position.file}:{chain.position.line}" if chain.position else ""
            yield Target((*here_is, 0), f"{here} policy", title(f"{short}: policy {chain.policy}"), place)


def _measured(
    send: Callable[[Sequence[ScenarioDraft]], list[result.Result]],
    targets: Sequence[Target],
    candidates: Mapping[Key, list[Candidate]],
    reasons: dict[Key, str],
    tell: Tell,
) -> dict[Key, ScenarioDraft]:
    """The scenarios whose packets met their rules, with what was seen; ``reasons`` gets why the others did not."""
    found: dict[Key, ScenarioDraft] = {}
    for start, end in ((0, 1), (1, 1 + TRIES)):
        tries = {one: chosen for one in targets if one.key not in found and (chosen := candidates[one.key][start:end])}
        if not tries:
            break
        drafts = {
            f"{one.title} #{number}": (one, ScenarioDraft(f"{one.title} #{number}", candidate.sends))
            for one, chosen in tries.items()
            for number, candidate in enumerate(chosen)
        }
        tell(f"sending {len(drafts)} packets")
        for seen in send([draft for _, draft in drafts.values()]):
            one, draft = drafts[seen.name]
            if one.key not in found:
                expected, about = _expected(one, seen, reasons)
                if expected:
                    found[one.key] = ScenarioDraft(one.title, draft.sends, expected, about)
    return found


def merged(scenarios: Sequence[ScenarioDraft]) -> list[ScenarioDraft]:
    """One scenario for all that send the same: its ``rules`` are what each of them is about."""
    groups: dict[str, list[ScenarioDraft]] = {}
    for one in scenarios:
        groups.setdefault(repr(one.sends), []).append(one)
    return [_one_of(group) for group in groups.values()]


def _one_of(group: Sequence[ScenarioDraft]) -> ScenarioDraft:
    first, *others = group
    if not others:
        return first
    names = "; ".join(one.name for one in group)
    name = names if len(names) <= 150 else f"{first.name}; and {len(others)} more"
    if not first.expected:
        return first._replace(name=name)
    about = {at: rule for one in group for at, rule in one.about.items()}
    decided = max(group, key=lambda one: max(one.about))  # what was said last
    expected = dict(decided.expected)
    number = len(decided.sends) - 1
    last = {key: value for key, value in expected[number].items() if key != "rules"}
    expected[number] = _with_rules(last, [about[at] for at in sorted(about)])
    return ScenarioDraft(name, first.sends, expected, about)


def _with_rules(values: Mapping[str, object], rules: list[str | int]) -> dict[str, object]:
    """``values`` and ``rules``, behind the rule that decides."""
    told: dict[str, object] = {}
    for key, value in values.items():
        told[key] = value
        if key == "rule":
            told["rules"] = rules
    return told if "rules" in told else {**values, "rules": rules}


def _expected(
    target: Target, seen: result.Result, reasons: dict[Key, str]
) -> tuple[dict[int, dict[str, object]], dict[int, str | int]]:
    """What to expect of each step, and where ``target`` was met; nothing when the last packet did not meet it."""
    if seen.outcome in ("error", "skipped") or not seen.sent:
        reasons.setdefault(target.key, seen.message.splitlines()[0] if seen.message else seen.outcome)
        return {}, {}
    rules = seen.ruleset.rules if seen.ruleset else ()
    last = seen.sent[-1]
    met = [one for one in last.seen.steps if one.host == last.observation.device and one.kind != "return"]
    keys = [(one.family, one.table, one.chain, one.rule.handle if one.rule else 0) for one in met]
    if target.key not in keys:
        names = dict.fromkeys(str(expectation.name_of(one, rules)) for one in met)
        words = ", ".join(names) or "no rule and no policy"
        reasons[target.key] = f"the packet tried ({last.summary}) met {words}"
        return {}, {}
    expected: dict[int, dict[str, object]] = {}
    for sent in seen.sent:
        try:
            values: dict[str, object] = dict(expectation.whole([Sample(sent=sent, rules=rules, where=seen.kernel)]))
        except (expectation.NotRecordableError, BrokenMeasurement) as refused:
            reasons[target.key] = str(refused)
            return {}, {}
        if sent is last:
            values = _about(met[keys.index(target.key)], last, rules, values)
        elif "verdict" in values:  # it only sets the stage
            values = {key: values[key] for key in ("verdict", "delivered")}
        expected[sent.action] = values
    at = keys.index(target.key)
    return expected, {at: expectation.name_of(met[at], rules)}


def _about(
    step: Step, sent: result.PacketResult, rules: Sequence[Rule], values: Mapping[str, object]
) -> dict[str, object]:
    """``values`` with the rule that this is about: the deciding one, or one on the way."""
    name = expectation.name_of(step, rules)
    if any((one.chain_path, one.rule) == (step.chain_path, step.rule) for one in sent.decided):
        return {**values, "rule": name}
    return _with_rules(values, [name])


def _ran(ruleset: Path, chosen: lab.ChosenLab, kernel: str, drafts: Sequence[ScenarioDraft]) -> list[result.Result]:
    """What pytest saw of ``drafts``, in a project of their own: the user's settings are for the user's scenarios."""
    with tempfile.TemporaryDirectory(prefix="nft-harness-init-") as folder:
        project = find([ruleset])
        allowed = "\n  ".join(shlex.quote(str(one)) for one in (project.root, *project.allowed))
        Path(folder, "pytest.ini").write_text(f"[pytest]\n{ALLOW} =\n  {allowed}\n")
        draft = Path(folder, "scenarios", "draft.yaml")
        draft.parent.mkdir()
        draft.write_text(file.head(ruleset, draft, chosen) + file.body(drafts, ()))
        results = Path(folder, "results")
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "pytest", str(draft)]
        command += ["--nft-record", "--nft-results", str(results)]
        command += ["--nft-kernel", kernel, "-q", "-p", "no:cacheprovider"]
        ending.check()
        ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if not results.is_dir():
            raise HarnessError(f"pytest did not run:\n{ran.stdout}{ran.stderr}".rstrip())
        return result.load([results])


def _why(facts: Facts, target: Target) -> str:
    """Why no packet was made for a rule or policy."""
    ruleset = SimulatedRuleset(facts)
    chain = ruleset.chains[target.key[:3]]
    if not chain.hook and not any(True for _ in ruleset.callers(chain)):
        return f"no rule leads into chain {chain.name}"
    rule = next((one for one in chain.rules if one.key == target.key), None)
    if rule and (empty := next(ruleset.empty(rule), "")):
        return f"set {empty} is empty when the ruleset has just been loaded"
    if chain.hook in ("output", "postrouting", "egress") and chain.family in ("arp", "bridge"):
        return f"a lab sends nothing through the {chain.hook} hook of family {chain.family}"
    return "no packet was found: other rules come before it, or it asks for what is not understood"
