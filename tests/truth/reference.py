"""What a ruleset does with packets, by nft(8) and the kernel's documentation alone: a reference to compare with.

Nothing of ``harness`` is used here. It covers the rulesets of :mod:`tests.truth.language` and packets of
:mod:`tests.truth.packets` on a router between two hosts that answer nothing. Its rules, with where they are from:

* A packet that enters by an interface passes the hooks ingress, prerouting, and input or forward; one that is
  forwarded or comes from the router itself (output) passes postrouting last (nft(8), ADDRESS FAMILIES).
* Base chains of a hook are evaluated by priority, lowest first; ``inet`` chains with those of ``ip`` or ``ip6``.
  ``accept`` ends a base chain, and the next one is evaluated; ``drop`` ends all (nft(8), VERDICT STATEMENT).
* A rule applies when all of it does, from left to right: a match that fails, a field that the packet does not
  have, a limit or quota that does not hold end the rule, and the next one is evaluated (nft(8), RULES, STATEMENTS).
* ``jump`` comes back behind its rule at the end of the chain or at ``return``; ``goto`` does not, its chain ends
  where the one it was in would have. At the end of a base chain its policy decides (nft(8), VERDICT STATEMENT).
* A verdict map without the key leaves the rule at that place (nft(8), VMAP), as does a map.
* A limit is a bucket that begins full; a quota counts every packet that comes to it (nft(8), LIMIT, QUOTA).
* Connections are looked up in prerouting and output at priority -200, unless ``notrack`` came before. A packet
  that belongs to none begins one, ``new`` until a packet in the other direction was seen. Before, the state is
  ``invalid`` and ``ct mark`` has no value (nft(8), CT EXPRESSIONS; Documentation/networking/nf_conntrack-sysctl.rst).
  A TCP packet that is neither SYN nor ACK alone can begin none (nf_conntrack_tcp_loose).
* NAT chains see the first packet of a connection only; the first ``dnat``, ``snat`` and so on of a hook holds for
  all of the connection (nft(8), NAT STATEMENTS). Destinations change at -100 in prerouting and output, sources at
  100 in input and postrouting.
* The hop limit is one lower from the forward hook on (RFC 1812, 5.3.1).
* ``reject`` drops the packet and has the router send an answer (nft(8), REJECT STATEMENT); what the router accepts
  for itself is answered too: nothing listens there (RFC 9293, 3.10.7.1; RFC 1122, 3.2.2.1; RFC 4443, 3.1, 4.2).
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import NamedTuple

from tests.truth.language import (
    Assign,
    Bits,
    Chain,
    Change,
    End,
    Every,
    Field,
    In,
    Limit,
    Map,
    Match,
    Nat,
    NoTrack,
    Quota,
    Range,
    Reject,
    Rule,
    Ruleset,
    State,
    Statement,
    Table,
    Verdict,
)
from tests.truth.packets import ACK, ICMP, ICMPV6, RST, SYN, TCP, UDP, Packet

COMPARE: dict[str, Callable[[object, object], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
CONNTRACK, NAT_DST, NAT_SRC = -200, -100, 100
UNTRACKED = "untracked"
CODES = {
    "icmp port-unreachable": (3, 3),
    "icmp host-unreachable": (3, 1),
    "icmp net-unreachable": (3, 0),
    "icmp prot-unreachable": (3, 2),
    "icmp admin-prohibited": (3, 13),
    "icmp host-prohibited": (3, 10),
    "icmpv6 port-unreachable": (1, 4),
    "icmpv6 no-route": (1, 0),
    "icmpv6 admin-prohibited": (1, 1),
    "icmpv6 addr-unreachable": (1, 3),
    "icmpx port-unreachable": (3, 3),
    "icmpx no-route": (3, 0),
    "icmpx admin-prohibited": (3, 13),
    "icmpx host-unreachable": (3, 1),
}
OF_ICMPX = {(3, 3): (1, 4), (3, 0): (1, 0), (3, 13): (1, 1), (3, 1): (1, 3)}
"""``icmpx`` for IPv6 (nft(8), REJECT STATEMENT)."""


class Step(NamedTuple):
    """A rule that applied, or a policy that decided."""

    chain: str
    """Family, table and name."""
    rule: int | None
    verdict: str


@dataclass
class Seen:
    """What became of one packet, and of the answer to it that the router sent."""

    packet: Packet
    """As it came in; from the end on as it left."""
    steps: list[Step] = field(default_factory=list)
    arrived: str = ""
    """The interface by which it left, ``device`` for the router itself, "" when dropped."""
    answer: Seen | None = None


class Ends(NamedTuple):
    src: str
    sport: int
    dst: str
    dport: int
    proto: int

    @property
    def turned(self) -> Ends:
        return Ends(self.dst, self.dport, self.src, self.sport, self.proto)


@dataclass
class Connection:
    original: Ends
    reply: Ends
    mark: int = 0
    answered: bool = False
    confirmed: bool = False
    settled: set[str] = field(default_factory=set)
    """``source`` and ``destination``, once a NAT chain was asked."""


class Tracked(NamedTuple):
    connection: Connection
    is_reply: bool


class Stop(Exception):
    """The packet is dropped."""


class Uncovered(Exception):
    """This reference does not say what happens."""


class Router:
    """A router with ``ruleset``; ``addresses`` are its own, by interface, ``lan`` the prefixes behind ``lan0``."""

    def __init__(self, ruleset: Ruleset, addresses: dict[str, tuple[str, ...]], lan: tuple[str, ...]) -> None:
        self.ruleset = ruleset
        self.addresses = addresses
        self.lan = lan
        self.packets: dict[int, int] = defaultdict(int)
        """Counted by the rule with each number."""
        self.bytes: dict[int, int] = defaultdict(int)
        self.connections: dict[Ends, Tracked] = {}
        self.sets = {
            (table.family, table.name, one.name): set() for table in ruleset.tables for one in table.sets if one.dynamic
        }
        self.used: dict[tuple[int, int], int] = defaultdict(int)
        """Tokens, bytes or turns used by the statement at a place of a rule."""

    # --- the way of a packet ----------------------------------------------------------------------

    def receive(self, packet: Packet) -> Seen:
        """A packet that enters by ``packet.iif``."""
        return self._watched(packet, self._receive)

    def send(self, packet: Packet) -> Seen:
        """A packet of the router's own."""
        return self._watched(packet, self._send)

    def _watched(self, packet: Packet, way: Callable[[_Passage], None]) -> Seen:
        passage = _Passage(self, packet)
        try:
            way(passage)
        except Stop:
            passage.seen.arrived = ""
        return passage.seen

    def _receive(self, one: _Passage) -> None:
        one.hook("ingress")
        one.hook("prerouting")
        if one.packet.dst in self.own:
            one.hook("input")
            one.seen.arrived = "device"
            self._answer(one, _answer_of_host(one.packet))
            return
        one.packet = replace(one.packet, ttl=one.packet.ttl - 1, oif=self.towards(one.packet.dst))
        one.hook("forward")
        self._leave(one)

    def _send(self, one: _Passage) -> None:
        one.packet = replace(one.packet, oif=self.towards(one.packet.dst))
        one.hook("output")
        one.packet = replace(one.packet, oif=self.towards(one.packet.dst))
        self._leave(one)

    def _leave(self, one: _Passage) -> None:
        one.hook("postrouting")
        one.hook("egress")
        one.seen.arrived, one.seen.packet = one.packet.oif, one.packet

    def _answer(self, one: _Passage, answer: Packet | None) -> None:
        if answer is not None:
            one.seen.answer = self._watched(answer, self._send)

    def reject(self, one: _Passage, how: str) -> None:
        if how == "tcp reset":
            self._answer(one, None if one.packet.flags & RST else _reset(one.packet))
        else:
            code = CODES[how or "icmpx port-unreachable"]
            is_v6 = one.packet.version == 6
            self._answer(
                one, _unreachable(one.packet, *(OF_ICMPX.get(code, code) if is_v6 else code), self.source(one))
            )

    def source(self, one: _Passage) -> str:
        """The address from which an ICMP error about a packet is sent: to whom it is, or of where it goes.

        In IPv4's prerouting hook Linux does not know yet that the packet is for the router itself.
        """
        if one.packet.dst in self.own and (one.at != "prerouting" or one.packet.version == 6):
            return one.packet.dst
        near = self.addresses[self.towards(one.packet.src)]
        return next(address for address in near if (":" in address) == (one.packet.version == 6))

    @property
    def own(self) -> set[str]:
        return {address for several in self.addresses.values() for address in several}

    def towards(self, address: str) -> str:
        return "lan0" if address.startswith(self.lan) else "wan0"

    # --- hooks ------------------------------------------------------------------------------------

    def chains(self, hook: str, version: int, device: str) -> Iterator[tuple[int, Table, Chain]]:
        families = {"netdev"} if hook in ("ingress", "egress") else {"inet", f"ip{version}".replace("4", "")}
        for table in self.ruleset.tables:
            for chain in table.chains:
                if table.family in families and chain.hook == hook and chain.device in ("", device):
                    yield chain.priority, table, chain

    def tracks(self, version: int) -> bool:
        """Whether some rule has the kernel track connections of that version: NAT chains alone do not."""
        for table, _, rule in self.ruleset.rules():
            if table.family in ("inet", f"ip{version}".replace("4", "")):
                if isinstance(rule.end, Nat) and (not rule.end.address or rule.end.version == version):
                    return True
                if "ct " in str(rule):
                    return True
        return False


class _Passage:
    """One packet on its way through the hooks."""

    def __init__(self, router: Router, packet: Packet) -> None:
        self.router = router
        self.packet = packet
        self.seen = Seen(packet)
        self.tracked: Tracked | str | None = None
        self.at = ""
        """The hook where the packet is."""

    @property
    def length(self) -> int:
        """Bytes of the packet; at egress with the Ethernet header that it has got by then."""
        return self.packet.length + 14 * (self.at == "egress")

    def hook(self, hook: str) -> None:
        """Evaluate all that stands in ``hook``."""
        self.at = hook
        work: list[tuple[int, Callable[[], None]]] = []
        device = self.packet.oif if hook == "egress" else self.packet.iif
        for priority, table, chain in self.router.chains(hook, self.packet.version, device):
            if chain.kind != "nat":
                work.append((priority, lambda table=table, chain=chain: self._base(table, chain)))
        if hook not in ("ingress", "egress") and self.router.tracks(self.packet.version):
            if hook in ("prerouting", "output"):
                work += [(CONNTRACK, self._track), (NAT_DST, lambda: self._translate(hook, "destination"))]
            if hook in ("input", "postrouting"):
                work += [(NAT_SRC, lambda: self._translate(hook, "source")), (1 << 31, self._confirm)]
        for _, act in sorted(work, key=lambda one: one[0]):
            act()

    def _base(self, table: Table, chain: Chain) -> str:
        verdict = self._chain(table, chain)
        if verdict is None:
            verdict = chain.policy
            self._step(table, chain, None, verdict)
        if verdict == "drop":
            raise Stop
        return verdict

    def _chain(self, table: Table, chain: Chain) -> str | None:
        """``accept`` or ``drop``, or None at the end of the chain."""
        for rule in chain.rules:
            end = self._rule(table, rule)
            if end is None:
                continue
            if isinstance(end, Reject):
                self._step(table, chain, rule, "drop")
                self.router.reject(self, end.how)
                return "drop"
            if isinstance(end, Nat):
                self._step(table, chain, rule, "accept")
                self._nat(end)
                return "accept"
            self._step(table, chain, rule, end.word)
            if end.word in ("accept", "drop"):
                return end.word
            if end.word == "return":
                return None
            if end.word in ("jump", "goto"):
                target = next(one for one in table.chains if one.name == end.chain)
                verdict = self._chain(table, target)
                if verdict is not None or end.word == "goto":
                    return verdict
        return None

    def _step(self, table: Table, chain: Chain, rule: Rule | None, verdict: str) -> None:
        self.seen.steps.append(
            Step(f"{table.family} {table.name} {chain.name}", rule.number if rule else None, verdict)
        )

    # --- one rule ---------------------------------------------------------------------------------

    def _rule(self, table: Table, rule: Rule) -> Verdict | Reject | Nat | None:
        """What a rule says that applies; None for one that does not."""
        if not all(self._matches(table, match) for match in rule.matches):
            return None
        self.router.packets[rule.number] += 1
        self.router.bytes[rule.number] += self.length
        for place, statement in enumerate(rule.statements):
            if not self._applies(table, statement, (rule.number, place)):
                return None
        return self._end(table, rule.end)

    def _end(self, table: Table, end: End | None) -> Verdict | Reject | Nat | None:
        if end is None:
            return Verdict("continue")
        if isinstance(end, Map):
            found = self._look_up(table, end)
            return None if found is None else Verdict.of(str(found))
        return end

    def _matches(self, table: Table, match: Match) -> bool:
        if isinstance(match, State):
            return (self._state() in match.states) is not match.negated
        if isinstance(match, In):
            values = [self.value(one) for one in match.fields]
            if None in values:
                return False
            if match.named and (table.family, table.name, match.named) in self.router.sets:
                found = tuple(values) in self.router.sets[table.family, table.name, match.named]
            else:
                found = any(_within(values, key) for key in match.elements)
            return found is not match.negated
        value = self.value(match.field)
        if value is None:
            return False
        if isinstance(match, Range):
            return _within([value], (match.interval,)) is not match.negated
        if isinstance(match, Bits):
            assert isinstance(value, int)
            return COMPARE[match.operator](value & match.mask, match.value)
        return COMPARE[match.operator](value, match.value)

    def _look_up(self, table: Table, wanted: Map) -> int | str | None:
        values = [self.value(one) for one in wanted.fields]
        if None in values:
            return None
        return next((value for key, value in wanted.elements if _within(values, key)), None)

    def value(self, one: Field) -> int | str | None:
        """Of a field; None where the packet has none."""
        packet = self.packet
        kind, _, name = one.name.partition(" ")
        if kind in ("ip", "ip6"):
            if packet.version != (6 if kind == "ip6" else 4):
                return None
            if name in ("saddr", "daddr"):
                return int(ip_address(packet.src if name == "saddr" else packet.dst))
            return {
                "ttl": packet.ttl,
                "hoplimit": packet.ttl,
                "dscp": packet.dscp,
                "protocol": packet.proto,
                "length": packet.length,
            }[name]
        if kind in ("tcp", "udp", "th"):
            if packet.proto not in {"tcp": (TCP,), "udp": (UDP,), "th": (TCP, UDP)}[kind]:
                return None
            return {
                "sport": packet.sport,
                "dport": packet.dport,
                "flags": packet.flags,
                "length": 8 + packet.payload,
            }[name]
        if kind in ("icmp", "icmpv6"):
            if packet.proto != (ICMP if kind == "icmp" else ICMPV6):
                return None
            if name == "id" and packet.type not in (0, 8):
                return None
            return {"type": packet.type, "id": packet.id}[name]
        if one.name == "ct mark":
            return self.tracked.connection.mark if isinstance(self.tracked, Tracked) else None
        return {
            "iifname": packet.iif,
            "oifname": packet.oif,
            "meta mark": packet.mark,
            "meta l4proto": packet.proto,
            "meta nfproto": 10 if packet.version == 6 else 2,
            "meta length": self.length,
        }[one.name]

    def _applies(self, table: Table, statement: Statement, place: tuple[int, int]) -> bool:
        used = self.router.used
        if isinstance(statement, Limit):
            if used[place] < statement.burst:
                used[place] += 1
                return not statement.over
            return statement.over
        if isinstance(statement, Quota):
            used[place] += self.length
            return (used[place] > statement.bytes) is statement.over
        if isinstance(statement, Every):
            used[place] += 1
            return (used[place] - 1) % statement.modulus == statement.value
        if isinstance(statement, NoTrack):
            self.tracked = self.tracked or UNTRACKED
            return True
        if isinstance(statement, Change):
            values = tuple(self.value(one) for one in statement.fields)
            if None in values:
                return False
            held = self.router.sets[table.family, table.name, statement.named]
            (held.discard if statement.word == "delete" else held.add)(values)
            return True
        return self._assign(table, statement)

    def _assign(self, table: Table, statement: Assign) -> bool:
        value = self._look_up(table, statement.value) if isinstance(statement.value, Map) else statement.value
        if value is None:
            return False
        version = {"ip ttl": 4, "ip dscp": 4, "ip6 hoplimit": 6}.get(statement.target, self.packet.version)
        if version != self.packet.version:
            return False
        assert isinstance(value, int)
        if statement.target == "ct mark":
            if isinstance(self.tracked, Tracked):
                self.tracked.connection.mark = value
            return True
        name = {"meta mark": "mark", "ip dscp": "dscp"}.get(statement.target, "ttl")
        self.packet = replace(self.packet, **{name: value})
        return True

    # --- connections ------------------------------------------------------------------------------

    def _state(self) -> str:
        if self.tracked == UNTRACKED:
            return UNTRACKED
        if not isinstance(self.tracked, Tracked):
            return "invalid"
        return "established" if self.tracked.connection.answered else "new"

    def _ends(self) -> Ends:
        one = self.packet
        ports = (one.sport, one.dport) if one.has_ports else (one.id, one.id)
        return Ends(one.src, ports[0], one.dst, ports[1], one.proto)

    def _track(self) -> None:
        if self.tracked is not None:
            return
        ends = self._ends()
        found = self.router.connections.get(ends)
        if found is None and not _begins(self.packet):
            return
        if found is None:
            found = Tracked(Connection(ends, ends.turned), False)
        if found.is_reply:
            found.connection.answered = True
        self.tracked = found

    def _confirm(self) -> None:
        if isinstance(self.tracked, Tracked) and not self.tracked.connection.confirmed:
            connection = self.tracked.connection
            if {connection.original, connection.reply} & self.router.connections.keys():
                raise Uncovered("the kernel chooses another port where an answer would belong to two connections")
            connection.confirmed = True
            self.router.connections[connection.original] = Tracked(connection, False)
            self.router.connections[connection.reply] = Tracked(connection, True)

    def _translate(self, hook: str, side: str) -> None:
        if not isinstance(self.tracked, Tracked):
            return
        connection, is_reply = self.tracked
        if not is_reply and side not in connection.settled and not connection.confirmed:
            chains = sorted(self.router.chains(hook, self.packet.version, ""), key=lambda one: one[0])
            for _, table, chain in chains:
                if chain.kind == "nat" and side not in connection.settled:
                    self._base(table, chain)
            connection.settled.add(side)
        # What a packet of the other direction would come from is where this one goes.
        aim = (connection.original if is_reply else connection.reply).turned
        if side == "destination":
            self.packet = replace(self.packet, dst=aim.dst, **self._port("dport", aim.dport))
        else:
            self.packet = replace(self.packet, src=aim.src, **self._port("sport", aim.sport))

    def _port(self, name: str, value: int) -> dict[str, int]:
        return {name: value} if self.packet.has_ports else {}

    def _nat(self, nat: Nat) -> None:
        """Settle one side of the connection: what its answers come from or go to."""
        assert isinstance(self.tracked, Tracked)
        connection = self.tracked.connection
        reply = connection.reply
        if nat.kind in ("dnat", "redirect"):
            address = nat.address or self._address_of(self.packet.iif)
            connection.reply = reply._replace(src=address, sport=nat.port or reply.sport)
            connection.settled.add("destination")
        else:
            address = nat.address or self._address_of(self.packet.oif)
            connection.reply = reply._replace(dst=address)
            connection.settled.add("source")

    def _address_of(self, interface: str) -> str:
        addresses = self.router.addresses[interface]
        return next(one for one in addresses if (":" in one) == (self.packet.version == 6))


# --- small rules --------------------------------------------------------------------------------


def _within(values: list[int | str | None], key: tuple[tuple[int | str, int | str], ...]) -> bool:
    return all(
        value == low == high if isinstance(value, str) else low <= value <= high  # type: ignore[operator]
        for value, (low, high) in zip(values, key, strict=True)
    )


def _begins(packet: Packet) -> bool:
    """Whether a packet may begin a connection."""
    if packet.proto == TCP:
        return packet.flags in (SYN, ACK)
    return packet.proto == UDP or packet.type in (8, 128)


def _answer_of_host(packet: Packet) -> Packet | None:
    """What a host on which nothing listens answers."""
    if packet.proto == TCP:
        answer = None if packet.flags & RST else _reset(packet)
        # Linux answers with the type of service of the packet (tcp_v4_send_reset() in net/ipv4/tcp_ipv4.c).
        return replace(answer, dscp=packet.dscp) if answer else None
    if packet.proto == UDP:
        return _unreachable(packet, *((1, 4) if packet.version == 6 else (3, 3)), packet.dst)
    if packet.type == 8 or packet.type == 128:
        kind = 129 if packet.version == 6 else 0
        return Packet(
            *(packet.dst, packet.src, packet.proto), type=kind, id=packet.id, payload=packet.payload, dscp=packet.dscp
        )
    return None


def _reset(packet: Packet) -> Packet:
    flags = RST if packet.flags & ACK else RST | ACK
    return Packet(packet.dst, packet.src, TCP, packet.dport, packet.sport, flags=flags)


def _unreachable(packet: Packet, kind: int, code: int, source: str) -> Packet:
    if packet.version == 6:
        return Packet(source, packet.src, ICMPV6, type=kind, code=code, payload=packet.length)
    # Precedence 6, and the type of service of what it is about (RFC 1812, 4.3.2.5; RFC 1122, 3.2.2).
    dscp = 0b110000 | packet.dscp & 0b000111
    return Packet(source, packet.src, ICMP, type=kind, code=code, payload=packet.length, dscp=dscp)
