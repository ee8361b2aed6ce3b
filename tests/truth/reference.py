"""What a ruleset does with packets, by nft(8) and the kernel's documentation alone: a reference to compare with.

Nothing of ``harness`` is used here. It covers the rulesets of :mod:`tests.truth.language` and packets of
:mod:`tests.truth.packets` on a router, or a bridge with addresses of its own, between two hosts that answer nothing.
Its rules, with where they are from:

* A packet that enters by an interface passes the hooks ingress, prerouting, and input or forward; one that is
  forwarded or comes from the router itself (output) passes postrouting last (nft(8), ADDRESS FAMILIES).
* ARP passes ingress and input of family ``arp``; the answer to a request for an address of the router's passes output
  and egress (nft(8), ARP ADDRESS FAMILY). A frame counts 14 bytes more once it has got its Ethernet header: in egress
  and in ARP's output (arp_create() in net/ipv4/arp.c).
* A frame that enters a port of a bridge passes ingress and prerouting of family ``bridge``, then input if it is sent to
  the bridge's own address, as which interface it is received next; else forward. One of the bridge's own leaves by its
  interface and passes output. Either passes postrouting and egress of the port last, without an input interface
  (nft(8), BRIDGE ADDRESS FAMILY; br_forward_finish() in net/bridge/br_forward.c). A frame for the port that it came
  from is not sent there, one for an address that is not known by all others; known are those from which frames have
  passed prerouting (IEEE 802.1Q, 8.6.1, 8.7, 8.8).
* ``reject`` in family ``bridge`` answers in the name of the one to whom the packet was sent, by the port that it came
  from, through output (nft(8), REJECT STATEMENT); what is no IP it drops.
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

from tests.truth import answers
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
from tests.truth.packets import ACK, ETHERNET, ICMP, ICMPV6, REPLY, REQUEST, SYN, TCP, UDP, Packet

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
    """A router with ``ruleset``; ``addresses`` are its own, by interface, ``lan`` the prefixes behind ``lan0``.

    ``macs`` are its Ethernet addresses by interface, ``neighbours`` those of the hosts at ``wan0`` and ``lan0``.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        addresses: dict[str, tuple[str, ...]],
        lan: tuple[str, ...],
        macs: dict[str, int],
        neighbours: dict[str, int],
    ) -> None:
        self.ruleset = ruleset
        self.addresses = addresses
        self.lan = lan
        self.macs = macs
        self.neighbours = neighbours
        self.stations = {mac: port for port, mac in neighbours.items()}
        """Behind which port of a bridge an Ethernet address is."""
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
        one.hook("ingress", "netdev")
        if one.packet.arp:
            one.hook("input", "arp")
            one.seen.arrived = "device"
            if one.packet.arp == REQUEST and one.packet.dst in self.own:
                self._answer(one, self._reply(one.packet), self._send_arp)
            return
        one.hook("prerouting")
        if one.packet.dst in self.own:
            one.hook("input")
            one.seen.arrived = "device"
            self._answer(one, answers.of_host(one.packet), self._send)
            return
        one.packet = replace(one.packet, ttl=one.packet.ttl - 1, oif=self.interface(one.packet.dst))
        one.hook("forward")
        self._leave(one)

    def _send(self, one: _Passage) -> None:
        one.packet = replace(one.packet, oif=self.interface(one.packet.dst))
        one.hook("output")
        one.packet = replace(one.packet, oif=self.interface(one.packet.dst))
        self._leave(one)

    def _leave(self, one: _Passage) -> None:
        one.hook("postrouting")
        macs = {"smac": self.macs[one.packet.oif], "dmac": self.neighbours[self.towards(one.packet.dst)]}
        one.packet = replace(one.packet, **macs)
        self._transmit(one)

    def _transmit(self, one: _Passage) -> None:
        one.packet = replace(one.packet, iif="")
        one.hook("egress", "netdev")
        one.seen.arrived, one.seen.packet = one.packet.oif, one.packet

    def _answer(self, one: _Passage, answer: Packet | None, way: Callable[[_Passage], None]) -> None:
        if answer is not None:
            one.seen.answer = self._watched(answer, way)

    def _reply(self, asked: Packet) -> Packet:
        ends = {"smac": self.macs[asked.iif], "dmac": asked.smac, "target": asked.smac, "oif": asked.iif}
        return Packet(asked.dst, asked.src, 0, arp=REPLY, **ends)

    def _send_arp(self, one: _Passage) -> None:
        one.hook("output", "arp")
        self._transmit(one)

    def reject(self, one: _Passage, how: str) -> None:
        self._answer(one, answers.rejection(one.packet, how, self.source(one)), self._send)

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
        """The side on which an address is."""
        return "lan0" if address.startswith(self.lan) else "wan0"

    def interface(self, address: str) -> str:
        """The interface by which a packet to an address is sent."""
        return self.towards(address)

    # --- hooks ------------------------------------------------------------------------------------

    def chains(self, hook: str, family: str, version: int, device: str) -> Iterator[tuple[int, Table, Chain]]:
        """Those that a packet meets in a hook of ``family``; "" is that of its IP version."""
        families = {family} if family else {"inet", f"ip{version}".replace("4", "")}
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


class Bridge(Router):
    """A bridge ``br0`` of the ports ``wan0`` and ``lan0``, which has the addresses itself and routes nothing."""

    def _receive(self, one: _Passage) -> None:
        is_own = one.packet.dmac == self.macs["br0"]
        one.packet = replace(one.packet, pkttype=0 if is_own else 3)
        one.hook("ingress", "netdev")
        one.hook("prerouting", "bridge")
        came_by = self.stations[one.packet.smac] = one.packet.iif
        if is_own:
            one.hook("input", "bridge")
            one.packet = replace(one.packet, iif="br0")
            super()._receive(one)
        elif (port := self.stations.get(one.packet.dmac) or {"wan0": "lan0", "lan0": "wan0"}[came_by]) != came_by:
            self._cross(one, "forward", port)

    def _transmit(self, one: _Passage) -> None:
        super()._transmit(one)
        self._cross(one, "output", self.stations[one.packet.dmac])

    def _cross(self, one: _Passage, hook: str, port: str) -> None:
        one.packet = replace(one.packet, oif=port)
        one.hook(hook, "bridge")
        one.packet = replace(one.packet, iif="")
        one.hook("postrouting", "bridge")
        super()._transmit(one)

    def interface(self, address: str) -> str:
        return "br0"

    def reject(self, one: _Passage, how: str) -> None:
        if one.family != "bridge":
            super().reject(one, how)
        elif not one.packet.arp and (answer := answers.rejection(one.packet, how, one.packet.dst)):
            answer = replace(answer, smac=one.packet.dmac, dmac=one.packet.smac, dscp=0)
            self._answer(one, answer, lambda passage: self._cross(passage, "output", one.packet.iif))


class _Passage:
    """One packet on its way through the hooks."""

    def __init__(self, router: Router, packet: Packet) -> None:
        self.router = router
        self.packet = packet
        self.seen = Seen(packet)
        self.tracked: Tracked | str | None = None
        self.at = ""
        """The hook where the packet is."""
        self.family = ""
        """Whose hook; "" is that of its IP version."""

    @property
    def length(self) -> int:
        """Bytes of the packet, with the Ethernet header where it has got one."""
        return self.packet.length + ETHERNET * ((self.family, self.at) in (("netdev", "egress"), ("arp", "output")))

    def hook(self, hook: str, family: str = "") -> None:
        """Evaluate all that stands in ``hook`` of a family."""
        self.at, self.family = hook, family
        work: list[tuple[int, Callable[[], None]]] = []
        device = self.packet.oif if hook == "egress" else self.packet.iif
        for priority, table, chain in self.router.chains(hook, family, self.packet.version, device):
            if chain.kind != "nat":
                work.append((priority, lambda table=table, chain=chain: self._base(table, chain)))
        if not family and self.router.tracks(self.packet.version):
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
        if kind == "ether":
            return {"saddr": packet.smac, "daddr": packet.dmac, "type": packet.ethertype}[name]
        if kind == "arp":
            return self._of_arp(name) if packet.arp else None
        if name in ("ibrname", "obrname"):
            return "br0" if (packet.iif if name == "ibrname" else packet.oif) else ""
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
            "meta l4proto": packet.proto or None,
            "meta pkttype": packet.pkttype,
            "meta nfproto": 10 if packet.version == 6 else 2,
            "meta length": self.length,
        }[one.name]

    def _of_arp(self, name: str) -> int:
        packet = self.packet
        if name in ("saddr ip", "daddr ip"):
            return int(ip_address(packet.src if name == "saddr ip" else packet.dst))
        ends = {"saddr ether": packet.smac, "daddr ether": packet.target}
        return (ends | {"operation": packet.arp, "htype": 1, "ptype": 0x0800})[name]

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
            chains = sorted(self.router.chains(hook, "", self.packet.version, ""), key=lambda one: one[0])
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
