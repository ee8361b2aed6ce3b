"""The join: what the oracles saw becomes one Observation.

Three watched: the functions of the kernel, nf_tables' own trace, and the interfaces of the other
hosts. Functions know which packet they met, the other two do not; but the functions by which the
kernel reports to them (``nft_trace_notify``, ``packet_rcv``) are traced as well, so each message
and each frame is matched with the call that made it. Where the numbers differ, something was not
seen and the measurement is broken.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import NamedTuple

import msgspec

from harness.errors import BrokenMeasurement, Unsupported
from harness.experiment.apart import LOCAL_DELIVERY
from harness.judge.expectations import refuse_loss
from harness.lab.capture import Captured
from harness.model import layers
from harness.model.observation import Delivery, Drop, Hop, Observation, ObservedPacket, Step, Verdict
from harness.netfilter import hook_name, verdict_name
from harness.packets.headers import framed
from harness.reading.decision import CALL, REFUSED, evaluations
from harness.ruleset.nftrace import TraceMessage
from harness.text import counted
from harness.tracer.events import HOOK_FAMILY_SHIFT, Event, EventKind, bits_below
from harness.tracer.session import TraceData
from harness.tracer.traits import NOTIFY

CAPTURES = "packet_rcv"
"""By this the kernel hands a frame to a capturing socket (net/packet/af_packet.c)."""

CHAIN = "nft_do_chain"

PROBES = "use a kernel with probes on functions, for example --nft-kernel 6.12 --nft-tracer auto"

HOP, RETURN, DROP = int(EventKind.HOP), int(EventKind.RETURN), int(EventKind.DROP)

TRACING = "nft_trace_"
"""What the kernel runs only because it traces begins like this (net/netfilter/nf_tables_trace.c)."""


class JoinContext(NamedTuple):
    """What the join must know of the lab and the kernel."""

    device: str
    """Name of the host under test."""
    tracing_table: str
    """Name of the tables that hold the harness's own tracing chains; these are left out."""
    host: Callable[[int], str]
    """Name of the host by number of its namespace; "" for others."""
    interface: Callable[[int, int], str]
    """Name of an interface by number of the namespace and index; "" for others."""
    drop_reasons: Mapping[int, str]
    """``enum skb_drop_reason`` of the kernel."""
    kernel: str
    engine: str
    traced: frozenset[str]
    untraceable: Mapping[str, str] = {}
    """Functions named and not armed, and why."""
    ruled: frozenset[str] = frozenset()
    """The other hosts that have loaded a ruleset."""
    sockets: Mapping[int, tuple[str, str]] = {}
    """Host and interface of the sockets that capture, by SO_COOKIE: what each was called for it has captured."""
    epoch: int = 0
    """How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, nanoseconds."""


def observe(
    scene: JoinContext,
    recording: TraceData,
    messages: Sequence[tuple[TraceMessage, Step | None]],
    captured: Iterable[Captured],
    *,
    injected: Sequence[bytes] | None,
    sender: str,
    failed: str = "",
    trace_lost: int = 0,
) -> tuple[Observation, ...]:
    """Join what was recorded while ``sender`` injected the frames ``injected``: an observation for each.

    What the kernel made belongs to the frame that was sent last before. ``injected`` is None for what a program
    has sent: only the kernel knows how many packets it made of it, and they are one observation. ``messages``
    are those of nf_tables' trace in order of arrival, each with the step that it means, or None for an
    evaluation that is not the user's. ``trace_lost`` counts overruns there. ``failed`` is the errno of a program's call
    that the kernel refused, maybe before there was a packet.

    Raises :class:`BrokenMeasurement` when something was lost, or the oracles do not fit together.
    """
    loss = msgspec.structs.replace(recording.loss, trace=trace_lost)
    refuse_loss(loss, scene.engine)
    births = [event for event in recording.events if event.kind == EventKind.BIRTH]
    origin = {event.packet: event for event in births}
    steps, headers = _steps(scene, recording, messages, origin)
    deliveries, sent = _deliveries(scene, recording, captured, origin)
    histories = _histories(scene, recording, births)

    frames = iter(injected or ())
    seen: list[list[ObservedPacket]] = [[] for _ in injected or (None,)]
    recognised = 0
    for number, (birth, history) in enumerate(zip(births, histories, strict=True)):
        own = bool(birth.a)
        recognised += own
        if injected is None:
            frame = sent.get(birth.packet) or headers.get(birth.packet, b"")
        else:
            frame = next(frames, b"") if own else b""
        hops = tuple(history.hops) if recording.whole else _with_chains(history.hops, steps[birth.packet])
        seen[min(max(recognised, 1), len(seen)) - 1].append(
            ObservedPacket(
                number=number,
                sender=scene.host(birth.netns),
                born=birth.time + scene.epoch,
                frame=frame,
                injected=own,
                hops=hops,
                steps=tuple(steps[birth.packet]),
                deliveries=(*deliveries[birth.packet], *_taken_in(scene, hops)),
                drop=history.drop or history.dropped_elsewhere,
            )
        )
    if injected is None and not recognised:
        seen[0].append(_unsent(sender, failed, number=len(births)))
    elif injected is not None and recognised != len(injected):
        raise BrokenMeasurement(f"{counted(len(injected), 'packet')} sent from {sender}, {recognised} seen at birth")
    return tuple(
        Observation(
            packets=tuple(packets),
            loss=loss,
            kernel=scene.kernel,
            engine=scene.engine,
            device=scene.device,
            traced=scene.traced,
            untraceable=scene.untraceable,
            whole=recording.whole,
            replies=tuple(_replies(packets)),
        )
        for packets in seen
    )


def _replies(packets: Iterable[ObservedPacket]) -> Iterator[Delivery]:
    """The frames that arrived and that no scenario injected."""
    for packet in packets:
        if not packet.injected:
            yield from (arrived for arrived in packet.deliveries if arrived.frame)


def _unsent(sender: str, failed: str, *, number: int) -> ObservedPacket:
    """The packet that a program's call did not make, because the kernel refused the call with the errno ``failed``."""
    if not failed:
        raise BrokenMeasurement(f"a program on {sender} sent something, but no packet of it was seen")
    return ObservedPacket(number=number, sender=sender, frame=b"", drop=Drop(host=sender, function=CALL, reason=failed))


def _histories(scene: JoinContext, recording: TraceData, births: Sequence[Event]) -> list[_PacketHistory]:
    """The events of each packet, from its birth on."""
    place = cache(lambda netns, ifindex: (scene.host(netns), scene.interface(netns, ifindex)))
    histories = {birth.packet: _PacketHistory(scene, recording, birth, place) for birth in births}
    for event in recording.events:
        if history := histories.get(event.packet):
            if event.kind == RETURN and not history.awaits(event):
                # The last fragment to arrive becomes the whole packet within a hook (skb_morph() in
                # inet_frag_reasm_prepare(), net/ipv4/inet_fragment.c): the call was that of the fragment.
                history = next((one for one in histories.values() if one.awaits(event)), history)
            history.add(event)
    return list(histories.values())


@cache
def _is_tracing(function: str) -> bool:
    """Whether the kernel calls ``function`` only because it traces."""
    return function.lstrip("_").startswith(TRACING)


class _PacketHistory:
    """Makes hops of the events of one packet, which are added in order."""

    def __init__(
        self, scene: JoinContext, recording: TraceData, birth: Event, place: Callable[[int, int], tuple[str, str]]
    ) -> None:
        """``place`` names host and interface by the number of the namespace and the index."""
        self.hops: list[Hop] = []
        self.drop: Drop | None = None
        self.dropped_elsewhere: Drop | None = None
        """On another host that has a ruleset."""
        self._scene = scene
        self._recording = recording
        self._birth = birth
        self._place = place
        self._open: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._hidden: set[int] = set()
        """The sk_buffs that are in one of the harness's own tracing chains."""

    def awaits(self, event: Event) -> bool:
        """Whether the function that returns was entered with this packet."""
        return bool(self._open.get((event.skb, event.function))) or event.skb in self._hidden

    def add(self, event: Event) -> None:
        # Most events are hops, and a packet may have hundreds: what is the same for many is found once.
        if event.kind == HOP:
            self._entered(event)
        elif event.skb not in self._hidden:
            if event.kind == RETURN:
                self._return(event)
            elif event.kind == DROP:
                self._dropped(event)
        elif event.kind == RETURN:
            self._hidden.discard(event.skb)

    def _entered(self, event: Event) -> None:
        """Add a hop, unless it is the harness's own doing: nf_tables' tracing, or in a tracing chain."""
        function = self._recording.functions[event.function]
        if event.skb in self._hidden or _is_tracing(function.name):
            return
        detail = {}
        if function.name == CHAIN:
            detail["chain"] = chain = self._recording.chains.get(event.a, "")
            if chain.split()[1:2] == [self._scene.tracing_table]:
                self._hide(event)
                return
        if function.carries != "sk_buff":
            detail["hook"] = hook_name(event.b >> HOOK_FAMILY_SHIFT, bits_below(HOOK_FAMILY_SHIFT, event.b))
        host, device = self._place(event.netns, event.ifindex)
        self._open[event.skb, event.function].append(len(self.hops))
        self.hops.append(
            Hop(
                time=event.time - self._birth.time,
                cpu=event.cpu,
                host=host,
                device=device,
                function=function.name,
                layer=function.layer,
                detail=detail,
            )
        )

    def _hide(self, event: Event) -> None:
        """Leave out what the packet meets from this nft_do_chain() on until that returns."""
        self._hidden.add(event.skb)
        # nft_do_chain_inet() or its kin, which did nothing else
        if self.hops and self.hops[-1].function.startswith("nft_do_chain_"):
            self.hops.pop()

    def _return(self, event: Event) -> None:
        calls = self._open[event.skb, event.function]
        if not calls:
            raise BrokenMeasurement(f"{self._recording.functions[event.function].name} returned, but was not entered")
        self._annotate(calls.pop(), **_result(self._recording.functions[event.function].name, event.a))

    def _dropped(self, event: Event) -> None:
        reason = self._scene.drop_reasons.get(event.b, str(event.b))
        if self.hops:
            self._annotate(len(self.hops) - 1, reason=reason)
        host = self._scene.host(event.netns)
        # Most hosts other than the device are silent: what reaches them always ends in a drop.
        if self.drop is None and host in (self._scene.device, self._scene.host(self._birth.netns)):
            self.drop = Drop(host=host, function=self._recording.symbol(event.a), reason=reason)
        elif self.dropped_elsewhere is None and host in self._scene.ruled:
            self.dropped_elsewhere = Drop(host=host, function=self._recording.symbol(event.a), reason=reason)

    def _annotate(self, index: int, **detail: str) -> None:
        hop = self.hops[index]
        self.hops[index] = msgspec.structs.replace(hop, detail={**hop.detail, **detail})


def _result(function: str, value: int) -> dict[str, str]:
    value &= 0xFFFFFFFF
    if function == CHAIN:
        return {"verdict": verdict_name(value)}
    return {"result": str(value - (1 << 32) if value >> 31 else value)}


def _steps(
    scene: JoinContext,
    recording: TraceData,
    messages: Sequence[tuple[TraceMessage, Step | None]],
    origin: Mapping[int, Event],
) -> tuple[dict[int, list[Step]], dict[int, bytes]]:
    """The steps of each packet, and the headers with which it was first traced, behind an Ethernet header."""
    steps = defaultdict(list)
    headers: dict[int, bytes] = {}
    for event, (message, step) in _reported(scene, recording, messages):
        # At the end of a chain the message names no rule, though the function gets the last one.
        if message.handle and event.a != message.handle and recording.whole:
            raise BrokenMeasurement(
                f"nf_tables' trace reports rule {message.handle} in {message.family} {message.table} "
                f"{message.chain} where {NOTIFY} was called for rule {event.a}"
            )
        if message.network:
            headers.setdefault(event.packet, framed(message.network + message.transport))
        if step:
            steps[event.packet].append(msgspec.structs.replace(step, time=event.time - origin[event.packet].time))
    return steps, headers


def _reported(
    scene: JoinContext, recording: TraceData, messages: Sequence[tuple[TraceMessage, Step | None]]
) -> Iterator[tuple[Event, tuple[TraceMessage, Step | None]]]:
    """Yield the calls by which the kernel reports to nf_tables' trace, each with its message.

    Raises :class:`BrokenMeasurement` when there is a call without a message, or a message without a call.
    """
    calls = [event for event in recording.events if event.kind == EventKind.RULE]
    later = sum(event.kind == EventKind.RULE for event in recording.later)
    if (called := _called(len(messages), len(calls), later)) != len(messages):
        raise BrokenMeasurement(
            f"{counted(called, 'call')} of {NOTIFY}, but {counted(len(messages), 'message')} of the trace"
        )
    # Several CPUs may report at once, and then only calls and messages with the same id are in the same order.
    # Before v6.4 the kernel computes the id too late for us to see it.
    has_ids = any(event.b for event in calls)
    arrived: dict[tuple[str, int], deque[tuple[TraceMessage, Step | None]]] = defaultdict(deque)
    senders = dict.fromkeys(message.host for message, _ in messages)
    for message, step in messages:
        arrived[message.host, message.id if has_ids else 0].append((message, step))
    for event in calls:
        # The kernel puts the id into the message without turning it to network byte order.
        number = int.from_bytes(event.b.to_bytes(4, sys.byteorder), "big")
        # What was sent out by fwd may be on another host already when the rule is reported.
        here = scene.host(event.netns)
        queue = next((arrived[host, number] for host in (here, *senders) if arrived[host, number]), None)
        if not queue:
            raise BrokenMeasurement(f"{NOTIFY} was called for packet {number:08x}, of which no message arrived")
        yield event, queue.popleft()


def _deliveries(
    scene: JoinContext, recording: TraceData, captured: Iterable[Captured], origin: Mapping[int, Event]
) -> tuple[dict[int, list[Delivery]], dict[int, bytes]]:
    """What arrived, and what endpoints sent by themselves, by packet."""
    calls, calls_later = (_calls(scene, recording, events) for events in (recording.events, recording.later))
    if not recording.whole:  # no tracepoint reports those that go out
        captured = [frame for frame in captured if not frame.outgoing]
    deliveries: dict[int, list[Delivery]] = defaultdict(list)
    sent: dict[int, bytes] = {}
    arrivals: dict[int, list[Captured]] = defaultdict(list)
    for frame in captured:
        arrivals[frame.cookie].append(frame)
    places = {cookie: (frames[0].host, frames[0].device) for cookie, frames in arrivals.items()}
    # Calls for foreign sockets, of a tcpdump on the machine for instance, are left over.
    for cookie, (host, device) in sorted({**scene.sockets, **places}.items()):
        arrived = arrivals[cookie]
        place = cookie if recording.whole else (host, device)
        received, later = calls.get(place, ()), len(calls_later.get(place, ()))
        if arrived and not received and not later and not recording.whole:
            raise Unsupported(f"no tracepoint reports what arrives at {device} of {host}", remedy=PROBES)
        if (called := _called(len(arrived), len(received), later)) != len(arrived):
            raise BrokenMeasurement(
                f"{host} received {counted(called, 'frame')} at {device}, but captured {len(arrived)}"
            )
        for event, frame in zip(received, arrived, strict=False):
            if frame.outgoing:
                sent.setdefault(event.packet, frame.frame)
                continue
            birth = origin[event.packet]
            delivery = Delivery(time=event.time - birth.time, host=frame.host, device=frame.device, frame=frame.frame)
            deliveries[event.packet].append(delivery)
    return deliveries, sent


def _called(arrived: int, recorded: int, later: int) -> int:
    """How many calls account for what has ``arrived``: all ``recorded`` ones, and as many ``later`` ones as needed."""
    return min(max(arrived, recorded), recorded + later)


def _calls(scene: JoinContext, recording: TraceData, events: Iterable[Event]) -> dict[object, list[Event]]:
    """The events by which capturing sockets received frames: calls by a socket's cookie, where functions are watched.

    Else packets that came in by an interface, by host and interface: its capturing socket receives each of them.
    """
    calls: dict[object, list[Event]] = defaultdict(list)
    for event in events:
        if not recording.whole and event.kind == EventKind.RECEIVED:
            calls[scene.host(event.netns), scene.interface(event.netns, event.ifindex)].append(event)
        elif event.kind == EventKind.HOP and recording.functions[event.function].name == CAPTURES:
            calls[event.a].append(event)
    return calls


def _with_chains(hops: Iterable[Hop], steps: Sequence[Step]) -> tuple[Hop, ...]:
    """The hops, with a call of nft_do_chain for each evaluation that the trace reports: it says more than a stack."""
    calls = [
        Hop(
            time=run[0].time,
            cpu=0,
            host=run[0].host,
            device="",
            function=CHAIN,
            layer=layers.layer(CHAIN),
            detail={
                "chain": run[0].chain_path,
                "hook": run[0].hook,
                "verdict": str(Verdict.DROP if run[-1].verdict in REFUSED else run[-1].verdict),
            },
        )
        for run in evaluations(steps)
    ]
    others = (hop for hop in hops if hop.function != CHAIN)
    return tuple(sorted((*others, *calls), key=attrgetter("time")))


def _taken_in(scene: JoinContext, hops: Iterable[Hop]) -> Iterable[Delivery]:
    """The device captures nothing; that it keeps a packet shows in a function, without the bytes."""
    for hop in hops:
        if hop.host == scene.device and hop.function in LOCAL_DELIVERY:
            yield Delivery(time=hop.time, host=hop.host, device=hop.device, frame=b"")
            return
