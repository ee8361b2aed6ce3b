"""What the kernel gave of packets that :mod:`harness.batch.sift` sent, read; nothing here touches the system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from harness.batch.messages import Effects, Loaded, Sifted, SiftedStep, Sighting
from harness.batch.reader import EffectReader, Group, LeftBehind
from harness.errors import BrokenMeasurement, HarnessError
from harness.model.observation import Delivery, Loss, Observation, ObservedPacket, Step
from harness.packets.frames import Frame
from harness.packets.headers import ETHERNET, VLAN_TAG, vlan_tags
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace import TraceMessage, decoded
from harness.ruleset.nftrace_steps import TraceSteps
from harness.untrusted import Malformed

ENGINE: Final = "none"
"""Name of the engine that an observation from here has."""
SAME: Final = {
    b"\x08\x00": (slice(9, 10), slice(12, 20)),
    b"\x86\xdd": (slice(6, 7), slice(8, 40)),
    b"\x08\x06": (slice(28),),
}
"""Parts of the network header, by EtherType, that are the packet's own from where it is sent to where it first meets a
hook: protocol and addresses of IPv4 and IPv6, all of ARP."""
FOREIGN: Final = "messages of nf_tables' trace are not those of the packet"


class SightingReader:
    """Makes observations of sightings; ``traced`` has the ruleset of the host ``device``, on a kernel ``kernel``."""

    def __init__(self, traced: TraceSteps, device: str, kernel: str) -> None:
        self._traced = traced
        self._device = device
        self._kernel = kernel

    def steps(self, messages: Iterable[bytes]) -> list[tuple[TraceMessage, Step | None]]:
        """The ``messages`` of a sighting, each with its step; those of tracing chains have none.

        Raises :class:`~harness.untrusted.Malformed` for one that is no kernel's.
        """
        return [(message, self._traced.step(message)) for message in decoded(messages, self._device)]

    def read(self, frame: Frame, seen: Sighting) -> tuple[list[Step], Observation | None]:
        """The steps that were reported when ``frame`` was sent, and what was observed; None where messages are not all
        of that packet. Raises as :meth:`steps`."""
        messages = self.steps(seen.messages)
        steps = [step for _, step in messages if step]
        if not _is_of(messages, frame):
            return steps, None
        own = _own(messages, frame)
        packet = ObservedPacket(
            number=0,
            sender=frame.sender,
            frame=frame.data,
            steps=tuple(step for message, step in messages if step and message.id in own),
            # Without functions nothing says which frame is an answer: all count as arrived.
            deliveries=tuple(
                Delivery(time=-1, host=host, device=device, frame=arrived) for host, device, arrived in seen.arrived
            ),
        )
        observation = Observation(
            packets=(packet,), loss=Loss(), kernel=self._kernel, engine=ENGINE, device=self._device, whole=False
        )
        return steps, observation


def _is_of(messages: Sequence[tuple[TraceMessage, Step | None]], frame: Frame) -> bool:
    """Whether ``messages`` begin where a packet enters a hook first, and that is ``frame`` by :data:`SAME`."""
    if not messages:
        return True
    first, step = messages[0]
    if step is not None:
        return False
    return not first.network or _is_same(first, frame)


def _is_same(message: TraceMessage, frame: Frame) -> bool:
    tags = vlan_tags(frame.data)
    begin = ETHERNET + VLAN_TAG * len(tags)
    same = SAME.get(frame.data[begin - 2 : begin], ())
    # Of two tags, the second may stand where the network header is.
    return len(tags) > 1 or all(frame.data[begin:][part] == message.network[part] for part in same)


def _own(messages: Sequence[tuple[TraceMessage, Step | None]], frame: Frame) -> set[int]:
    """The ids of ``messages`` of the packet itself, which begin with one.

    It gets another one where another interface receives it, such as its bridge, VLAN or lo (the id is of ``skb_iif``
    too: nft_trace_init() in net/netfilter/nf_tables_trace.c). An answer and a copy have others from the first on.
    """
    own: set[int] = set()
    interface = 0
    for message, step in messages:
        is_received_again = not step and message.iif not in (0, interface) and _is_same(message, frame)
        if not own or is_received_again:
            own.add(message.id)
        if message.id in own and message.iif:
            interface = message.iif
    return own


def effects(
    answers: Iterable[Loaded | Sifted], packets: Iterable[Sequence[Sequence[Frame]]]
) -> Iterator[Loaded | Effects]:
    """The answers of a session that sifted ``packets``, with the effects in place of what the kernel gave.

    Raises :class:`~harness.untrusted.Malformed` where they are none of such a session: a guest gave them.
    """
    answers, sent = iter(answers), iter(packets)
    reading: _Reading | None = None
    for answer in answers:
        if isinstance(answer, Loaded):
            reading = _Reading(answer)
            yield answer
        elif (packet := next(sent, None)) is None or (reading is None and not answer.error):
            raise Malformed("the session reports a packet that was not sent")
        else:
            yield reading.effects(packet, answer) if reading else Effects(error=answer.error)


class _Reading:
    """Reads what was seen of packets that came to a ruleset."""

    def __init__(self, loaded: Loaded) -> None:
        if loaded.traced is None:
            raise Malformed("the session does not report what was traced")
        self._device = loaded.traced.device
        ruleset = Ruleset(loaded.traced.chains, loaded.rules)
        steps = TraceSteps(self._device, ruleset, loaded.traced.table, loaded.traced.interfaces)
        self._sightings = SightingReader(steps, self._device, loaded.kernel)
        self._effects = EffectReader(loaded.rules, loaded.timed)

    def effects(self, packet: Sequence[Sequence[Frame]], sifted: Sifted) -> Effects:
        """The effects of ``packet``."""
        if sifted.error:
            return Effects(error=sifted.error)
        if [len(step.sightings) for step in sifted.steps] != [len(frames) for frames in packet]:
            return Effects(error="the session reports other frames than those that were sent")
        try:
            groups = [self._of_step(frames, step) for frames, step in zip(packet, sifted.steps, strict=True)]
            return Effects(seen=self._effects.effects(groups))
        except HarnessError as error:
            return Effects(error=str(error).splitlines()[0])

    def _of_step(self, frames: Sequence[Frame], step: SiftedStep) -> Group:
        steps: list[Step] = []
        observations: list[Observation] = []
        for frame, sighting in zip(frames, step.sightings, strict=True):
            own, observation = self._sightings.read(frame, sighting)
            if observation is None:
                raise BrokenMeasurement(FOREIGN)
            steps += own
            observations.append(observation)
        return frames, observations, LeftBehind.of(steps, self._device, step.elements, step.connections, step.age_s)
