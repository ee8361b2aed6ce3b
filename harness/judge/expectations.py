"""One packet against one ``expect``: everything in which they differ, at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from harness.errors import BrokenMeasurement, Unsupported
from harness.judge import flow, functions
from harness.judge.evidence import Comparison, Evidence, Found
from harness.judge.functions import At, require_traced
from harness.judge.sees import describe_sees, wanted_fields
from harness.judge.unmet import describe_unmet
from harness.model.fields import Keys, alternatives
from harness.model.mismatch import Mismatch
from harness.model.observation import Loss, Observation, ObservedPacket, Rule, Verdict
from harness.model.problem import one_of
from harness.model.result import Policy
from harness.nft_syntax import element
from harness.packets import icmp
from harness.packets.headers import fields, summarise
from harness.packets.spec import Sees
from harness.reading.decision import REFUSED, UNDECIDED, arrivals, outcome
from harness.reading.path import LOGS, hops_on
from harness.reading.rules import host_of, is_rule_on
from harness.reading.words import against_full, describe_loss, describe_step, loss_remedy
from harness.scenario.models.expect import Delivered, Dropped, Exactly, Expect

BY_FUNCTION = ("path", "layers", "route", "log")
"""Expectations that are not met where a function was not seen."""
FOREIGN = "xt target"
"""In the text of a rule that iptables-nft made."""


def judge(
    expect: Expect,
    observation: Observation,
    packet: ObservedPacket,
    *,
    at: At,
    rules: Sequence[Rule] = (),
    policies: Sequence[Policy] = (),
) -> tuple[Mismatch, ...]:
    """Return everything in which ``packet`` differs from ``expect``; nothing when it passed.

    ``path``, ``layers`` and ``never`` look at the hops on the device under test; an entry of
    ``path`` or ``never`` that names a ``host`` looks there instead. ``rules`` and ``policies`` (base chains) are those
    that the device under test has loaded, to say why a rule was not met.

    Raises :class:`~harness.errors.BrokenMeasurement` when events were lost or two oracles disagree,
    :class:`~harness.errors.ScenarioError` for a function that this kernel cannot trace, and
    :class:`~harness.errors.Unsupported` when functions are expected and none were traced, or when what
    was traced cannot decide.
    """
    refuse_loss(observation.loss, observation.engine)
    if observation.whole:
        require_traced(expect, observation, at)
    evidence = Evidence(expect, outcome(packet, observation.device), observation, packet, rules, policies)
    mismatches = tuple(
        Mismatch(keys=keys, position=at(keys), expected=expected, seen=found, note=note)
        for compare in COMPARISONS.values()
        for keys, expected, found, note in compare(evidence)
    )
    return mismatches if observation.whole else _beyond_doubt(mismatches, evidence, at)


def refuse_loss(loss: Loss, engine: str) -> None:
    """Raise :class:`~harness.errors.BrokenMeasurement` if anything was lost: then no verdict can be trusted.

    ``engine`` is what traced functions; what can be done about the loss depends on it.
    """
    if loss.total:
        sentence = f"lost {describe_loss(loss)}: the ruleset cannot be judged"
        raise BrokenMeasurement(sentence, remedy=loss_remedy(loss, against_full(engine)))


def _beyond_doubt(mismatches: tuple[Mismatch, ...], evidence: Evidence, at: At) -> tuple[Mismatch, ...]:
    """Return the mismatches that hold whatever functions were met and not seen.

    Raises :class:`~harness.errors.Unsupported` when there is none, but an expectation that those may decide.
    """
    doubtful = _decided_by_functions(mismatches, evidence)
    certain = tuple(one for one in mismatches if one.keys[1] not in doubtful or one.keys[1] == "never")
    differing = {one.keys[1] for one in mismatches}
    left = [key for key in sorted(doubtful) if _asks(evidence.expect, key) or key in differing]
    if certain or not left:
        return certain
    raise Unsupported(
        f"{at(('expect', left[0]))}: the engine {evidence.observation.engine} sees part of the functions only, "
        f"which leaves open {one_of(left)}",
        remedy="use a kernel with probes on functions: --nft-tracer auto",
    )


def _decided_by_functions(mismatches: tuple[Mismatch, ...], evidence: Evidence) -> set[str]:
    """The keys of ``expect`` whose outcome functions that were met and not seen may change."""
    expect, seen, packet, device = evidence.expect, evidence.seen, evidence.packet, evidence.device
    doubtful = {"never"}
    doubtful |= {"path"} if isinstance(expect.path, Exactly) else set()
    doubtful |= {key for key in BY_FUNCTION if any(mismatch.keys[1] == key for mismatch in mismatches)}
    if not packet.drop and seen.verdict not in REFUSED and device not in arrivals(packet):
        # That the device kept it would show in a function.
        wanted = evidence.expected_host
        if wanted == device or (wanted == "nowhere" and not arrivals(packet)):
            doubtful.add("delivered")
        if seen.verdict is Verdict.ACCEPT and not arrivals(packet):
            doubtful |= {"verdict", "delivered"}
    if seen.deciding and seen.verdict is Verdict.DROP and (rule := seen.deciding[-1].rule) and FOREIGN in rule.text:
        doubtful |= {"verdict", "with"}  # a REJECT of iptables shows in a function
    return doubtful


def _asks(expect: Expect, key: str) -> bool:
    return getattr(expect, {"with": "with_"}.get(key, key)) is not None


NOWHERE = "if that is intended, expect `delivered: nowhere`"


def _verdict(evidence: Evidence) -> Found:
    expect, seen, packet = evidence.expect, evidence.seen, evidence.packet
    keys: Keys = ("expect", "verdict")
    lost = seen.verdict is Verdict.ACCEPT and expect.delivered is None and not arrivals(packet)
    if expect.verdict is None:
        # Who names the rule that accepts would not look for the packet either.
        if lost and (expect.rule is not None or expect.rules):
            yield ("expect", "delivered"), "an accepted packet arrives", "it arrived nowhere", NOWHERE
    elif str(seen.verdict or UNDECIDED) != expect.verdict:
        note = ""
        if seen.verdict is None:
            note = "no base chain of the ruleset saw it"
        elif expect.verdict in REFUSED and seen.verdict is Verdict.ACCEPT and packet.drop:
            note = "it was dropped, but by the kernel and not by the ruleset"
        elif (expect.verdict, seen.verdict) == ("drop", Verdict.REJECT):
            note = "the sender got an answer; a drop is silent"
        elif (expect.verdict, seen.verdict) == ("reject", Verdict.DROP):
            note = "dropped silently: the sender got no answer"
        yield keys, expect.verdict, str(seen), note
    elif lost:
        yield keys, "accept, and the packet arrives", "accept, but it arrived nowhere", NOWHERE


def _with(evidence: Evidence) -> Found:
    expect, seen = evidence.expect, evidence.seen
    if expect.with_ is None or (expect.verdict and seen.verdict is not Verdict.REJECT):
        return
    kind, _, code = " ".join(expect.with_.split()).replace(" type ", " ").partition(" ")
    answers = {f"{kind} {code}".strip()}
    if kind == "icmpx" and code in icmp.CODES_X:
        answers |= {f"icmp {icmp.CODES_X[code][0]}", f"icmpv6 {icmp.CODES_X[code][1]}"}
    if seen.with_ not in answers:
        yield ("expect", "with"), expect.with_, seen.with_ or f"{seen}, without an answer", ""


def _rule(evidence: Evidence) -> Found:
    wanted, seen, packet, device = evidence.expect.rule, evidence.seen, evidence.packet, evidence.device
    if wanted is None:
        return
    host = host_of(wanted, dict.fromkeys(step.host for step in packet.steps), device)
    if host != device:
        seen = outcome(packet, host)
    if any(is_rule_on(wanted, step, device) for step in seen.deciding):
        return
    note = ""
    for step in packet.steps:
        if is_rule_on(wanted, step, device):
            said = f"{step.verdict} {step.target}".strip()
            note = f"it matched but did not decide: its verdict was {said}"
    if not note and host == device:
        note = _why_unmet(wanted, evidence)
    decided = "; ".join(describe_step(step) for step in seen.deciding)
    yield ("expect", "rule"), str(wanted), decided or "no rule and no policy: no base chain saw it", note


def _rules(evidence: Evidence) -> Found:
    packet, device = evidence.packet, evidence.device
    rest = iter(packet.steps)
    for index, name in enumerate(evidence.expect.rules or ()):
        if not any(is_rule_on(name, step, device) for step in rest):  # consumes up to and including the step
            host = host_of(name, dict.fromkeys(step.host for step in packet.steps), device)
            met = [step for step in packet.steps if step.host == host]
            seen = "; ".join(describe_step(step) for step in met) or "no rule and no policy"
            if any(is_rule_on(name, step, device) for step in met):
                note = "met earlier: the order differs"
            else:
                note = (_why_unmet(name, evidence) if host == device else "") or "not met"
            yield ("expect", "rules", index), str(name), seen, note
            return


def _why_unmet(wanted: str | int, evidence: Evidence) -> str:
    return describe_unmet(wanted, evidence.rules, evidence.packet, evidence.device, evidence.policies)


def _dropped(evidence: Evidence) -> Found:
    expect = evidence.expect
    if expect.dropped is None:
        return
    keys: Keys = ("expect", "dropped")
    wanted = Dropped.of(expect.dropped)
    host, drop = wanted.host or evidence.device, evidence.packet.drop
    if drop is None or drop.host != host:
        words = " in ".join(filter(None, (wanted.reason, wanted.function)))
        yield keys, f"{words} on {host}", f"{drop.reason} on {drop.host}" if drop else "not dropped", ""
        return
    for key, found in (("reason", drop.reason), ("function", drop.function)):
        value: str | None = getattr(wanted, key)
        names = [name.strip().removeprefix("SKB_DROP_REASON_") for name in (value or found).split("|")]
        if found not in names:
            yield (*keys, key) if wanted is expect.dropped else keys, str(value), found, ""


def _delivered(evidence: Evidence) -> Found:
    expect, packet = evidence.expect, evidence.packet
    if expect.delivered is None:
        return
    wanted = Delivered.of(expect.delivered)
    keys: Keys = ("expect", "delivered")
    if wanted is expect.delivered:
        keys = (*keys, "to")
    arrived = arrivals(packet)
    if wanted.to == "nowhere":
        if arrived:
            yield keys, "nowhere", ", ".join(arrived), ""
        return
    hosts = alternatives(wanted.to)
    if not any(host in arrived for host in hosts):
        yield keys, wanted.to, ", ".join(arrived) or "nowhere", ""
    elif wanted.sees:
        frames = [one.frame for one in packet.deliveries if one.host in hosts and one.frame]
        yield from _sees(wanted.sees, frames, "expect", "delivered", "sees")


def _reply(evidence: Evidence) -> Found:
    wanted, observation = evidence.expect.reply, evidence.observation
    if wanted is None:
        return
    keys: Keys = ("expect", "reply")
    sender = observation.flow.host if observation.flow else evidence.packet.sender
    frames = [one.frame for one in observation.replies if one.host == sender]
    if wanted == "none":
        if frames:
            yield keys, "none", "; ".join(map(summarise, frames)), ""
    elif not frames:
        yield keys, describe_sees(wanted), "none", f"{sender} got no answer"
    else:
        yield from _sees(wanted, frames, *keys)


def _sees(sees: Sees, frames: Sequence[bytes], *keys: str | int) -> Found:
    """Compare with the frame that fits best: one that fits in all is enough."""
    wanted = wanted_fields(sees)
    best: dict[Keys, str] | None = None
    for frame in frames:
        found = fields(frame)
        differing = {key: str(found.get(one.field, "nothing")) for key, one in wanted.items() if not one.fits(found)}
        if best is None or len(differing) < len(best):
            best = differing
    if best is None:
        best = dict.fromkeys(wanted, "not captured there")
    for key, value in best.items():
        yield (*keys, *key), str(wanted[key].value), value, ""


def _counters(evidence: Evidence) -> Found:
    counted = evidence.observation.counters
    for name, count in (evidence.expect.counters or {}).items():
        if counted.get(name) != count:
            yield ("expect", "counters", name), str(count), str(counted.get(name, "not counted")), ""


def _set_elements(evidence: Evidence) -> Found:
    for name, elements in (evidence.expect.elements or {}).items():
        wanted, found = _elements(elements), set(evidence.observation.elements.get(name, ()))
        if wanted != found:
            parts = [f"{word} {', '.join(sorted(more))}" for word, more in _differences(wanted, found) if more]
            seen = ", ".join(sorted(found)) or "no element"
            yield ("expect", "elements", name), ", ".join(sorted(wanted)) or "no element", seen, "; ".join(parts)


def same_elements(wanted: Mapping[str, Iterable[str | int]], found: Mapping[str, Iterable[str]]) -> bool:
    """Whether every set or map has the elements wanted, in any order, as nft or its JSON writes them."""
    return all(_elements(elements) == set(found.get(name, ())) for name, elements in wanted.items())


def _elements(written: Iterable[str | int]) -> set[str]:
    return {element(str(one)) for one in written}


def _differences(wanted: set[str], found: set[str]) -> tuple[tuple[str, set[str]], ...]:
    return ("lacks", wanted - found), ("has in addition", found - wanted)


def _mark(evidence: Evidence) -> Found:
    wanted = evidence.expect.mark
    if wanted is None:
        return
    marks = [step.mark for step in evidence.packet.steps if step.host == evidence.device]
    if not marks or marks[-1] != wanted:
        note = "it had that mark before" if wanted in marks else ""
        yield ("expect", "mark"), f"{wanted:#x}", f"{marks[-1]:#x}" if marks else "no chain saw the packet", note


# A prefix is quoted in nft's listing; what is in it stays as it was written.
_LOG = re.compile(r'(?<!\S)log\b[^"]*?\bprefix "(?P<prefix>[^"]*)"')


def _log(evidence: Evidence) -> Found:
    """A rule that was met has run its log statement; the call of that is seen where it can be traced."""
    wanted, observation, packet = evidence.expect.log, evidence.observation, evidence.packet
    if wanted is None:
        return
    device = observation.device
    rules = [step.rule for step in packet.steps if step.host == device and step.rule]
    prefixes = [found["prefix"] for rule in rules if (found := _LOG.search(rule.text))]
    called = LOGS not in observation.traced or any(hop.function == LOGS for hop in hops_on(packet, device))
    if wanted not in prefixes:
        note = "something was logged, by a rule whose later matches did not hold" if called and not prefixes else ""
        note = note if LOGS in observation.traced else ""
        yield ("expect", "log"), wanted, ", ".join(prefixes) or "no rule with a log prefix was met", note
    elif not called:
        yield ("expect", "log"), wanted, f"the rule was met, but not {LOGS}", ""


COMPARISONS: Mapping[str, Comparison] = {
    "flow": flow.compare_flow,
    "verdict": _verdict,
    "with": _with,
    "rule": _rule,
    "rules": _rules,
    "dropped": _dropped,
    "delivered": _delivered,
    "reply": _reply,
    "conntrack": flow.compare_conntrack,
    "connections": flow.compare_connections,
    "mark": _mark,
    "log": _log,
    "route": functions.compare_route,
    "counters": _counters,
    "elements": _set_elements,
    "layers": functions.compare_layers,
    "path": functions.compare_path,
    "never": functions.compare_never,
}
"""By key of ``expect``, in the order in which differences are reported."""
