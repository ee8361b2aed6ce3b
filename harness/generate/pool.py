"""Packets for one or more rulesets in one lab: for each rule, at each boundary, two at once, and at random.

::

    seeds (a packet for each rule and policy) ── one field changed ──> boundaries
                                              ── two fields ─────────> pairs
                                              ── all fields ─────────> random

Each is tried on the simulated rulesets. Chosen are first those on which the rulesets seem to differ, then one of each
way through the rules, then more until the budget is used. The same seed gives the same packets.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple

from harness.generate import headers, names
from harness.generate.boundaries import PROTOCOLS, TCP_FLAGS, Boundaries, types_of
from harness.generate.constraints import ADDRESSES, Constraints, alternatives, as_sent, merged
from harness.generate.device import SimulatedDevice
from harness.generate.expressions import ORIGINAL, Fields
from harness.generate.packets import REPEATED_AT_MOST, Candidate, Candidates, repeated
from harness.generate.sends import REPLY_PORT, send_of
from harness.generate.simulate import NAT, WRITTEN, SimulatedRule, Traversal, burst
from harness.generate.targets import why_never, why_none
from harness.model.observation import Place

PER_RULE: Final = 2
"""Packets for each rule and policy."""
MANY: Final = 500
"""Rules and policies of rulesets that count as large."""
TRIED_AT_MOST: Final = 6_000
"""Packets tried on the simulated rulesets, of each kind."""
EVALUATED_AT_MOST: Final = 1_200_000
"""Rules that packets are compared with in simulations, of all rulesets together: some 25 s. Up to half of that is for
packets for each rule and policy, and a third of what is left for each other kind."""
SHARE: Final = 4
"""The part of the budget, one in so many, that ways through the rules seen already get before all others."""
LEFT_OUT: Final = "no packet was made for it, as the rulesets are large"
OVERLAPPING_AT_MOST: Final = 60
"""Rules of one chain of which each two get packets."""
_BY_ENDS: Final = ("iif", "oif", "local", "ibr", "obr", "group", "path")
"""What follows from a packet's ends, which stay as they are."""
FURTHER_AT_MOST: Final = 24
"""Packets for one rule among which one that is let by is looked for."""
BESIDE_AT_MOST: Final = 64
"""Values of one field that a rule looks at."""
PER_MATCH: Final = 4
"""Packets for which one match of a rule fails."""
_INVERSE: Final = {"==": "!=", "!=": "==", "in": "!", "!": "in", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_WRITTEN: Final = ("mark", "ct_mark", "daddr", "dport", *WRITTEN)
"""Fields that rules write."""
_OF_ONE_PACKET: Final = ("ttl", "dscp", "vlan")
"""Fields by which packets of one connection may differ."""
_OF_PROTOCOL: Final = ("sport", "dport", "flags", "type", "code", "op", "mss", "frag", "payload")

Went = tuple[tuple[Place, ...], str]
"""What a packet, and those before it, meet in one ruleset, and what becomes of each: ``accept``, ``drop mark 7``."""
Way = tuple[Went, ...]
"""The same in each ruleset."""
Steps = tuple[Fields, ...]
"""Packets that are sent one after the other."""


class PooledPacket(NamedTuple):
    """A packet, with those before it that it needs."""

    sends: tuple[dict[str, Any], ...]
    """As ``send`` in a scenario."""
    fields: Fields
    """Of the last one."""
    way: Way
    before: tuple[Fields, ...] = ()
    """Of those before it."""

    @property
    def steps(self) -> tuple[Fields, ...]:
        """The fields of all."""
        return (*self.before, self.fields)


class Pool:
    """Packets for rulesets that are loaded in the same lab."""

    def __init__(self, devices: Sequence[SimulatedDevice], seed: int, tried: int | None = None) -> None:
        """``tried`` packets of each kind are simulated at most, by default :data:`TRIED_AT_MOST`."""
        self._devices = devices
        self.left_out: set[Place] = set()
        """Rules and policies that no packet was made for, as :data:`EVALUATED_AT_MOST` was reached."""
        self.made: set[tuple[int, Place]] = set()
        """Rules and policies that packets were made for, behind the ``id`` of the device."""
        self._meeting: list[tuple[SimulatedDevice, Place, Steps]] = []
        """Packets that should meet a rule or policy."""
        self._makers = {id(device): Candidates(device) for device in devices}
        self._tried_at_most = TRIED_AT_MOST if tried is None else tried
        self._before = sum(device.ruleset.evaluated for device in devices)
        self._random = random.Random(seed)
        self._network = devices[0].network
        self.boundaries = Boundaries(*(one.ruleset for one in devices))
        self._choices = self._values()

    def packets(self, budget: int) -> list[PooledPacket]:
        """At most ``budget`` packets, those first that are for a rule or policy."""
        seeds = list(self._seeds())
        found: dict[str, PooledPacket] = {repr(one.sends): one for one in seeds}
        steps = [one.steps for one in seeds]
        kinds = [
            self._elements(),
            self._beside(),
            self._overlapping(),
            self._neighbours(steps),
            self._pairs(steps),
            self._at_random(steps),
        ]
        for number, made in enumerate(kinds):
            until = self._evaluated + (EVALUATED_AT_MOST - self._evaluated) // (len(kinds) - number)
            for several in itertools.islice(made, self._tried_at_most):
                if self._evaluated >= until:
                    break
                packet = self._tried(several) if several else None
                if packet and found.setdefault(repr(packet.sends), packet) is packet and not number:
                    steps.append(packet.steps)
        return self._chosen(list(found.values()), len(seeds), budget)

    def _seeds(self) -> Iterator[PooledPacket]:
        """Packets for each rule and policy; of large rulesets first for those that only one of them has."""
        seen: set[str] = set()
        places = self._places()
        wanted = PER_RULE if len(places) <= MANY else 1  # to find that there is no second one costs the most
        for device, key, limit in places:
            if self._evaluated >= EVALUATED_AT_MOST // 2:
                self.left_out.add(key)
                continue
            for one in self._of(device, key, wanted):
                self.made.add((id(device), key))
                for steps in _with_burst(one.steps, limit):
                    packet = self._packet(steps)
                    self._meeting.append((device, key, steps))
                    if (text := repr(packet.sends)) not in seen:
                        seen.add(text)
                        yield packet

    def _elements(self) -> Iterator[Steps]:
        """Packets for each element of the sets that rules look into, and each other way in which a rule is met."""
        for device, key, _ in self._places():
            with suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
                for one in self._makers[id(device)].each(key):
                    if one is not None:
                        self._meeting.append((device, key, one.steps))
                    yield one.steps if one else ()

    def _beside(self) -> Iterator[Steps]:
        """Packets for each rule with one field changed so that a match of it fails, or to a value that it looks at."""
        for device, key, steps in self._meeting:
            ruleset = device.ruleset
            rule = next((one for one in ruleset.chains[key[:3]].rules if one.key == key), None)
            if rule is None:
                continue
            for name, values in Boundaries.of_rule(ruleset, rule).values.items():
                for value in values[:BESIDE_AT_MOST] if name in _CHANGES else ():
                    yield self._all_changed(steps, name, value)
            for what in (what for word, what in rule.statements if word == "match"):
                with suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
                    others = alternatives(ruleset, rule, {**what, "op": _INVERSE.get(what["op"], "!=")})
                    yield from (self._constrained(steps, one) for one in itertools.islice(others, PER_MATCH))

    def _overlapping(self) -> Iterator[Steps]:
        """Packets for each two rules of one chain, which show the order in which those decide."""
        for device in self._devices:
            maker = self._makers[id(device)]
            for chain in device.ruleset.chains.values():
                with suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
                    asked = {rule.key: maker.asked_by(rule.key) for rule in chain.rules[:OVERLAPPING_AT_MOST]}
                    for one, other in itertools.permutations(asked, 2):
                        agree = _agree(asked[one], asked[other]) and (id(device), one) in self.made
                        found = maker.both(one, other) if agree else None
                        yield found.steps if found else ()

    def _constrained(self, steps: Steps, asked: Constraints) -> Steps:
        """``steps``, of which the last has what is ``asked`` for as well; () where it cannot have that."""
        if _is_exchange(steps):
            return ()
        fields = {name: value for name, value in steps[-1].items() if name != "size"}
        for name, value in as_sent(asked).items():
            if name in ADDRESSES and "/" in str(value):
                value = str(ip_network(value, strict=False)[0])
            if name in ("impossible", "state"):
                return ()
            if name in _BY_ENDS:
                continue
            if fields.get(name) != value:
                fields = self._changed(fields, name, value) if name in _CHANGES else fields | {name: value}
        filled = headers.filled(fields)
        return (*steps[:-1], filled) if filled is not None else ()

    def why_none(self, device: SimulatedDevice, key: Place, named: Callable[[Place], str]) -> str:
        """Why no packet was made for a rule or policy, or none that was can meet it; "" where one may.

        ``named`` gives the name of another rule or policy.
        """
        if key in self.left_out:
            return LEFT_OUT
        if (id(device), key) in self.made:
            return why_never(device, key)
        return why_none(device, key, [named(place) for place in self._makers[id(device)].decided_before(key)])

    @property
    def _evaluated(self) -> int:
        return sum(device.ruleset.evaluated for device in self._devices) - self._before

    def _places(self) -> list[tuple[SimulatedDevice, Place, int]]:
        """The rules and policies of all rulesets, each with the number of packets that a limit lets by."""
        found = [
            (
                device,
                rule.key if rule else chain.key,
                _burst(rule) if rule else 0,
                repr(rule.statements) if rule else "",
            )
            for device in self._devices
            for chain in device.ruleset.chains.values()
            for rule in (*chain.rules, *([None] if chain.hook else []))
        ]
        if len(found) > MANY:
            count = Counter((key[:3], text) for _, key, _, text in found)
            found.sort(key=lambda one: count[one[1][:3], one[3]] >= len(self._devices) > 1)
        return [(device, key, burst) for device, key, burst, _ in found]

    def _of(self, device: SimulatedDevice, key: Place, wanted: int) -> list[Candidate]:
        """Packets for a rule or policy; for a rule that changes packets also one that is let by, which shows it."""
        made = self._makers[id(device)].of(key)
        found: list[Candidate] = []
        # An expression of a form that the simulation does not know: the rule is reported as not met.
        with suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            found.extend(itertools.islice(made, wanted))
            if _writes(device, key) and not any(_is_let_by(device, one) for one in found):
                further = itertools.islice(made, FURTHER_AT_MOST)
                found.extend(itertools.islice((one for one in further if _is_let_by(device, one)), 1))
        return found

    # -- changes ----------------------------------------------------------------------------------

    def _values(self) -> dict[str, list[Any]]:
        """What each field may become."""
        found = {name: list(values) for name, values in self.boundaries.values.items() if name in _CHANGES}
        seen = found.get("proto", [])
        found["proto"] = list(dict.fromkeys([*seen, *PROTOCOLS]))
        found.setdefault("flags", []).extend(TCP_FLAGS[:3])
        found["ends"] = list(itertools.permutations(self._network.hosts, 2))
        found["family"] = [4, 6]
        found["state"] = ["invalid"]
        return found

    def _changes(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, values in self._choices.items() for value in values]

    def _neighbours(self, seeds: Sequence[Steps]) -> Iterator[Steps]:
        """Each seed with each field changed to each value; a sample where those are too many. Of seeds of several
        packets, those with one less as well."""
        for steps in seeds:
            if len(steps) > 1 and not _is_exchange(steps):
                yield from itertools.combinations(steps, len(steps) - 1)
        changes = self._changes()
        numbers: Sequence[int] = range(len(seeds) * len(changes))
        if len(numbers) > self._tried_at_most:
            numbers = self._random.sample(numbers, self._tried_at_most)
        for number in numbers:
            name, value = changes[number % len(changes)]
            yield self._all_changed(seeds[number // len(changes)], name, value)

    def _pairs(self, seeds: Sequence[Steps]) -> Iterator[Steps]:
        changes = self._changes()
        while seeds:
            steps = self._random.choice(seeds)
            for name, value in self._random.sample(changes, min(2, len(changes))):
                steps = self._all_changed(steps, name, value)
            yield steps

    def _at_random(self, seeds: Sequence[Steps]) -> Iterator[Steps]:
        while seeds:
            steps = self._random.choice(seeds)
            names_ = list(self._choices)
            self._random.shuffle(names_)
            for name in names_:
                if self._choices[name] and self._random.random() < 0.6:
                    steps = self._all_changed(steps, name, self._random.choice(self._choices[name]))
            yield steps

    def _all_changed(self, steps: Steps, name: str, value: Any) -> Steps:
        """``steps`` with a field changed: of packets that exceed a limit in all, of others that need those before
        them in all, in the last or in any one; () where the last would not belong to its connection any more."""
        if not steps:
            return ()
        if len(steps) == 1:
            return (self._changed(steps[0], name, value),)
        last = len(steps) - 1
        if _is_exchange(steps):
            return (*steps[:-1], self._changed(steps[-1], name, value)) if name in _OF_ONE_PACKET else ()
        if steps[-1].get("over"):
            changed = tuple(range(len(steps)))
        else:
            changed = self._random.choice((tuple(range(len(steps))), (last,), (self._random.randrange(last),)))
        return tuple(self._changed(one, name, value) if at in changed else one for at, one in enumerate(steps))

    def _changed(self, fields: Fields, name: str, value: Any) -> Fields:
        change = _CHANGES[name]
        return change(self, dict(fields), name, value) if callable(change) else fields | {name: value}

    def _proto(self, fields: Fields, _: str, value: Any) -> Fields:
        """The same packet of another protocol."""
        found = {key: one for key, one in fields.items() if key not in _OF_PROTOCOL}
        found["proto"] = value
        if value in ("icmp", "ipv6-icmp"):
            found |= {"type": "echo-request", "code": 0}
            found = self._family(found, "family", 4 if value == "icmp" else 6)
        elif value in names.WITH_PORTS:
            found |= {"sport": fields.get("sport", REPLY_PORT), "dport": fields.get("dport", 443)}
        if value == "tcp":
            found["flags"] = ("syn",)
        return found

    def _port(self, fields: Fields, name: str, value: Any) -> Fields:
        if fields["proto"] not in names.WITH_PORTS:
            fields = self._proto(fields, "proto", self._random.choice(("tcp", "udp")))
        return fields | {name: value}

    def _flags(self, fields: Fields, name: str, value: Any) -> Fields:
        if fields["proto"] != "tcp":
            fields = self._proto(fields, "proto", "tcp")
        return {key: one for key, one in fields.items() if key != "state"} | {name: value}

    def _type(self, fields: Fields, name: str, value: Any) -> Fields:
        if fields["proto"] not in ("icmp", "ipv6-icmp"):
            fields = self._proto(fields, "proto", self._random.choice(("icmp", "ipv6-icmp")))
        if isinstance(value, str) and value not in types_of(fields["proto"]):
            fields = self._proto(fields, "proto", "ipv6-icmp" if fields["proto"] == "icmp" else "icmp")
        return fields | {name: value}

    def _state(self, fields: Fields, name: str, value: Any) -> Fields:
        """An invalid packet: a reset of no connection."""
        return self._proto(fields, "proto", "tcp") | {"flags": ("rst",), name: value}

    def _family(self, fields: Fields, _: str, value: int) -> Fields:
        if fields["family"] == value:
            return fields
        found = {key: one for key, one in fields.items() if key not in ("saddr", "ether_type")}
        found |= {"family": value, "ether_type": names.ETHER_TYPES["ip" if value == 4 else "ip6"]}
        if found["to"] not in self._network.hosts:
            found["to"] = next(name for name in self._network.hosts if name not in (found["from"],))
        if found["proto"] in ("icmp", "ipv6-icmp"):
            found["proto"] = "icmp" if value == 4 else "ipv6-icmp"
        return found

    def _saddr(self, fields: Fields, name: str, value: str) -> Fields:
        fields = self._family(fields, "family", ip_address(value).version)
        owner = self._network.owner(ip_address(value))
        if owner is not None and owner not in (fields["to"], self._network.device):
            fields["from"] = owner
        return fields | {name: value}

    def _daddr(self, fields: Fields, _: str, value: str) -> Fields:
        address = ip_address(value)
        fields = self._family(fields, "family", address.version)
        owner = self._network.owner(address)
        usual = self._network.address(owner, address.version, towards=fields["from"]) if owner else None
        return fields | {"to": owner if owner is not None and usual == address else value}

    def _ends(self, fields: Fields, _: str, value: tuple[str, str]) -> Fields:
        found = {key: one for key, one in fields.items() if key != "saddr"}
        return found | {"from": value[0], "to": value[1]}

    # -- choosing ---------------------------------------------------------------------------------

    def _tried(self, steps: Steps) -> PooledPacket | None:
        """The packet of the last of ``steps`` behind the others, if it gets to the device."""
        try:
            packet = self._packet(steps)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            return None
        return packet if any(met for met, _ in packet.way) else None

    def _packet(self, steps: Steps) -> PooledPacket:
        way = tuple(went(device, steps) for device in self._devices)
        return PooledPacket(tuple(map(send_of, steps)), steps[-1], way, steps[:-1])

    def _chosen(self, packets: Sequence[PooledPacket], seeds: int, budget: int) -> list[PooledPacket]:
        own, others = list(packets[:seeds]), list(packets[seeds:])
        chosen = own[:budget]
        seen = {one.way for one in chosen}
        rounds: list[list[PooledPacket]] = [[], [], [], []]
        for one in sorted(others, key=cost):
            differs = len({verdict for _, verdict in one.way}) > 1
            rounds[(0 if differs else 1) if one.way not in seen else 2 if differs else 3].append(one)
            seen.add(one.way)
        # Of ways seen already a part as well: the simulation may know less than it seems.
        rest = max(budget - len(chosen), 0)
        self._random.shuffle(rounds[3])
        kept = rounds[3][: rest // SHARE]
        for one in [*rounds[0], *rounds[2][:rest], *rounds[1]]:
            if len(chosen) + len(kept) >= budget:
                break
            chosen.append(one)
        chosen += kept
        chosen += rounds[3][len(kept) :][: max(budget - len(chosen), 0)]
        return chosen


def went(device: SimulatedDevice, steps: Sequence[Fields]) -> Went:
    """What ``steps``, one after the other, meet in a simulated device, and the verdicts."""
    journey = device.journey(steps)
    met = tuple(place for one in journey if one for place in one.met)
    return met, ",".join(_outcome(step, one) if one else "" for step, one in zip(steps, journey, strict=True))


def _outcome(sent: Fields, found: Traversal) -> str:
    """The verdict, what rules have written, and what they have added to sets."""
    fields, words = found.fields, [found.verdict]
    for name in _WRITTEN:
        if (value := fields.get(name)) != fields.get(f"{ORIGINAL}{name}", sent.get(name)):
            words.append(f"{name} {value}")
    if "snat" in fields.get("status", ()):
        words.append("snat")
    words += (f"{'/'.join(key)} {elements}" for key, elements in found.added.items())
    return " ".join(words).replace(",", ";")


def _agree(asked: Constraints, other: Constraints) -> bool:
    """Whether a packet may have both; a rule that asks for nothing else than another one adds nothing."""
    return merged([asked, other]) is not None and not other.items() <= asked.items()


def _writes(device: SimulatedDevice, key: Place) -> bool:
    """Whether a rule changes packets."""
    rules = (rule for rule in device.ruleset.chains[key[:3]].rules if rule.key == key)
    return any(word in ("mangle", "notrack", *NAT) for rule in rules for word, _ in rule.statements)


def _is_let_by(device: SimulatedDevice, packet: Candidate) -> bool:
    """Whether the last packet is accepted by all of a simulated device's chains."""
    return went(device, packet.steps)[1].rpartition(",")[2].startswith("accept")


def _is_exchange(steps: Steps) -> bool:
    """Whether the last of ``steps`` belongs to a connection that those before it began, or is related to one."""
    return any(one.get("reply") or one.get("quoted") or one.get("assured") for one in steps)


def _burst(rule: SimulatedRule) -> int:
    """How many packets a limit of ``rule`` lets by at once; 0 where it has none, or takes more than is sent."""
    found = min((number for one in rule.statements if (number := burst(*one))), default=0)
    return found if found < REPEATED_AT_MOST else 0


def _with_burst(steps: Steps, limit: int) -> Iterator[Steps]:
    """``steps``; and, where there is a limit, as many of the last one as are over it.

    What the device answers begins a connection, of which the next packet would not be the first any more.
    """
    yield steps
    if limit and steps[-1].get("type") == "echo-request":
        yield (*steps[:-1], *repeated(steps[-1], limit + 1))
    elif limit:
        yield (*steps[:-1], steps[-1] | {"count": limit + 1})


def cost(packet: PooledPacket) -> tuple[int, int, int]:
    """As :func:`cost_of`."""
    return cost_of(packet.sends)


def cost_of(sends: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """How far packets are from one that says nothing but its ends and protocol: packets, fields, characters."""
    return len(sends), sum(map(_said, sends)), len(repr(sends))


def describe_send(send: dict[str, Any]) -> str:
    """``send`` as a packet on one line, see :mod:`harness.packets.line`."""
    words = [f"{send['from']} > {send['to']}" if "to" in send else str(send["from"])]
    for key, inside in send.items():
        if key in ("from", "to"):
            continue
        words.append(key)
        pairs = inside.items() if isinstance(inside, dict) else [("", inside)]
        words += [f"{name} {value}".strip() for name, value in pairs]
    return " ".join(words)


def _said(send: Any) -> int:
    return sum(map(_said, send.values())) if isinstance(send, dict) else 1


def simpler(send: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``send`` with one thing less said: a field left out, or one back at what is usual."""
    for key, inside in send.items():
        if key in ("from", "to"):
            continue
        if isinstance(inside, dict):
            needed = ("dport",)
            for name in inside:
                if name not in needed:
                    rest = {one: value for one, value in inside.items() if one != name}
                    if rest or key not in ("ip", "ether"):
                        yield send | {key: rest}
                    else:
                        yield {one: value for one, value in send.items() if one != key}
        elif key != "payload" or len(send) > 3:
            yield {one: value for one, value in send.items() if one != key}


_CHANGES: Final[dict[str, Any]] = {
    "proto": Pool._proto,
    "sport": Pool._port,
    "dport": Pool._port,
    "flags": Pool._flags,
    "type": Pool._type,
    "state": Pool._state,
    "family": Pool._family,
    "saddr": Pool._saddr,
    "daddr": Pool._daddr,
    "ends": Pool._ends,
    "ttl": None,
    "dscp": None,
    "vlan": None,
}
"""How a field of a packet is changed; None where it is only set."""
