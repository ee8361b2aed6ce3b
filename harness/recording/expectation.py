"""What to expect of a packet, from what was observed of it: the inverse of judging.

Several samples are of the same packet: on several kernels, or in the scenarios that ``each`` and
``matrix`` make of one. What is recorded holds for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from harness.errors import Position
from harness.judge.expectations import judge
from harness.judge.sees import PROTOCOLS, wanted_fields
from harness.model.fields import Keys
from harness.model.mismatch import Mismatch
from harness.packets import icmp
from harness.packets.headers import fields
from harness.packets.spec import Sees
from harness.reading.decision import REFUSED, UNDECIDED, arrivals
from harness.reading.path import functions, routed_to
from harness.reading.rules import is_rule
from harness.recording import chance
from harness.recording.edit import KeptEntry
from harness.recording.edit import Value as Written
from harness.recording.landmarks import common, common_path, relayered, repathed, telling_layers
from harness.recording.naming import name_of
from harness.recording.sample import KeyUpdate, NotRecordableError, Sample
from harness.scenario.models.expect import Delivered, Dropped, Exactly, Expect

NAT_FIELDS = ("src", "dst", "sport", "dport")

_Recorder = Callable[[Expect, Mismatch, Sequence[Sample]], Iterator[KeyUpdate]]
"""Yields what follows from one mismatch."""


def whole(measurements: Sequence[Sample]) -> dict[str, Written]:
    """Everything worth expecting.

    Raises :class:`NotRecordableError` where the samples differ, or the next run may observe something else.
    """
    for seen in measurements:
        chance.refuse(seen)
    parts: dict[str, Callable[[Sample], Written | None]] = {
        "flow": _flow,
        "verdict": _verdict,
        "with": lambda seen: seen.sent.with_ or None,
        "rule": _rule,
        "delivered": _delivered,
    }
    written = {key: value for key, part in parts.items() if (value := _agreed(key, part, measurements)) is not None}
    if all(reasons := [_given_up(seen) for seen in measurements]):  # kernels differ in words only
        written["dropped"] = " | ".join(dict.fromkeys(filter(None, reasons)))
    if all(seen.sent.observation.whole for seen in measurements):  # stacks may show less the next time
        if passed := common([telling_layers(seen) for seen in measurements]):
            written["layers"] = list(passed)
        if path := common_path(measurements):
            written["path"] = list(path)
    return written


def moved(expect: Expect, measurements: Sequence[Sample]) -> tuple[KeyUpdate, ...]:
    """The changes after which ``expect`` holds for all ``measurements``; keys that hold are left alone.

    Raises :class:`NotRecordableError` where the samples differ in what would have to be written, or the next run may
    observe something else.
    """
    mismatches = [mismatch for seen in measurements for mismatch in judged(expect, seen)]
    for seen in measurements if mismatches else ():
        chance.refuse(seen)
    changes: dict[Keys, KeyUpdate] = {}
    for mismatch in mismatches:
        for change in CHANGES[str(mismatch.keys[1])](expect, mismatch, measurements):
            changes.setdefault(change.keys, change)
    if (verdict := changes.get(("verdict",))) and expect.with_ is not None and verdict.value != "reject":
        changes[("with",)] = KeyUpdate(keys=("with",), value=None)
    return tuple(changes.values())


def judged(expect: Expect, seen: Sample) -> tuple[Mismatch, ...]:
    """Everything in which ``seen`` differs from ``expect``."""
    # Stored observations lack the names of all functions; the worker has refused what cannot be traced.
    names = {*functions(expect), "nft_do_chain"}
    observation = msgspec.structs.replace(seen.sent.observation, traced=frozenset(names))
    return judge(expect, observation, seen.sent.seen, at=lambda _: Position(""))


# --- one function for each key of `expect` ------------------------------------------------------


def _value(part: Callable[[Sample], Written | None]) -> _Recorder:
    """For a key that has one value, the same in all measurements."""

    def record(_: Expect, mismatch: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
        key = str(mismatch.keys[1])
        yield KeyUpdate(keys=(key,), value=_agreed(key, part, measurements))

    return record


def _not_recorded(_: Expect, mismatch: Mismatch, __: Sequence[Sample]) -> Iterator[KeyUpdate]:
    raise NotRecordableError(f"`{mismatch.keys[1]}` is not what it was: {mismatch.seen}")


def _changed_verdict(expect: Expect, _: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    verdict = _agreed("verdict", lambda seen: str(seen.sent.verdict or UNDECIDED), measurements)
    if expect.verdict == verdict:  # right, but it says nothing of an accepted packet that arrives nowhere
        yield KeyUpdate(keys=("delivered",), value="nowhere", new=True)
    else:
        yield KeyUpdate(keys=("verdict",), value=verdict)


def _changed_rules(expect: Expect, _: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    yield KeyUpdate(keys=("rules",), value=_agreed("rules", lambda seen: _rules(expect, seen), measurements))


def _changed_counter(_: Expect, mismatch: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    name = str(mismatch.keys[2])
    counted = _agreed(f"counter {name}", lambda seen: seen.sent.observation.counters.get(name), measurements)
    yield KeyUpdate(keys=("counters", name), value=counted)


def _changed_elements(_: Expect, mismatch: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    name = str(mismatch.keys[2])
    found = _agreed(f"set {name}", lambda seen: sorted(seen.sent.observation.elements.get(name, ())), measurements)
    yield KeyUpdate(keys=("elements", name), value=found)


def _changed_path(expect: Expect, _: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    if isinstance(expect.path, Exactly):
        raise NotRecordableError("a path given as `exactly` is not rewritten; edit it yourself")
    yield repathed(expect.path or [], measurements)


def _changed_flow(_: Expect, mismatch: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    rest = mismatch.keys[2:]
    name = str(rest[0]) if rest else "result"
    value = _agreed(f"flow {name}", lambda seen: getattr(seen.sent.observation.flow, name) or None, measurements)
    yield KeyUpdate(keys=("flow", *rest), value=value)


def _changed_never(expect: Expect, _: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    met = {int(m.keys[2]) for seen in measurements for m in judged(expect, seen) if m.keys[:2] == ("expect", "never")}
    kept = tuple(KeptEntry(at) for at in range(len(expect.never or ())) if at not in met)
    yield KeyUpdate(keys=("never",), value=kept or None)


def _agreed(what: str, part: Callable[[Sample], Written | None], measurements: Sequence[Sample]) -> Written | None:
    first, *others = ((part(seen), seen.where) for seen in measurements)
    for value, where in others:
        if value != first[0]:
            raise NotRecordableError(
                f"{what} is {first[0] or 'nothing'} in {first[1]}, and {value or 'nothing'} in {where}"
            )
    return first[0]


def _flow(seen: Sample) -> str | None:
    flow = seen.sent.observation.flow
    return flow.result if flow else None


def _mark(seen: Sample) -> int | None:
    """The mark when the device's ruleset last spoke; None where no chain did."""
    marks = [step.mark for step in seen.sent.seen.steps if step.host == seen.sent.observation.device]
    return marks[-1] if marks else None


def _route(seen: Sample) -> str | None:
    return routed_to(seen.sent.seen, seen.sent.observation.device) or None


def _verdict(seen: Sample) -> str | None:
    return str(seen.sent.verdict) if seen.sent.verdict else None


def _rule(seen: Sample) -> str | int | None:
    """The deciding rule; of several that accepted, the last rule, or else the policy of the main hook."""
    decided = seen.sent.decided
    ruled = [step for step in decided if step.rule]
    main = [step for step in decided if step.hook in ("input", "forward", "ingress")]
    step = (ruled or main or decided or (None,))[-1]
    return name_of(step, seen.rules) if step else None


def _rules(expect: Expect, seen: Sample) -> list[Written]:
    """Those of the expected rules that are met in order; all that were met, if none is."""
    met = [step for step in seen.sent.seen.steps if step.host == seen.sent.observation.device]
    names: list[Written] = []
    at = 0
    for name in expect.rules or ():
        hit = next((n for n in range(at, len(met)) if is_rule(name, met[n])), None)
        if hit is not None:
            names.append(name)
            at = hit + 1
    return names or [name_of(step, seen.rules) for step in met if step.kind != "return"]


def _delivered(seen: Sample) -> Written:
    """Where the packet arrived; and as what, where its addresses or ports are no longer those sent."""
    to = next(iter(arrivals(seen.sent.seen)), None)
    if to is None:
        return "nowhere"
    frames = [one.frame for one in seen.sent.seen.deliveries if one.host == to and one.frame]
    if not frames:
        return to
    before, after = fields(seen.sent.seen.frame), fields(frames[0])
    steady = [name for name in NAT_FIELDS if name in after and name not in chance.random_fields(seen)]
    changed = {name: after[name] for name in steady if after[name] != before.get(name)}
    return {"to": to, "sees": changed} if changed else to


def _changed_delivery(expect: Expect, mismatch: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    delivered = _agreed("delivered", _delivered, measurements)
    if expect.delivered is None:  # an accepted packet arrives nowhere, and nothing is said of that
        yield KeyUpdate(keys=("delivered",), value=delivered, new=True)
        return
    to = delivered["to"] if isinstance(delivered, dict) else delivered
    rest = mismatch.keys[2:]
    if rest[:1] != ("sees",):
        if isinstance(expect.delivered, Delivered) and to != "nowhere":
            yield KeyUpdate(keys=("delivered", "to"), value=to)
        elif isinstance(expect.delivered, Delivered):
            yield KeyUpdate(keys=("delivered",), value="nowhere")
        else:
            yield KeyUpdate(keys=("delivered",), value=to if expect.delivered != "nowhere" else delivered)
        return
    assert isinstance(expect.delivered, Delivered)
    assert expect.delivered.sees is not None
    wanted = expect.delivered.sees

    def frames(seen: Sample) -> list[bytes]:
        return [one.frame for one in seen.sent.seen.deliveries if one.host == to and one.frame]

    yield _field(wanted, ("delivered", "sees"), rest[1:], lambda seen: _best(wanted, frames(seen)), measurements)


def _changed_reply(expect: Expect, mismatch: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    def frames(seen: Sample) -> list[bytes]:
        return [one.frame for one in seen.sent.observation.replies if one.host == seen.sent.seen.sender]

    rest = mismatch.keys[2:]
    if rest and isinstance(expect.reply, Sees) and all(frames(seen) for seen in measurements):
        wanted = expect.reply
        yield _field(wanted, ("reply",), rest, lambda seen: _best(wanted, frames(seen)), measurements)
    else:
        reply = _agreed("reply", lambda seen: _answer(frames(seen)), measurements)
        yield KeyUpdate(keys=("reply",), value=reply)


def _best(sees: Sees, frames: Sequence[bytes]) -> bytes:
    """The frame that fits ``sees`` best, as the judge takes it."""
    wanted = wanted_fields(sees).values()
    return max(frames, key=lambda frame: sum(one.fits(fields(frame)) for one in wanted)) if frames else b""


def _field(
    sees: Sees,
    before: Keys,
    keys: Sequence[str | int],
    frame: Callable[[Sample], bytes],
    measurements: Sequence[Sample],
) -> KeyUpdate:
    """One field of what arrived; another protocol takes the place of all that was expected."""
    wanted = wanted_fields(sees)[tuple(keys)]
    if any(wanted.field in chance.random_fields(seen) for seen in measurements):
        raise NotRecordableError(f"NAT draws the packet's {wanted.field} at random")
    if keys[-1] in PROTOCOLS:
        return KeyUpdate(keys=before, value=_agreed("what arrived", lambda seen: _answer([frame(seen)]), measurements))
    value = _agreed(str(keys[-1]), lambda seen: fields(frame(seen)).get(wanted.field), measurements)
    return KeyUpdate(keys=(*before, *keys), value=_named(wanted.field, value, str(keys[0])))


def _named(field: str, value: Written | None, protocol: str) -> Written | None:
    """An ICMP type by its name, where it has one."""
    if field != "type":
        return value
    types = icmp.TYPES if protocol == "icmp" else icmp.TYPES_V6
    return next((name for name, number in types.items() if number == value), value)


def _answer(frames: Sequence[bytes]) -> Written:
    if not frames:
        return "none"
    found = fields(frames[0])
    protocol = str(found.get("protocol", ""))
    answer: dict[str, Written] = {"src": found["src"]} if "src" in found else {}
    if protocol in PROTOCOLS:
        names = {"tcp": ("flags",), "icmp": ("type", "code"), "icmpv6": ("type", "code"), "arp": ("op",)}
        answer[protocol] = {
            name: _named(name, found[name], protocol) or 0 for name in names.get(protocol, ()) if name in found
        }
    return answer


def _given_up(seen: Sample) -> str | None:
    """The kernel's reason, where it is not a chain's: a packet that was let in may end for want of a socket."""
    drop = seen.sent.seen.drop
    if drop is None or drop.host != seen.sent.observation.device or seen.sent.verdict in REFUSED:
        return None
    return None if arrivals(seen.sent.seen) else drop.reason


def _changed_drop(expect: Expect, _: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    drops = [seen.sent.seen.drop for seen in measurements]
    known = [drop for drop in drops if drop]
    if len(known) < len(drops):
        yield KeyUpdate(keys=("dropped",), value=None)
        return
    found: dict[str, Written] = {}
    for key, values in (("reason", [one.reason for one in known]), ("function", [one.function for one in known])):
        if not isinstance(expect.dropped, Dropped) or getattr(expect.dropped, key) is not None:
            found[key] = " | ".join(dict.fromkeys(values))
    host = {drop.host for drop in known}
    if isinstance(expect.dropped, Dropped):
        if host != {seen.sent.observation.device for seen in measurements}:
            found["host"] = next(iter(host))
        yield KeyUpdate(keys=("dropped",), value=found)
    else:
        yield KeyUpdate(keys=("dropped",), value=found["reason"])


def _changed_layers(expect: Expect, _: Mismatch, measurements: Sequence[Sample]) -> Iterator[KeyUpdate]:
    yield relayered(expect.layers or [], measurements)


CHANGES: Final[Mapping[str, _Recorder]] = {
    "flow": _changed_flow,
    "verdict": _changed_verdict,
    "with": _value(lambda seen: seen.sent.with_ or None),
    "rule": _value(_rule),
    "rules": _changed_rules,
    "dropped": _changed_drop,
    "delivered": _changed_delivery,
    "reply": _changed_reply,
    "conntrack": _not_recorded,
    "connections": _not_recorded,
    "mark": _value(_mark),
    "log": _not_recorded,
    "route": _value(_route),
    "counters": _changed_counter,
    "elements": _changed_elements,
    "layers": _changed_layers,
    "path": _changed_path,
    "never": _changed_never,
}
"""What is recorded for a mismatch, by key of ``expect``."""
