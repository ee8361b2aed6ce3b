"""A live trace as people and programs read it: a line an event, and statistics at the end."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from harness.observation import Loss
from harness.tracer import layers
from harness.tracer.discover import Function
from harness.tracer.events import Event, Kind

FUNC, NFT_CHAIN, NFT_RULE, DROP = "FUNC", "NFT_CHAIN", "NFT_RULE", "DROP"
WIDTH = 80

CHAIN = "nft_do_chain"
IMMEDIATE = "nft_immediate_eval"

VERDICTS = ("DROP", "ACCEPT", "STOLEN", "QUEUE")
"""NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE (include/uapi/linux/netfilter.h)."""
NFT_VERDICTS = {-1: "CONTINUE", -2: "BREAK", -3: "JUMP", -4: "GOTO", -5: "RETURN"}
"""enum nft_verdicts (include/uapi/linux/netfilter/nf_tables.h)."""

PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 58: "icmp6", 132: "sctp"}
ETHERTYPE_IP6 = 0x86DD
PORTED = frozenset({6, 17, 33, 132})


class Flow(msgspec.Struct):
    """Where a packet comes from and goes to, as its headers said last."""

    source: str = "?"
    destination: str = "?"
    protocol: str = ""

    def __str__(self) -> str:
        return f"{self.source} → {self.destination}"


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
    """Rules that gave a verdict."""
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
            lines += ["", f"{title}:", *(f"  {name:15}: {count:6}" for name, count in counts.items())]
        return "\n".join(lines)


class Teller:
    """Makes lines of events, in the order in which they come.

    ``chains`` looks up chain names by address, ``symbol`` a function by an address inside it, ``stack``
    the functions of a stack by its number; ``reasons`` is ``enum skb_drop_reason``.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        *,
        chain: Callable[[int], str],
        symbol: Callable[[int], str],
        stack: Callable[[int], tuple[str, ...]],
        reasons: Mapping[int, str],
    ) -> None:
        self._functions = functions
        self._chain = chain
        self._symbol = symbol
        self._stack = stack
        self._reasons = reasons
        self._flows: dict[int, Flow] = {}
        self._verdicts: dict[int, str] = {}
        self._layers: Counter[str] = Counter()
        self._hit: set[int] = set()
        self._kinds: Counter[str] = Counter()
        self._number = 0

    def tell(self, events: Iterable[Event]) -> Iterator[Line]:
        """The lines of ``events``."""
        held: Line | None = None
        for event in events:
            if event.kind == Kind.STACK:
                if held:
                    held = msgspec.structs.replace(held, stack=self._stack(event.a))
                continue
            line = self._line(event)
            if line:
                if held:
                    yield held
                held = line
        if held:
            yield held

    def statistics(self, *, armed: int, seconds: float, loss: Loss) -> Statistics:
        """What was told until now; ``armed`` is the number of functions."""
        return Statistics(
            events=self._number,
            packets=len(self._flows),
            functions=len(self._hit),
            armed=armed,
            chains=self._kinds[NFT_CHAIN],
            rules=self._kinds[NFT_RULE],
            seconds=seconds,
            loss=loss,
            by_layer=dict(self._layers.most_common()),
            by_verdict=dict(Counter(self._verdicts.values()).most_common()),
        )

    def _line(self, event: Event) -> Line | None:
        match event.kind:
            case Kind.BIRTH:
                self._flows[event.packet] = Flow()
            case Kind.FROM | Kind.TO:
                self._address(event)
            case Kind.HOP:
                function = self._functions[event.function].name
                if function == CHAIN:
                    self._kinds[NFT_CHAIN] += 1
                    return self._made(event, NFT_CHAIN, function, detail=self._chain(event.a))
                if function == IMMEDIATE:
                    if not event.a:
                        return self._made(event, FUNC, function)
                    self._kinds[NFT_RULE] += 1
                    return self._made(event, NFT_RULE, function, verdict=_verdict(event.a))
                return self._made(event, FUNC, function)
            case Kind.RETURN:
                return self._returned(event)
            case Kind.RULE if event.a:
                function = self._functions[event.function].name
                return self._made(event, NFT_RULE, function, detail=f"handle {event.a}")
            case Kind.DROP:
                self._verdicts[event.packet] = "DROP"
                reason = self._reasons.get(event.b & 0xFFFFFFFF, f"reason {event.b:#x}")
                return self._made(event, DROP, self._symbol(event.a), verdict=reason)
        return None

    def _returned(self, event: Event) -> Line:
        function = self._functions[event.function].name
        value = event.a & 0xFFFFFFFF
        if function != CHAIN:
            return self._made(event, FUNC, function, detail=f"= {value - (1 << 32) if value >> 31 else value}")
        verdict = _verdict(value)
        if self._verdicts.get(event.packet) != "DROP":
            self._verdicts[event.packet] = verdict
        return self._made(event, NFT_CHAIN, function, verdict=verdict)

    def _made(self, event: Event, kind: str, function: str, *, verdict: str = "", detail: str = "") -> Line:
        self._number += 1
        layer = layers.layer(function)
        self._layers[layer] += 1
        if kind != DROP:
            self._hit.add(event.function)
        flow = self._flows.get(event.packet) or Flow()
        return Line(
            number=self._number,
            time=event.time,
            packet=f"{event.packet >> 24}.{event.packet & 0xFFFFFF}",
            kind=kind,
            layer=layer,
            function=function,
            source=flow.source,
            destination=flow.destination,
            protocol=flow.protocol,
            netns=event.netns,
            ifindex=event.ifindex,
            cpu=event.cpu,
            verdict=verdict,
            detail=detail,
        )

    def _address(self, event: Event) -> None:
        raw = event.a.to_bytes(8, "little") + event.b.to_bytes(8, "little")
        protocol, port = event.ifindex >> 16, event.ifindex & 0xFFFF
        six = event.function == ETHERTYPE_IP6
        address = str(ipaddress.IPv6Address(raw)) if six else ".".join(map(str, raw[:4]))
        if protocol in PORTED:
            address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        flow = self._flows.setdefault(event.packet, Flow())
        flow.protocol = PROTOCOLS.get(protocol, str(protocol))
        if event.kind == Kind.FROM:
            flow.source = address
        else:
            flow.destination = address


def grouped(lines: Iterable[Line]) -> Iterator[str]:
    """The lines packet by packet, in the order of their births, each under its number."""
    packets: dict[str, list[Line]] = {}
    for line in lines:
        packets.setdefault(line.packet, []).append(line)
    for number, (_, story) in enumerate(packets.items(), 1):
        first = story[0]
        yield f"packet {number}: {first.source} → {first.destination} {first.protocol}".rstrip()
        yield from map(str, story)
        yield ""


def _verdict(code: int) -> str:
    """Name of a verdict as nf_tables and its hooks give it."""
    code &= 0xFFFFFFFF
    if code >> 31:
        return NFT_VERDICTS.get(code - (1 << 32), str(code - (1 << 32)))
    name = VERDICTS[code & 0xFF] if code & 0xFF < len(VERDICTS) else str(code)
    # NF_DROP_REASON() returns NF_STOLEN with an error above it (include/linux/netfilter.h).
    return "DROP" if name == "STOLEN" and code >> 16 else name
