"""Which of the packets that were measured become scenarios, and what these expect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from harness.errors import BrokenMeasurement
from harness.generate.file import ScenarioDraft
from harness.generate.targets import Target, joined
from harness.model.observation import Place, Rule, Step
from harness.model.result import PacketResult
from harness.recording import expectation
from harness.recording.chance import matches_by
from harness.recording.naming import name_of
from harness.recording.sample import NotRecordableError, Sample
from harness.ruleset.listing import ANONYMOUS

SHOWN: Final = 6
"""Rules that a sentence lists."""


class MeasuredPackets(NamedTuple):
    """Packets that were sent one after the other, and what was observed of each."""

    sends: tuple[dict[str, Any], ...]
    sent: tuple[PacketResult, ...]
    rules: tuple[Rule, ...]
    kernel: str
    blocks: Mapping[str, str] = {}
    """What the chains of blocks, ``jump { … }``, are called where the targets come from, see :func:`blocks`."""

    @property
    def met(self) -> dict[Place, int]:
        """The rules and policies that the last packet met, with where on its way it did first."""
        found: dict[Place, int] = {}
        for at, step in enumerate(_steps(self.sent[-1]) if self.sent else ()):
            chain = self.blocks.get(step.chain, step.chain)
            found.setdefault((step.family, step.table, chain, step.rule.handle if step.rule else 0), at)
        return found

    @property
    def beginnings(self) -> Iterator[MeasuredPackets]:
        """The first packet alone, the first two, and so on, without all."""
        for number in range(1, len(self.sends)):
            sent = tuple(one for one in self.sent if one.action < number)
            yield self._replace(sends=self.sends[:number], sent=sent)

    def missed(self) -> str:
        """What the last packet met, for a target that it should have met."""
        names = dict.fromkeys(str(name_of(one, self.rules)) for one in _steps(self.sent[-1]))
        words = ", ".join([*list(names)[:SHOWN], *(["…"] if len(names) > SHOWN else [])]) or "no rule and no policy"
        return f"the packet tried ({self.sent[-1].summary}) met {words}"

    def expected(self) -> dict[int, dict[str, object]]:
        """What to expect of each packet. Raises :class:`NotRecordableError`."""
        expected: dict[int, dict[str, object]] = {}
        for one in self.sent:
            try:
                values: dict[str, object] = dict(
                    expectation.whole([Sample(sent=one, rules=self.rules, where=self.kernel)])
                )
            except BrokenMeasurement as broken:
                raise NotRecordableError(str(broken)) from None
            if one is not self.sent[-1] and "verdict" in values:  # it only sets the stage
                values = {key: values[key] for key in ("verdict", "delivered") if key in values}
            expected[one.action] = values
        return expected


def blocks(targets: Iterable[Target], rules: Iterable[Rule]) -> dict[str, str]:
    """The names that chains of blocks have among ``targets``, by those that they have among ``rules``.

    The kernel numbers them anew whenever the ruleset is loaded (nf_tables_addchain() in net/netfilter/nf_tables_api.c),
    in the same order.
    """

    def found(chains: Iterable[str]) -> list[str]:
        return sorted({one for one in chains if ANONYMOUS.match(one)}, key=lambda one: int(ANONYMOUS.sub(r"\1", one)))

    ours, theirs = found(one.key[2] for one in targets), found(rule.chain for rule in rules)
    return dict(zip(theirs, ours, strict=True)) if len(ours) == len(theirs) else {}


def _steps(sent: PacketResult) -> list[Step]:
    """The rules and policies that a packet met in the device."""
    return [one for one in sent.seen.steps if one.host == sent.observation.device and one.kind != "return"]


def drafts(
    targets: Sequence[Target],
    measured: Sequence[MeasuredPackets],
    tried: Mapping[Place, Sequence[int]],
    reasons: dict[Place, str],
) -> dict[Place, ScenarioDraft]:
    """A scenario for each of ``targets`` that a packet met; ``reasons`` gets why what was met could not be recorded.

    ``tried`` are the numbers of the packets that were made for a target: the first of them that met it is taken, else
    any other that did. Targets that the same packets meet get the same scenario.
    """
    beginnings = [(number, one) for number, whole in enumerate(measured) for one in whole.beginnings]
    first = dict(enumerate(measured)) | {len(measured) + at: one for at, (_, one) in enumerate(beginnings)}
    met = {number: one.met for number, one in first.items()}
    by_key: dict[Place, list[int]] = {}
    for number, keys in met.items():
        for key in keys:
            by_key.setdefault(key, []).append(number)
    by_chance = _by_chance(measured)
    expected: dict[int, dict[int, dict[str, object]] | str] = {}
    chosen: dict[int, list[Target]] = {}
    reasons |= {key: f"{cause} decides whether it matches" for key, cause in by_chance.items()}
    for target in (one for one in targets if one.key not in by_chance):
        own = [number for number in tried.get(target.key, ()) if target.key in met[number]]
        for number in dict.fromkeys([*own, *by_key.get(target.key, ())]):
            if number not in expected:
                try:
                    expected[number] = first[number].expected()
                except NotRecordableError as refused:
                    expected[number] = str(refused)
            if isinstance(values := expected[number], str):
                reasons[target.key] = values
                continue
            chosen.setdefault(number, []).append(target)
            break
    found: dict[Place, ScenarioDraft] = {}
    for number, about in chosen.items():
        values = expected[number]
        assert not isinstance(values, str)
        draft = _draft(first[number], met[number], values, about)
        found |= dict.fromkeys((one.key for one in about), draft)
    return found


def _by_chance(measured: Sequence[MeasuredPackets]) -> dict[Place, str]:
    """The rules of which chance or the time decides whether they match; with which of them does."""
    rules = {(rule, one.blocks.get(rule.chain, rule.chain)) for one in measured for rule in one.rules}
    return {
        (rule.family, rule.table, chain, rule.handle): cause for rule, chain in rules if (cause := matches_by(rule))
    }


def _draft(
    packets: MeasuredPackets,
    met: Mapping[Place, int],
    expected: Mapping[int, dict[str, object]],
    about: Sequence[Target],
) -> ScenarioDraft:
    """The scenario of ``packets`` about several of what they ``met``: the one that decides, and all before it."""
    steps = _steps(packets.sent[-1])
    places = sorted(met[one.key] for one in about)
    names = {at: name_of(steps[at], packets.rules) for at in places}
    last = packets.sent[-1]
    values = {key: value for key, value in expected[last.action].items() if key != "rules"}
    decided = [at for at in places if any(_same(steps[at], one) for one in last.decided)]
    if decided:
        values["rule"] = names[decided[-1]]
    if not decided or len(places) > 1:
        values = _with_rules(values, [names[at] for at in places])
    return ScenarioDraft(joined([one.title for one in about]), packets.sends, {**expected, last.action: values}, names)


def _same(one: Step, other: Step) -> bool:
    return (one.chain_path, one.rule) == (other.chain_path, other.rule)


def _with_rules(values: Mapping[str, object], rules: list[str | int]) -> dict[str, object]:
    """``values`` and ``rules``, behind the rule that decides."""
    found: dict[str, object] = {}
    for key, value in values.items():
        found[key] = value
        if key == "rule":
            found["rules"] = rules
    return found if "rules" in found else {**values, "rules": rules}
