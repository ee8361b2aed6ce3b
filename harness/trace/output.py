"""A live trace as people and programs read it: a line an event, and statistics at the end."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from harness.model import layers
from harness.model.observation import Loss
from harness.netfilter import NFPROTO_BRIDGE, PROTOCOLS, WITH_PORTS, hook_name, verdict_name
from harness.report.pcapng import COOKED, ETHERNET, Writer
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind, EventWithBytes

FUNC, NFT_CHAIN, NFT_RULE, DROP = "FUNC", "NFT_CHAIN", "NFT_RULE", "DROP"
"""Kinds of lines, as the tool's ancestor had them."""
HOOK, ROUTE = "HOOK", "ROUTE"
"""What a hook of netfilter that is not nf_tables' answered, or all of one; and where the kernel sends a packet."""
WIDTH = 80

CHAIN = "nft_do_chain"
ALL_HOOKS = "nf_hook_slow"
ROUTING = "ip_route_input_noref"
PRIORITIES = {-300: "raw", -150: "mangle", -100: "dstnat", 0: "filter", 50: "security", 100: "srcnat"}
"""As nft(8) calls them; a bridge's have other numbers."""
ROUTES = ("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT")
"""RTN_* (include/uapi/linux/rtnetlink.h)."""
IPV6_ROUTE = 255
NO_VERDICT = "no verdict"

ICMPV6 = 58
ETHERTYPE_IP6 = 0x86DD

REMEMBERED = 1024
"""Packets that are gone and yet known: a function that gave one up may still have to return."""


class Packet(msgspec.Struct):
    """A packet on its way: where it comes from and goes to, as its headers said last, and what was decided."""

    number: int
    source: str = "?"
    destination: str = "?"
    protocol: str = ""
    ifindex: int = 0
    """Where it was seen last."""
    buffers: int = 1
    """Its sk_buffs: itself and its copies."""
    verdict: str = NO_VERDICT
    chains: list[str] = []
    """Base chains that it is in, the innermost last."""

    @property
    def name(self) -> str:
        """CPU and order of birth there."""
        return f"{self.number >> 24}.{self.number & 0xFFFFFF}"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it is shown."""

    number: int
    """From 1, in the order of what happened."""
    time: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    packet: str
    """Which packet, the copies of one included."""
    kind: str
    layer: str
    function: str
    source: str
    destination: str
    protocol: str
    netns: int
    ifindex: int
    device: str
    """Its name; "" when the packet is at none."""
    cpu: int
    verdict: str = ""
    """Of the rule, chain or function; for a drop its reason."""
    detail: str = ""
    stack: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As the tool's ancestor printed it."""
        flow = f"{self.source} → {self.destination}"
        verdict = f" [{self.verdict}]" if self.verdict else ""
        detail = f" {self.detail}" if self.detail else ""
        above = "".join(f"\n{'':30}{function}" for function in self.stack)
        return f"[{self.number:4}] {self.kind:10} {self.layer:10} {self.function:30} {flow}{verdict}{detail}{above}"


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace came to."""

    events: int
    packets: int
    functions: int
    """Different ones that a packet met."""
    armed: int
    chains: int
    """Entries into a chain from a hook."""
    rules: int
    """Verdicts that rules gave."""
    seconds: float
    loss: Loss
    by_layer: Mapping[str, int]
    by_verdict: Mapping[str, int]
    """Packets by what became of them, as far as a ruleset or a drop said it."""

    def __str__(self) -> str:
        loss = self.loss
        unaccounted = loss.entered - loss.received - loss.refused
        rows = {
            "Total events": f"{self.events} in {self.seconds:.1f} s",
            "Packets traced": str(self.packets),
            "Functions hit": f"{self.functions} of {self.armed}",
            "NFT chains": str(self.chains),
            "NFT rules": str(self.rules),
            "Lost": f"{loss.total} (refused {loss.refused}, missed {loss.missed}, untracked {loss.untracked}, "
            f"unaccounted {unaccounted})",
        }
        lines = ["TRACE STATISTICS", "=" * WIDTH, *(f"{name + ':':20}{value}" for name, value in rows.items())]
        for title, counts in (("Events by Layer", self.by_layer), ("Packets by Verdict", self.by_verdict)):
            if counts:
                lines += ["", f"{title}:", *(f"  {name:15}: {count:6}" for name, count in counts.items())]
        return "\n".join(lines)


class Names(Protocol):
    """What events speak of by number."""

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


class EventLine(NamedTuple):
    """A line, and the event that it is about."""

    line: Line
    event: Event | EventWithBytes


class EventFormatter:
    """Makes lines of events, in the order in which they come, and forgets packets that are gone."""

    def __init__(self, names: Names) -> None:
        self.finished: list[str] = []
        """Packets of which no line will follow; for the reader to empty."""
        self._names = names
        self._packets: dict[int, Packet] = {}
        self._gone: dict[int, Packet] = {}
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
        """Whether ``line`` is the verdict of the expression that ``entry`` is the call of: both are one line."""
        of = line.kind == NFT_RULE and (FUNC, line.function, line.packet) == (entry.kind, entry.function, entry.packet)
        if of:
            self._layers[entry.layer] -= 1
        return of

    def statistics(self, *, armed: int, seconds: float, loss: Loss) -> Statistics:
        """What was told until now; ``armed`` is the number of functions."""
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
                self._packets[event.packet] = Packet(event.packet)
            case EventKind.COPY:
                self._packet(event).buffers += 1
            case EventKind.GONE:
                self._leave(event)
            case EventKind.NAMED:
                self._names.renamed(event.a)
            case EventKind.FROM | EventKind.TO:
                self._address(event)
            case EventKind.HOP:
                return self._entered(event)
            case EventKind.RETURN:
                return self._returned(event)
            case EventKind.VERDICT:
                return self._ruled(event)
            case EventKind.ROUTE:
                return self._routed(event)
            case EventKind.DROP:
                self._packet(event).verdict = "DROP"
                reason = self._names.reasons.get(event.b & 0xFFFFFFFF, f"reason {event.b:#x}")
                return self._made(event, DROP, self._names.symbol(event.a), verdict=reason)
        return None

    def _entered(self, event: Event | EventWithBytes) -> Line:
        name = self._function(event)
        if name != CHAIN:
            return self._made(event, FUNC, name)
        self._kinds[NFT_CHAIN] += 1
        chain = self._chain_name(event.a)
        self._packet(event).chains.append(chain)
        family, priority = event.b >> 8 & 0xFF, event.b >> 32
        priority -= (priority >> 31) << 32
        called = PRIORITIES.get(priority, "") if family != NFPROTO_BRIDGE else ""
        hook = f"hook {hook_name(family, event.b & 0xFF)}, priority {priority}" + (f" ({called})" if called else "")
        return self._made(event, NFT_CHAIN, name, detail=f"{chain}, {hook}")

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
            return self._made(event, NFT_CHAIN, name, verdict=verdict, detail=chain + (", policy" if event.b else ""))
        if not event.b:
            if not signed and name == ROUTING:
                return None  # the route itself follows
            return self._made(event, FUNC, name, detail=f"= {_result(signed)}")
        hook = f"hook {hook_name(event.b >> 8 & 0xFF, event.b & 0xFF)}"
        if name != ALL_HOOKS:
            return self._made(event, HOOK, name, verdict=_verdict(value), detail=hook)
        # It tells its caller whether to go on: 1, or 0 when somebody else has the packet, or an error.
        verdict = "ACCEPT" if signed == 1 else "STOLEN" if signed == 0 else "DROP"
        return self._made(event, HOOK, name, verdict=verdict, detail=f"{hook}, = {_result(signed)}")

    def _ruled(self, event: Event | EventWithBytes) -> Line:
        """A rule's verdict: handle, the code's low byte, its high half."""
        self._kinds[NFT_RULE] += 1
        low, high = event.b >> 40 & 0xFF, event.b >> 48
        verdict = _verdict((low | 0xFFFFFF00) if low & 0x80 else low)
        if verdict == "QUEUE":
            verdict += f" {high}"
        handle = event.b & (1 << 40) - 1
        detail = f"{self._chain_name(event.a)} handle {handle or '?'}"
        return self._made(event, NFT_RULE, self._function(event), verdict=verdict, detail=detail)

    def _routed(self, event: Event | EventWithBytes) -> Line:
        kind, index = event.ifindex >> 24, event.ifindex & 0xFFFFFF
        gateway = _ip(event.a, event.b, six=kind == IPV6_ROUTE) if event.a or event.b else ""
        verdict = "" if kind == IPV6_ROUTE else ROUTES[kind] if kind < len(ROUTES) else str(kind)
        way = [f"via {gateway}"] if gateway else []
        way.append(f"dev {self._names.device(event.netns, index)}")
        # Where the packet is now is not where it goes: that field was needed for the other.
        event = event._replace(ifindex=self._packet(event).ifindex)
        return self._made(event, ROUTE, self._function(event), verdict=verdict, detail=" ".join(way))

    def _made(
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

    def _packet(self, event: Event | EventWithBytes) -> Packet:
        number = event.packet
        found = self._packets.get(number) or self._gone.get(number)
        if not found:  # born before we looked, or gone so long ago that it is forgotten
            found = self._gone[number] = Packet(number)
            self._born += 1
        return found

    def _leave(self, event: Event | EventWithBytes) -> None:
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
        protocol, port = event.ifindex >> 16, event.ifindex & 0xFFFF
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


def grouped(told: Iterable[EventLine], finished: list[str]) -> Iterator[str]:
    """The lines packet by packet: of those ``finished`` as soon as they are, of the others at the end."""
    packets: dict[str, list[Line]] = {}
    for number, (line, _) in enumerate(told):
        packets.setdefault(line.packet, []).append(line)
        if number % REMEMBERED == 0:
            for name in finished:
                yield from _story(packets.pop(name, []))
            finished.clear()
    for lines in packets.values():
        yield from _story(lines)


def _story(lines: Sequence[Line]) -> Iterator[str]:
    if lines:
        first = lines[0]
        yield f"packet {first.packet}: {first.source} → {first.destination} {first.protocol}".rstrip()
        yield from map(str, lines)
        yield ""


class EventCapture:
    """Writes what is told into a capture file: each event with the packet's bytes at that moment.

    ``epoch`` is how far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, nanoseconds.
    """

    def __init__(self, file: BinaryIO, epoch: int) -> None:
        self._writer = Writer(file, "each record is a function that a packet met, with its bytes there and then")
        self._epoch = epoch
        self._interfaces: dict[tuple[int, str, int], int] = {}

    def add(self, line: Line, event: EventWithBytes) -> None:
        """Write one event."""
        link = COOKED if event.protocol else ETHERNET
        key = line.netns, line.device, link
        if key not in self._interfaces:
            name = line.device or "none"
            self._interfaces[key] = self._writer.interface(name, f"network namespace {line.netns}", link)
        # No Ethernet header (yet): the one of LINKTYPE_LINUX_SLL says which protocol it is, and no more.
        head = COOKED_HEADER.pack(0, ARPHRD_NONE, 0, b"", event.protocol) if event.protocol else b""
        verdict = f"[{line.verdict}]" if line.verdict else ""
        comment = " ".join(filter(None, (f"packet {line.packet}:", line.kind, line.function, verdict, line.detail)))
        self._writer.packet(
            self._interfaces[key],
            event.time + self._epoch,
            head + event.data[: event.here],
            length=len(head) + max(event.length, event.here),
            comment=f"{comment}\nlayer {line.layer}",
        )


COOKED_HEADER = struct.Struct("!HHH8sH")
ARPHRD_NONE = 0xFFFE


def _ip(first: int, second: int, *, six: bool) -> str:
    raw = first.to_bytes(8, "little") + second.to_bytes(8, "little")
    return str(ipaddress.IPv6Address(raw)) if six else ".".join(map(str, raw[:4]))


def _result(value: int) -> str:
    name = errno.errorcode.get(-value, "") if value < 0 else ""
    return f"{value} ({name})" if name else str(value)


def _verdict(code: int) -> str:
    """Name of a verdict as nf_tables and its hooks give it."""
    return verdict_name(code).upper()
