"""From events of a live trace to lines: names for numbers, and the verdicts of chains, rules and hooks."""

from __future__ import annotations

import errno
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from harness.model import layers
from harness.model.observation import Loss
from harness.netfilter import NFPROTO_BRIDGE, PROTOCOLS, WITH_PORTS, hook_name, verdict_name
from harness.trace.lines import (
    DROP,
    FUNC,
    HOOK,
    NFT_CHAIN,
    NFT_RULE,
    REMEMBERED,
    ROUTE,
    EventLine,
    Line,
    Statistics,
)
from harness.tracer.discover import Function
from harness.tracer.events import (
    CHAIN_PRIORITY_SHIFT,
    HOOK_FAMILY_SHIFT,
    PACKET_CPU_SHIFT,
    PORT_PROTOCOL_SHIFT,
    ROUTE_TYPE_IPV6,
    ROUTE_TYPE_SHIFT,
    VERDICT_CODE_SHIFT,
    VERDICT_HIGH_SHIFT,
    Event,
    EventKind,
    EventWithBytes,
    bits_below,
)

CHAIN = "nft_do_chain"
ALL_HOOKS = "nf_hook_slow"
ROUTING = "ip_route_input_noref"
PRIORITIES = {-300: "raw", -150: "mangle", -100: "dstnat", 0: "filter", 50: "security", 100: "srcnat"}
"""As nft(8) calls them; a bridge's have other numbers."""
ROUTES = ("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT")
"""RTN_* (include/uapi/linux/rtnetlink.h)."""
NO_VERDICT = "no verdict"
ICMPV6 = 58
ETHERTYPE_IP6 = 0x86DD


class TracedPacket(msgspec.Struct):
    """A packet being traced: addresses as of its headers when last seen, and its last verdict."""

    number: int
    source: str = "?"
    destination: str = "?"
    protocol: str = ""
    ifindex: int = 0
    """Where it was last seen."""
    buffers: int = 1
    """Its sk_buffs: itself and its copies."""
    verdict: str = NO_VERDICT
    chains: list[str] = []
    """Base chains that it is in, innermost last."""

    @property
    def name(self) -> str:
        """CPU, and order of birth there."""
        return f"{self.number >> PACKET_CPU_SHIFT}.{bits_below(PACKET_CPU_SHIFT, self.number)}"


class Names(Protocol):
    """Names of what events refer to by number."""

    @property
    def functions(self) -> Sequence[Function]:
        """By number."""

    @property
    def reasons(self) -> Mapping[int, str]:
        """``enum skb_drop_reason``."""

    def chain(self, address: int) -> str:
        """``family table chain``."""

    def renamed(self, address: int) -> None:
        """The name of a chain has changed."""

    def symbol(self, address: int) -> str:
        """The function that an address lies in."""

    def stack(self, number: int) -> tuple[str, ...]:
        """The functions of a stack."""

    def device(self, netns: int, index: int) -> str:
        """The name of an interface."""


class EventFormatter:
    """Formats events as lines, in the order of their arrival; freed packets are forgotten."""

    def __init__(self, names: Names) -> None:
        self.finished: list[str] = []
        """Names of packets that are done; the reader empties it."""
        self._names = names
        self._packets: dict[int, TracedPacket] = {}
        self._gone: dict[int, TracedPacket] = {}
        self._born = 0
        self._verdicts: Counter[str] = Counter()
        self._layers: Counter[str] = Counter()
        self._hit: set[int] = set()
        self._kinds: Counter[str] = Counter()
        self._number = 0

    def format_batch(self, events: Iterable[Event | EventWithBytes]) -> Iterator[EventLine]:
        """The lines of ``events``."""
        held: EventLine | None = None
        for event in events:
            if held and event.kind == EventKind.STACK:
                held = EventLine(msgspec.structs.replace(held.line, stack=self._names.stack(event.a)), held.event)
                continue
            if held and event.kind == EventKind.TARGET:
                detail = f"{held.line.detail} → {self._chain_name(event.a)}"
                held = EventLine(msgspec.structs.replace(held.line, detail=detail), held.event)
                continue
            if line := self._line(event):
                if held and self._is_of(held.line, line):
                    line = msgspec.structs.replace(line, number=held.line.number)
                    self._number -= 1
                elif held:
                    yield held
                held = EventLine(line, event)
        if held:
            yield held

    def _is_of(self, entry: Line, line: Line) -> bool:
        """Whether ``line`` is the verdict of the expression whose call is ``entry``: the two become one line."""
        of = line.kind == NFT_RULE and (FUNC, line.function, line.packet) == (entry.kind, entry.function, entry.packet)
        if of:
            self._layers[entry.layer] -= 1
        return of

    def statistics(self, *, armed: int, seconds: float, loss: Loss) -> Statistics:
        """Totals so far; ``armed`` is the number of traced functions."""
        known = [*self._packets.values(), *self._gone.values()]
        verdicts = self._verdicts + Counter(packet.verdict for packet in known)
        return Statistics(
            events=self._number,
            packets=self._born,
            functions=len(self._hit),
            armed=armed,
            chains=self._kinds[NFT_CHAIN],
            rules=self._kinds[NFT_RULE],
            seconds=seconds,
            loss=loss,
            by_layer=dict(self._layers.most_common()),
            by_verdict=dict(verdicts.most_common()),
        )

    def _line(self, event: Event | EventWithBytes) -> Line | None:
        match event.kind:
            case EventKind.BIRTH:
                self._born += 1
                self._packets[event.packet] = TracedPacket(event.packet)
            case EventKind.COPY:
                self._packet(event).buffers += 1
            case EventKind.GONE:
                self._freed(event)
            case EventKind.NAMED:
                self._names.renamed(event.a)
            case EventKind.FROM | EventKind.TO:
                self._address(event)
            case EventKind.HOP:
                return self._entered(event)
            case EventKind.RETURN:
                return self._returned(event)
            case EventKind.VERDICT:
                return self._rule(event)
            case EventKind.ROUTE:
                return self._route(event)
            case EventKind.DROP:
                self._packet(event).verdict = "DROP"
                reason = self._names.reasons.get(event.b & 0xFFFFFFFF, f"reason {event.b:#x}")
                return self._formatted(event, DROP, self._names.symbol(event.a), verdict=reason)
        return None

    def _entered(self, event: Event | EventWithBytes) -> Line:
        name = self._function(event)
        if name != CHAIN:
            return self._formatted(event, FUNC, name)
        self._kinds[NFT_CHAIN] += 1
        chain = self._chain_name(event.a)
        self._packet(event).chains.append(chain)
        family, priority = event.b >> HOOK_FAMILY_SHIFT & 0xFF, event.b >> CHAIN_PRIORITY_SHIFT
        priority -= (priority >> 31) << 32
        called = PRIORITIES.get(priority, "") if family != NFPROTO_BRIDGE else ""
        hook = f"hook {hook_name(family, bits_below(HOOK_FAMILY_SHIFT, event.b))}, priority {priority}" + (
            f" ({called})" if called else ""
        )
        return self._formatted(event, NFT_CHAIN, name, detail=f"{chain}, {hook}")

    def _returned(self, event: Event | EventWithBytes) -> Line | None:
        name = self._function(event)
        packet = self._packet(event)
        value = event.a & 0xFFFFFFFF
        signed = value - (value >> 31 << 32)
        if name == CHAIN:
            verdict = _verdict(value)
            if packet.verdict != "DROP":
                packet.verdict = verdict
            chain = packet.chains.pop() if packet.chains else ""
            return self._formatted(
                event, NFT_CHAIN, name, verdict=verdict, detail=chain + (", policy" if event.b else "")
            )
        if not event.b:
            if not signed and name == ROUTING:
                return None  # the route itself follows
            return self._formatted(event, FUNC, name, detail=f"= {_result(signed)}")
        hook = f"hook {hook_name(event.b >> HOOK_FAMILY_SHIFT & 0xFF, bits_below(HOOK_FAMILY_SHIFT, event.b))}"
        if name != ALL_HOOKS:
            return self._formatted(event, HOOK, name, verdict=_verdict(value), detail=hook)
        # 1: continue; 0: a hook took the packet over; otherwise an error.
        verdict = "ACCEPT" if signed == 1 else "STOLEN" if signed == 0 else "DROP"
        return self._formatted(event, HOOK, name, verdict=verdict, detail=f"{hook}, = {_result(signed)}")

    def _rule(self, event: Event | EventWithBytes) -> Line:
        """A rule's verdict; ``b`` has handle, low byte and high half of the code."""
        self._kinds[NFT_RULE] += 1
        low, high = event.b >> VERDICT_CODE_SHIFT & 0xFF, event.b >> VERDICT_HIGH_SHIFT
        verdict = _verdict((low | 0xFFFFFF00) if low & 0x80 else low)
        if verdict == "QUEUE":
            verdict += f" {high}"
        handle = bits_below(VERDICT_CODE_SHIFT, event.b)
        detail = f"{self._chain_name(event.a)} handle {handle or '?'}"
        return self._formatted(event, NFT_RULE, self._function(event), verdict=verdict, detail=detail)

    def _route(self, event: Event | EventWithBytes) -> Line:
        kind, index = event.ifindex >> ROUTE_TYPE_SHIFT, bits_below(ROUTE_TYPE_SHIFT, event.ifindex)
        gateway = _ip(event.a, event.b, six=kind == ROUTE_TYPE_IPV6) if event.a or event.b else ""
        verdict = "" if kind == ROUTE_TYPE_IPV6 else ROUTES[kind] if kind < len(ROUTES) else str(kind)
        way = [f"via {gateway}"] if gateway else []
        way.append(f"dev {self._names.device(event.netns, index)}")
        # The field ifindex holds the output device; the line shows where the packet is now.
        event = event._replace(ifindex=self._packet(event).ifindex)
        return self._formatted(event, ROUTE, self._function(event), verdict=verdict, detail=" ".join(way))

    def _formatted(
        self, event: Event | EventWithBytes, kind: str, function: str, *, verdict: str = "", detail: str = ""
    ) -> Line:
        self._number += 1
        if kind == DROP:
            layer = layers.layer(function)
        else:
            layer = self._names.functions[event.function].layer
            self._hit.add(event.function)
        self._layers[layer] += 1
        packet = self._packet(event)
        packet.ifindex = event.ifindex
        return Line(
            number=self._number,
            time=event.time,
            packet=packet.name,
            kind=kind,
            layer=layer,
            function=function,
            source=packet.source,
            destination=packet.destination,
            protocol=packet.protocol,
            netns=event.netns,
            ifindex=event.ifindex,
            device=self._names.device(event.netns, event.ifindex) if event.ifindex else "",
            cpu=event.cpu,
            verdict=verdict,
            detail=detail,
        )

    def _function(self, event: Event | EventWithBytes) -> str:
        return self._names.functions[event.function].name

    def _chain_name(self, address: int) -> str:
        return self._names.chain(address) or "?"

    def _packet(self, event: Event | EventWithBytes) -> TracedPacket:
        number = event.packet
        found = self._packets.get(number) or self._gone.get(number)
        if not found:  # born before the trace began, or freed so long ago that it is forgotten
            found = self._gone[number] = TracedPacket(number)
            self._born += 1
        return found

    def _freed(self, event: Event | EventWithBytes) -> None:
        packet = self._packet(event)
        packet.buffers -= 1
        if packet.buffers > 0 or event.packet not in self._packets:
            return
        self._gone[event.packet] = self._packets.pop(event.packet)
        if len(self._gone) > REMEMBERED:
            forgotten = self._gone.pop(next(iter(self._gone)))
            self._verdicts[forgotten.verdict] += 1
            self.finished.append(forgotten.name)

    def _address(self, event: Event | EventWithBytes) -> None:
        protocol, port = event.ifindex >> PORT_PROTOCOL_SHIFT, bits_below(PORT_PROTOCOL_SHIFT, event.ifindex)
        address = _ip(event.a, event.b, six=event.function == ETHERTYPE_IP6)
        if protocol in WITH_PORTS:
            address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        packet = self._packet(event)
        # As in --proto: pcap-filter(7) has another name for it than nft(8).
        packet.protocol = "icmp6" if protocol == ICMPV6 else PROTOCOLS.get(protocol, str(protocol))
        if event.kind == EventKind.FROM:
            packet.source = address
        else:
            packet.destination = address


def _ip(first: int, second: int, *, six: bool) -> str:
    raw = first.to_bytes(8, "little") + second.to_bytes(8, "little")
    return str(ipaddress.IPv6Address(raw)) if six else ".".join(map(str, raw[:4]))


def _result(value: int) -> str:
    name = errno.errorcode.get(-value, "") if value < 0 else ""
    return f"{value} ({name})" if name else str(value)


def _verdict(code: int) -> str:
    """Name of a verdict of nf_tables or a hook, in capitals."""
    return verdict_name(code).upper()
