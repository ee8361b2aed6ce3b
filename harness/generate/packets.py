"""Packets for rules: what a rule and those that lead to it ask for, tried on the simulated device."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

from harness.generate import headers, names
from harness.generate.constraints import (
    ADDRESSES,
    IMPOSSIBLE,
    MEMBERS_AT_MOST,
    Constraints,
    alternatives,
    as_sent,
    constraints,
    implied,
    merged,
)
from harness.generate.device import SimulatedDevice
from harness.generate.ends import Ends
from harness.generate.exchanges import ERRORS, Exchanges
from harness.generate.expressions import Fields, field
from harness.generate.sends import REPLY_PORT, send_of
from harness.generate.simulate import (
    ChainKey,
    SimulatedChain,
    SimulatedRule,
    Traversal,
    answered,
    excess,
    filled,
    jumps,
)
from harness.model.observation import Place
from harness.packets import icmp

ASKED_AT_MOST: Final = 96
"""Combinations of what the rules on one way to a rule ask for."""
COMBINED_AT_MOST: Final = 512
"""Combinations of what the statements of one rule ask for; most contradict themselves."""
CALLERS_AT_MOST: Final = 6
TRAVELS_AT_MOST: Final = 400
"""Packets tried on the simulated device for one rule or policy."""
REPEATED_AT_MOST: Final = 12
TRAVELS_EACH_AT_MOST: Final = 60
"""The same for one element of a rule's set."""
MEMBERS_EACH_AT_MOST: Final = 64
"""Elements of one set, each of which gets a packet."""
FILLERS_AT_MOST: Final = 3
"""Rules that add to a set, by which packets fill it."""
JUMBO_MSS: Final = 8960
"""The maximum segment size that a host with jumbo frames announces."""
MARKS: Final = ("mark", "ct_mark")
"""Fields that rules write and others look at."""
NAMED_AT_MOST: Final = 24
"""Addresses of other rules that are tried for a rule."""
BEFORE: Final[Mapping[str, Sequence[str]]] = {
    "prerouting": ("ingress", "output"),
    "input": ("ingress", "prerouting", "output"),
    "forward": ("ingress", "prerouting"),
    "postrouting": ("ingress", "prerouting", "forward", "output"),
    "egress": ("ingress", "prerouting", "forward", "output", "postrouting"),
}
"""Hooks that a packet passes before another; what the device sends to itself passes output first."""
PUBLIC: Final[Sequence[Constraints]] = (
    {"saddr": "93.184.216.34", "family": 4},
    {"saddr": "2606:2800:220:1::34", "family": 6},
)
"""Sources where rules refuse those of labs, which are private or for documentation (bogons)."""
FREE_PORTS: Final = (4711, 9999, 40404, 4096, 7777)
UNBEGUN: Final = "it needs a connection, and no packet tried that would begin one is accepted"
RESET: Final = "it needs an answer over TCP of a program on the device: write steps with listen: and connect:"
_MESSAGES: Final = {
    "icmp": ("echo-request", "timestamp-request", "destination-unreachable"),
    "ipv6-icmp": ("echo-request", "echo-reply", "mld-listener-done"),
}
"""ICMP messages for a rule that asks for none by name."""
_OTHER_FAMILY: Final = {"icmp": 6, "arp": 6, "ipv6-icmp": 4}
"""The IP version that does not carry a protocol."""
_OF_THE_WAY: Final = ("iif", "oif", "local", "ibr", "obr", "group", "path")
"""What follows from a packet's ends."""


class Candidate(NamedTuple):
    """Packets that should lead to a rule: the last one meets it."""

    sends: tuple[dict[str, Any], ...]
    """As ``send`` in a scenario."""
    fields: Fields
    """Of the last one."""
    before: tuple[Fields, ...] = ()
    """Of those before it."""

    @property
    def steps(self) -> tuple[Fields, ...]:
        """Of all."""
        return (*self.before, self.fields)


class Candidates:
    """Packets for the rules and policies of one ruleset."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._ruleset = device.ruleset
        self._network = device.network
        self._only: dict[Place, tuple[int, Constraints]] = {}
        """Of rules for which each way is searched for: the number of a statement, and what it asks for."""
        self._hosts = list(self._network.hosts)
        self._ends = Ends(device)
        rules = [rule for chain in self._ruleset.chains.values() for rule in chain.rules]
        asked = [one for rule in rules for one in itertools.islice(self._asked_by(rule, None), 8)]
        used = {port for one in asked for key in ("dport", "sport") if isinstance(port := one.get(key), int)}
        self._free_port = next((port for port in FREE_PORTS if port not in used), 65000)
        self._ports = sorted({one["dport"] for one in asked if isinstance(one.get("dport"), int)})[:16]
        self._exchanges = Exchanges(self._network, self._ports, self._free_port)
        self._rules = {rule.key: rule for rule in rules}
        self._donors = [
            one
            for chain in self._ruleset.chains.values()
            for rule in chain.rules
            if {"mangle", "dnat", "redirect"} & {word for word, _ in rule.statements}
            for _, one in itertools.islice(self._asked(chain, rule, ()), 4)
        ]
        """What other rules ask for: a packet may need a mark, or an address translated, before it comes to a rule."""
        # Of addresses, other rules may name those that the rules before one let by.
        named = {repr(one): one for one in self._named(asked)}
        self._donors += [*PUBLIC, *itertools.islice(named.values(), NAMED_AT_MOST)]
        self._left: dict[Place, int] = {}
        self._decided: dict[Place, Counter[Place]] = {}
        self._unbegun: dict[Place, str] = {}
        self._filling: set[Place] = set()
        """The rules that are being met to fill a set, so that none waits for itself."""

    def unbegun(self, key: Place) -> str:
        """Why no connection was begun for a rule that needs one; "" where it needs none, or one was."""
        return self._unbegun.get(key, "")

    def decided_before(self, key: Place) -> list[Place]:
        """The rules and policies that decided about all packets tried for ``key`` before these came to it, the most
        frequent first; none where a packet came to it."""
        found = self._decided.get(key, Counter())
        return [] if key in found else [place for place, _ in found.most_common()]

    @staticmethod
    def _named(several: Iterable[Constraints]) -> Iterator[Constraints]:
        for one in several:
            for name in ADDRESSES:
                if name in one:
                    yield {name: one[name], "family": one["family"]}

    def of(self, key: Place) -> Iterator[Candidate]:
        """Packets that should meet the rule or policy ``key``, those that say least first.

        Each is searched for when it is asked for: to take all costs up to :data:`TRAVELS_AT_MOST` simulations.
        """
        chain, target = self._ruleset.chains.get(key[:3]), self._rules.get(key)
        if chain is None or (key[3] and target is None):
            return
        yield from self._search(key, chain, target)
        if target is not None:
            yield from self._behind_others(chain, target)

    def each(self, key: Place) -> Iterator[Candidate | None]:
        """Packets that should meet the rule ``key``, one for each way in which one of its statements holds: for each
        element of a set or map, or value beside one. None where none was found, for the caller to count the costs."""
        chain, target = self._ruleset.chains.get(key[:3]), self._rules.get(key)
        if chain is None or target is None:
            return
        for number in range(len(target.statements)):
            several = self._choices(target, number, None, MEMBERS_EACH_AT_MOST)
            ways = list(itertools.islice(several, MEMBERS_EACH_AT_MOST))
            for asked in ways if len(ways) > 1 else ():
                self._only[key] = number, asked
                try:
                    found = list(itertools.islice(self._search(key, chain, target, TRAVELS_EACH_AT_MOST), 1))
                finally:
                    del self._only[key]
                if not found:
                    yield None
                yield from found

    def _behind_others(self, chain: SimulatedChain, target: SimulatedRule) -> Iterator[Candidate]:
        """Packets that meet ``target``, each behind others that fill a set which it, or a rule that leads to its chain,
        looks into."""
        callers = [rule for rule in self._rules.values() if rule.key[:3] in self._ruleset.callers_of(chain)]
        leading = [rule for rule in callers if self._leads(rule, chain)]
        for name in dict.fromkeys(name for rule in (target, *leading) for name in self._ruleset.empty(rule)):
            for filler in itertools.islice(self._fillers(target.key[:2], name), FILLERS_AT_MOST):
                if filler.key in self._filling or filler.key == target.key:
                    continue
                self._filling.add(filler.key)
                try:
                    found = list(self._filled_by(filler, target.key, name))
                finally:
                    self._filling.discard(filler.key)
                yield from found

    def _leads(self, rule: SimulatedRule, chain: SimulatedChain) -> bool:
        """Whether ``rule`` jumps to ``chain``, or to one that leads to it."""
        into = {chain.key[:3], *self._ruleset.callers_of(chain)}
        return any((*rule.key[:2], name) in into for name in self._ruleset.targets(rule))

    def _fillers(self, table: tuple[str, str], name: str) -> Iterator[SimulatedRule]:
        """The rules that add to the set ``name``."""
        for rule in self._rules.values():
            if rule.key[:2] == table and name in map(filled, rule.statements):
                yield rule

    def _filled_by(self, filler: SimulatedRule, key: Place, name: str) -> Iterator[Candidate]:
        """Packets that meet ``key`` behind those by which ``filler`` adds to the set ``name``."""
        for first in itertools.islice(self.of(filler.key), 1):
            added = [one.added for one in self._device.journey(first.steps) if one]
            if not any((*filler.key[:2], name) in one for one in added):
                continue
            with self._ruleset.learning(*added):
                for one in itertools.islice(self.of(key), 2):
                    yield Candidate((*first.sends, *one.sends), one.fields, (*first.steps, *one.before))

    def _search(
        self,
        key: Place,
        chain: SimulatedChain,
        target: SimulatedRule | None,
        travels: int = TRAVELS_AT_MOST,
        besides: Constraints | None = None,
    ) -> Iterator[Candidate]:
        """Packets that should meet ``key``; with what is asked for ``besides``, if there is such a packet."""
        seen: set[str] = set()
        self._left[key] = travels
        for donor in (None, *self._suitable(target)):
            if donor in PUBLIC and seen:
                continue  # another source adds nothing where one has come through
            for way, asked in self._asked(chain, target, ()):
                if self._left[key] <= 0:
                    return
                if target and {"dnat", "redirect"} & {word for word, _ in target.statements}:
                    asked = {"local": True} | asked  # a forwarded port is one of the device's own
                if chain.family == "arp":
                    asked = asked | {"proto": "arp"}
                wanted = merged(as_sent(one) for one in (asked, donor, besides) if one)
                if wanted is None:
                    continue
                for candidate in self._packets(key, wanted, frozenset(rule.key for rule in way)):
                    if (text := repr(candidate.sends)) not in seen:
                        seen.add(text)
                        yield candidate

    def asked_by(self, key: Place) -> Constraints:
        """What the rule ``key`` asks for first; nothing where that is not known."""
        rule = self._rules.get(key)
        return next(self._asked_by(rule, None), {}) if rule else {}

    def both(self, key: Place, other: Place) -> Candidate | None:
        """A packet that should meet the rule ``key``, and is what the rule ``other`` asks for; None for none."""
        chain, target = self._ruleset.chains[key[:3]], self._rules[key]
        found = self._search(key, chain, target, TRAVELS_EACH_AT_MOST, self.asked_by(other))
        return next(found, None)

    # -- what is asked for ------------------------------------------------------------------------

    def _asked(
        self, chain: SimulatedChain, target: SimulatedRule | None, below: tuple[SimulatedRule, ...]
    ) -> Iterator[tuple[tuple[SimulatedRule, ...], Constraints]]:
        """Ways from a base chain to ``target``, or to the end of ``chain``, each with all that its rules ask for."""
        way = (target, *below) if target else below
        if chain.hook:
            into = [*(rule.key[2] for rule in way[1:]), None]
            choices = [
                list(itertools.islice(self._asked_by(rule, to), 24)) for rule, to in zip(way, into, strict=False)
            ]
            for several in itertools.islice(itertools.product(*choices), ASKED_AT_MOST):
                if (asked := merged([*several, _of_chain(chain)])) is not None:
                    yield way, asked
            return
        for caller in itertools.islice(self._ruleset.callers(chain), CALLERS_AT_MOST):
            if caller not in way:
                yield from self._asked(self._ruleset.chains[caller.key[:3]], caller, way)

    def _asked_by(self, rule: SimulatedRule, into: str | None) -> Iterator[Constraints]:
        """What ``rule`` asks for; where it is a map, the elements that lead ``into`` a chain."""
        only, way = self._only.get(rule.key, (-1, {}))
        choices = [
            [way] if number == only else list(self._choices(rule, number, into, MEMBERS_AT_MOST))
            for number in range(len(rule.statements))
        ]
        for several in itertools.islice(itertools.product(*choices), COMBINED_AT_MOST):
            if (asked := merged(several)) is not None:
                yield asked

    def _choices(self, rule: SimulatedRule, number: int, into: str | None, at_most: int) -> Iterator[Constraints]:
        """The ways in which one statement of ``rule`` holds, ``at_most`` so many elements of a set; at least one."""
        word, what = rule.statements[number]
        if word == "match":
            yield from list(alternatives(self._ruleset, rule, what, at_most)) or [{}]
        elif word == "reject":
            yield answered(what)
        elif word == "set" and isinstance(what, dict):
            yield implied(what.get("elem"))
        elif word == "vmap":
            pairs = self._ruleset.elements(rule, what)
            keys = [one for one, verdict in pairs if into is None or into in jumps(verdict)]
            # An answer shows more of a stateful ruleset than what is invalid, which nft lists first.
            keys.sort(key=lambda one: one != "established")
            yield from [constraints(what["key"], one) for one in keys] or [IMPOSSIBLE]
        elif isinstance(mapping := _map_of(what), dict):
            keys = [one for one, _ in self._ruleset.elements(rule, mapping)]
            yield from [constraints(mapping["key"], one) for one in keys[:at_most]] or [{}]
        elif word == "mangle":
            yield _written(what["key"])
        else:
            yield {}

    def _suitable(self, target: SimulatedRule | None) -> list[Constraints]:
        """What other rules ask for, that first by which a packet gets the mark that ``target`` asks for."""
        matches = [what for word, what in target.statements if word == "match"] if target else []
        marks = [what for what in matches if field(what["left"]) in MARKS]
        if target is None or not marks:
            return self._donors
        giving = [
            one
            for rule in self._rules.values()
            if any(self._gives(rule, target, what) for what in marks)
            for _, one in itertools.islice(self._asked(self._ruleset.chains[rule.key[:3]], rule, ()), 2)
        ]
        return [*giving, *self._donors]

    def _gives(self, rule: SimulatedRule, target: SimulatedRule, match: Mapping[str, Any]) -> bool:
        """Whether ``rule`` sets a mark with which ``match`` of ``target`` holds."""
        return any(
            word == "mangle"
            and field(what["key"]) in MARKS
            and isinstance(what["value"], int)
            and self._ruleset.holds(target, match, dict.fromkeys(MARKS, what["value"]))
            for word, what in rule.statements
        )

    # -- packets ----------------------------------------------------------------------------------

    def _packets(self, key: Place, asked: Constraints, way: frozenset[Place]) -> Iterator[Candidate]:
        for fields in self._filled(asked):
            if self._left[key] <= 0:
                return
            if fields.get("state") in ("established", "related"):
                yield from self._behind(key, fields, way)
                continue
            met = self._travel(key, dict(fields), way | {key})
            if met and key in met.met:
                yield from self._repeated(fields, self._times(way | {key}))
            elif met and met.met:
                self._note(key, met)

    def _note(self, key: Place, met: Traversal) -> None:
        """Note what decided about a packet that did not meet ``key``."""
        chain = self._ruleset.chains[key[:3]]
        behind = next((at for at, rule in enumerate(chain.rules, 1) if rule.key == key), 0)
        came = behind and met.came.get(chain.key, 0) >= behind
        on_way = {chain.key[:3], *self._ruleset.callers_of(chain)}
        if came or self._is_before(met, on_way):
            self._decided.setdefault(key, Counter())[key if came else met.met[-1]] += 1
        elif met.verdict == "accept":  # it may have been accepted here, and again at later hooks
            here = next((one for one in reversed(met.met) if one[:3] in on_way), key)
            if here[3] and here != key:
                self._decided.setdefault(key, Counter())[here] += 1

    def _is_before(self, met: Traversal, on_way: Collection[ChainKey]) -> bool:
        """Whether the last rule or policy that a packet met kept it from a chain, which those ``on_way`` lead to."""
        last, chains = met.met[-1], self._ruleset.chains
        if not last[3] and (last[:3] in on_way or chains[last[:3]].policy == "accept"):
            return False  # no rule has led it there, or the kernel has dropped it by its routes or addresses
        if met.verdict == "accept":
            return last[:3] in on_way  # it ends only the base chain
        hooks = {chains[key].hook for key in on_way}
        ended = {chains[key].hook for key in {last[:3], *self._ruleset.callers_of(chains[last[:3]])}}
        before = {one for hook in hooks for one in (hook, *BEFORE.get(hook, ()))}
        return bool(before & ended - {""})

    def _travel(self, key: Place, fields: Fields, wanted: frozenset[Place]) -> Traversal | None:
        self._left[key] -= 1
        return self._device.travel(fields, wanted)

    def _times(self, keys: frozenset[Place]) -> int:
        """How many packets it takes to exceed the limits that rules ask for."""
        statements = (one for key in keys if key in self._rules for one in self._rules[key].statements)
        return max((excess(word, what) for word, what in statements), default=1) or 1

    @staticmethod
    def _repeated(fields: Fields, times: int) -> Iterator[Candidate]:
        """The packet, or as many of it as it takes, each beginning a connection of its own."""
        if times == 1:
            yield Candidate((send_of(fields),), fields)
        elif times <= REPEATED_AT_MOST:
            *before, last = repeated(fields, times)
            yield Candidate(tuple(map(send_of, (*before, last))), last, tuple(before))

    def _concrete(self, asked: Constraints) -> Iterator[Constraints]:
        """``asked`` with an address for each network: those that a host of the lab has first."""
        if asked.get("path") == 0 and "saddr" not in asked:
            for foreign in self._foreign(asked):
                yield from self._concrete(asked | foreign)
            return
        choices: list[list[Constraints]] = []
        for name in ADDRESSES:
            if "/" not in str(asked.get(name, "")):
                continue
            network = ip_network(asked[name], strict=False)
            owned = [
                str(own.ip)
                for host in (*(one for one in self._hosts if one != self._network.device), self._network.device)
                for interface in self._network.hosts[host].interfaces.values()
                for own in interface.addresses
                if own.version == network.version and own.ip in network
            ]
            outsider = str(network[min(7, network.num_addresses - 1)])
            choices.append([{name: one} for one in dict.fromkeys([*owned[:3], *owned[-1:], outsider])])
        for several in itertools.product(*choices):
            yield asked | {name: value for one in several for name, value in one.items()}

    def _foreign(self, asked: Constraints) -> Iterator[Constraints]:
        """Pairs of an interface and the address of a host behind another one: the way back is not the one it came."""
        facing = self._device.facing
        for name in [asked["iif"]] if "iif" in asked else facing:
            for host in (host for other, host in facing.items() if other != name):
                for version in [asked["family"]] if "family" in asked else (4, 6):
                    address = self._network.address(host, version, towards=self._network.device)
                    if address is not None:
                        yield {"iif": name, "saddr": str(address), "family": version}

    def _filled(self, asked: Constraints) -> Iterator[Fields]:
        """``asked`` with all that a packet needs besides."""
        for concrete in self._concrete(asked):
            yield from self._filled_in(concrete)

    def _filled_in(self, asked: Constraints) -> Iterator[Fields]:
        own = {name: value for name, value in asked.items() if name not in _OF_THE_WAY}
        combined = itertools.product([asked["family"]] if "family" in asked else [4, 6], _protocols(asked))
        for family, protocol in combined:
            if family == _OTHER_FAMILY.get(str(protocol)):
                continue
            for whose in self._ends.of(asked, family):
                fields = {**whose, "family": family, "proto": protocol}
                fields |= self._defaults(protocol, family, invalid=asked.get("state") == "invalid")
                several: Sequence[Fields] = [
                    {"type": message, "code": 0} for message in _MESSAGES.get(str(protocol), ())
                ]
                if asked.get("state") == "related" and "type" not in own:
                    several = ERRORS.get(str(protocol), ())
                elif "type" in own:
                    several = several[:1]
                elif asked.get("state") == "established" and several:
                    several = [{"type": "echo-reply", "code": 0}, *several]
                elif "dport" in fields and "dport" not in own:
                    several = [{}, {"dport": self._ports[0] if self._ports else 443}]
                whole = (headers.filled(fields | one | own) for one in several or [{}])
                yield from (one for one in whole if one is not None)

    def _defaults(self, protocol: str | int, family: int, *, invalid: bool) -> Fields:
        """The fields that a packet of ``protocol`` has besides its ends, where no rule asks for others."""
        carried = "arp" if protocol == "arp" else "ip" if family == 4 else "ip6"
        fields: Fields = {"ether_type": names.ETHER_TYPES[carried]}
        if protocol in names.WITH_PORTS:
            fields |= {"sport": REPLY_PORT, "dport": self._free_port}
        if protocol == "tcp":
            fields["flags"] = ("rst",) if invalid else ("syn",)
        if protocol == "arp":
            fields["op"] = "request"
        return fields

    def _behind(self, key: Place, fields: Fields, way: frozenset[Place]) -> Iterator[Candidate]:
        """A packet that meets ``key`` behind those of its connection that are let by."""
        self._unbegun.setdefault(key, UNBEGUN)
        if self._unbegun[key] and self._exchanges.resets(fields, fields["proto"]) and "output" in self._hooks(key):
            self._unbegun[key] = RESET
        found = (self._exchange(key, several, way) for several in self._exchanges.of(fields))
        yield from itertools.islice((one for one in found if one is not None), 1)

    def _hooks(self, key: Place) -> set[str]:
        """The hooks of the base chains that lead to ``key``."""
        chain = self._ruleset.chains[key[:3]]
        return {self._ruleset.chains[one].hook for one in (key[:3], *self._ruleset.callers_of(chain))}

    def _exchange(self, key: Place, several: Sequence[Fields], way: frozenset[Place]) -> Candidate | None:
        """``several`` packets of one connection, if those before the last are let by, and that one meets ``key``."""
        device = self._network.device
        first: Fields = {}
        sent: list[Fields] = []
        for number, one in enumerate(several, 1):
            met = self._travel(key, dict(one), way | {key} if number == len(several) else frozenset())
            if met is None:
                return None
            if number == len(several):
                if key[:3] in {place[:3] for place in met.came}:
                    self._unbegun[key] = ""
                if key not in met.met:
                    return None
            elif met.verdict != "accept" or "dnat" in met.fields.get("status", ()):
                return None
            first = first or met.fields
            hidden = "snat" in first.get("status", ())
            sent.append(one | ({"to": device} if hidden and one.get("reply") else {}))
            if quoted := one.get("quoted"):
                ours = self._network.address(device, one["family"], towards=one["from"]) if hidden else None
                ends = {"src": str(ours or first["saddr"]), "dst": str(first["daddr"])}
                sent[-1]["quoted"] = quoted | ends
        return Candidate(tuple(map(send_of, sent)), sent[-1], tuple(sent[:-1]))


def repeated(fields: Fields, times: int) -> list[Fields]:
    """The packet ``times`` times, each beginning a connection of its own; the last is over a limit of one less."""
    several = [fields]
    for number in range(1, times):
        own = {"sport": fields["sport"] + number} if "sport" in fields else {}
        several.append(fields | ({"echo_id": number} if fields.get("type") == "echo-request" else own))
    return [*several[:-1], several[-1] | {"over": True, "nth": times}]


def _written(key: Any) -> Constraints:
    """What a packet must have so that a rule can write what ``key`` reads: a maximum segment size is only lowered."""
    return implied(key) | ({"mss": JUMBO_MSS} if field(key) == "mss" else {})


def _map_of(statement: Any) -> Any:
    """The map that a statement takes an address or what it writes from; None for none."""
    for key in ("addr", "value") if isinstance(statement, dict) else ():
        if isinstance(found := statement.get(key), dict) and "map" in found:
            return found["map"]
    return None


def _of_chain(chain: SimulatedChain) -> Constraints:
    """What the hook of a base chain asks for by itself."""
    asked: Constraints = {"family": names.FAMILIES[chain.family]} if chain.family in ("ip", "ip6") else {}
    if chain.hook == "ingress" and chain.devices:
        asked["iif"] = chain.devices[0]
    return asked


def _protocols(asked: Constraints) -> Sequence[str | int]:
    """The protocols that a packet may have."""
    if "frag" in asked:
        return ("udp",)
    if asked.get("ether_type") == names.ETHER_TYPES["arp"] or "op" in asked:
        return ("arp",)
    if "proto" in asked:
        return (asked["proto"],)
    if "echo_id" in asked or "echo_seq" in asked:
        return ("icmp", "ipv6-icmp")
    if asked.get("state") == "related":
        return tuple(ERRORS)
    if asked.get("state") == "invalid" or "flags" in asked or "mss" in asked:
        return ("tcp",)
    if "type" in asked:
        return ("icmp", "ipv6-icmp") if asked["type"] in (*icmp.TYPES, *icmp.TYPES_V6) else ("icmp",)
    return ("tcp", "udp") if {"sport", "dport"} & asked.keys() else ("tcp", "udp", "icmp", "ipv6-icmp")
