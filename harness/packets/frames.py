"""From a scenario's ``send`` to the frames that leave its sender.

scapy builds them, which takes 0.2 s to import, 3 s under emulation. So frames can be built in another process:
:func:`prepare`, :func:`use`. Reading them is the work of :mod:`harness.packets.headers`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec
from msgspec import structs

from harness.model.fields import MOST_PACKETS
from harness.model.problem import Problem
from harness.packets.endpoints import Endpoints, Through, check_size, plan_endpoints
from harness.packets.headers import ETHERNET, VLAN_TAG, fields, summary
from harness.packets.spec import Form, Pcap, Send
from harness.topology.network import Network

SendPath = tuple[str, Through, int]
"""What two frames must share to leave by one socket: interface, way through, and IP version if that matters."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A packet ready to be sent."""

    sender: str
    """The host it starts from."""
    interface: str
    """The sender's interface that it leaves by."""
    through: Through
    data: bytes
    """From the Ethernet header on, without frame check sequence."""
    summary: str
    """One line, e.g. ``client 203.0.113.5:40000 → server 10.0.2.2:443 tcp S (IPv4, 40 bytes)``."""

    @property
    def way(self) -> SendPath:
        """Frames of one host that are alike in this may leave by one socket."""
        return self.interface, self.through, self.family if self.through == "output" else 0

    @property
    def family(self) -> int:
        """4 or 6 of a frame that holds IP; else 0."""
        return {b"\x08\x00": 4, b"\x86\xdd": 6}.get(self.data[12:14], 0)


def build(send: Send, network: Network) -> tuple[Frame, ...]:
    """The frames that ``send`` means, in order.

    Raises :class:`~harness.model.problem.Problem`, with keys below ``send``, when it contradicts
    itself or the lab, or when no frame can be built of it.
    """
    made = _made(send, network)
    if len(made) * send.count > MOST_PACKETS:
        count = f"{len(made) * send.count:,}"
        raise Problem(f"makes {count} packets with those before it, and {MOST_PACKETS:,} is the limit", "count")
    return made * send.count


def prepare(packets: Iterable[tuple[Send, Network]]) -> dict[str, bytes]:
    """Build frames for a process that should not import scapy, and passes them to :func:`use`.

    Packets that contradict themselves or their lab are left out: :func:`build` reports why.
    """
    frames = {}
    for send, network in packets:
        with suppress(Problem):
            frames[_key(send, network)] = msgspec.msgpack.encode(_made(send, network))
    return frames


def use(prepared: Mapping[str, bytes]) -> None:
    """Have :func:`build` take frames from :func:`prepare` instead of building them again."""
    _prepared.update(prepared)


_prepared: dict[str, bytes] = {}


def _key(send: Send, network: Network) -> str:
    """What frames depend on, alike in all processes. Not JSON: omit_defaults goes by identity, which pickle loses."""
    said = repr(structs.replace(send, count=1, interval=None, rate=None)) + _said_of(network)
    return hashlib.sha256(said.encode()).hexdigest()


_last_said: list[tuple[Network, str]] = []
"""The lab that was asked for last, which many packets have: in a guest writing it takes longer than reading a frame."""


def _said_of(network: Network) -> str:
    if not _last_said or _last_said[0][0] is not network:
        # The order of a set depends on the interpreter's hash seed.
        hosts = [structs.replace(host, speaking=sorted(host.speaking)) for host in network.hosts.values()]
        _last_said[:] = [(network, repr(structs.replace(network, hosts=hosts)))]
    return _last_said[0][1]


# --- building -----------------------------------------------------------------------------------


class _Packet(NamedTuple):
    """One packet, whichever way it is written."""

    said: Send
    """The addresses and protocol that it gives, as a short form."""
    data: Callable[[Endpoints], bytes]
    """Its bytes, once its ends are known."""
    keys: tuple[str, ...]
    """Where it stands below ``send``; () for the short form itself."""
    number: str = ""
    """Which of several it is, for a sentence."""


def _made(send: Send, network: Network) -> tuple[Frame, ...]:
    """The frames of ``send``, each once."""
    if (prepared := _prepared.get(_key(send, network))) is not None:
        return msgspec.msgpack.decode(prepared, type=tuple[Frame, ...])
    return tuple(_frame(one, network) for one in _FORMS[send.form](send))


def _short(send: Send) -> Iterator[_Packet]:
    from harness.packets import short

    yield _Packet(send, partial(short.data, send), ())


def _long(send: Send) -> Iterator[_Packet]:
    from harness.packets import long

    try:
        made = long.packets(send.packet or "")
        for number, packet in enumerate(made, 1):
            said = Send(from_=send.from_, to=send.to, **long.said(packet))
            yield _Packet(said, partial(long.data, packet), ("packet",), f"packet {number}: " if len(made) > 1 else "")
    except Problem as problem:
        raise problem.below("packet") from None


def _captured(send: Send) -> Iterator[_Packet]:
    from harness.packets import replay

    assert send.pcap is not None
    named = send.pcap if isinstance(send.pcap, Pcap) else Pcap(file=send.pcap)
    try:
        for one in replay.packets(named):
            said = Send(from_=send.from_, **replay.said(one))
            yield _Packet(said, partial(replay.data, one, named.ether == "keep"), ("pcap",), f"packet {one.number}: ")
    except Problem as problem:
        whole = Problem(problem.sentence, "pcap", remedy=problem.remedy)
        raise (problem.below("pcap") if named is send.pcap else whole) from None


_FORMS: Final[Mapping[Form, Callable[[Send], Iterator[_Packet]]]] = {
    "headers": _short,
    "packet": _long,
    "pcap": _captured,
}
"""What reads each form in which packets are written."""


def _frame(packet: _Packet, network: Network) -> Frame:
    said = packet.said
    try:
        planned = plan_endpoints(said, network)
        data = packet.data(planned)
        _check_size(data, planned)
    except Problem as problem:
        if not packet.keys or problem.keys[:1] in (("from",), ("to",)):
            raise
        raise Problem(packet.number + problem.sentence, *packet.keys, remedy=problem.remedy) from None
    receiver = network.owner(planned.destination) if planned.destination else None
    return Frame(
        sender=said.from_,
        interface=planned.interface.name,
        through=planned.through,
        data=data,
        summary=summary(fields(data), said.from_, receiver),
    )


def _check_size(data: bytes, planned: Endpoints) -> None:
    tag = VLAN_TAG * (data[12:14] in (b"\x81\x00", b"\x88\xa8"))
    check_size(len(data) - ETHERNET - tag, planned.interface)
