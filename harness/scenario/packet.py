"""From a scenario's ``send`` to the bytes of a frame, and from bytes back to fields.

The addresses that a scenario does not give come from the lab's plan. Building is scapy's work and
reading is not: scapy takes 0.2 s to import, 3 s under emulation, and only building needs it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple

import msgspec

from harness.scenario import icmp
from harness.scenario.models import ARP, IPv4, IPv6, Send
from harness.scenario.network import Network
from harness.scenario.parts import BROADCAST, LOOPBACK, Address, Interface
from harness.scenario.problem import Problem, unknown

MTU = 1500
"""Bytes above the Ethernet header that an interface of a lab takes."""

TRANSPORTS = ("tcp", "udp", "icmp", "icmpv6")


Way = tuple[str, str, int]
"""What two frames must share to leave by one socket: interface, way through, and IP version if that matters."""
Through = Literal["wire", "output"]
"""How a packet leaves: as a frame that an interface sends, or through the output hook of its host's kernel."""


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
    def way(self) -> Way:
        """Frames of one host that are alike in this may leave by one socket."""
        return self.interface, self.through, self.family if self.through == "output" else 0

    @property
    def family(self) -> int:
        """4 or 6 of a frame that holds IP; else 0."""
        return {b"\x08\x00": 4, b"\x86\xdd": 6}.get(self.data[12:14], 0)


class Plan(NamedTuple):
    """What a ``send`` leaves open, filled in from the lab."""

    interface: Interface
    """Where it leaves."""
    through: Through
    source_mac: str
    destination_mac: str
    family: int | None
    """4 or 6; None for a frame that holds neither IP nor ARP."""
    source: Address | None
    destination: Address | None


def plan(send: Send, network: Network) -> Plan:
    """Fill in what ``send`` leaves open.

    Raises :class:`~harness.scenario.problem.Problem`, with keys below ``send``, when it
    contradicts itself or the lab.
    """
    if send.from_ not in network.hosts:
        raise unknown(send.from_, network.hosts, "host of the lab", "from")
    transports = [name for name in TRANSPORTS if getattr(send, name) is not None]
    if len(transports) > 1:
        raise Problem(f"a packet cannot be {transports[0]} and {transports[1]} at once", transports[1])
    if send.arp is not None and (send.ip or send.ip6 or transports):
        other = "ip" if send.ip else "ip6" if send.ip6 else transports[0]
        raise Problem(f"an ARP message has no {other}", other)
    for name, types in (("icmp", icmp.TYPES), ("icmpv6", icmp.TYPES_V6)):
        if (header := getattr(send, name)) is not None:
            try:
                icmp.number(header.type, types)
            except Problem as problem:
                raise problem.below(name, "type") from None

    family, given_source, given_destination = _addresses(send, network)
    if family is None and send.to is None:
        return _plan_raw(send, network)
    if family is None:
        family = 4 if _has(network, send.from_, 4) and _has(network, send.to, 4) else 6
    destination = given_destination
    if destination is None:
        if send.to is None:
            raise Problem("does not say where to", remedy="add to: with a host or an address")
        destination = network.address(send.to, family, towards=send.from_)
        if destination is None:
            raise Problem(f"{send.to} has no IPv{family} address", "to")
    _check_upper_layer(send, family, transports)
    _check_size(send, family)

    ether = send.ether
    through = _through(send, network, family)
    try:
        hop = network.route(send.from_, destination, local=through == "output")
        interface, next_mac = hop.interface, hop.mac
    except Problem as problem:
        if ether is None or ether.dst is None:
            raise problem.below(*(("to",) if send.to else (_layer(send, family), "dst"))) from None
        interface, next_mac = next(iter(network.hosts[send.from_].interfaces.values())), ether.dst
    if send.arp is not None and send.arp.op == "request":
        next_mac = BROADCAST
    source = given_source or (destination if interface.name == LOOPBACK else interface.address(family))
    if source is None:
        remedy = f"give one with {_layer(send, family)}: {{src: …}}"
        raise Problem(f"{interface.end} has no IPv{family} address to send from", remedy=remedy)
    return Plan(
        interface=interface,
        through=through,
        source_mac=(ether and ether.src) or interface.mac,
        destination_mac=(ether and ether.dst) or next_mac,
        family=family,
        source=source,
        destination=destination,
    )


def build(send: Send, network: Network) -> tuple[Frame, ...]:
    """The frames that ``send`` means, in order.

    Raises :class:`~harness.scenario.problem.Problem` as :func:`plan` does.
    """
    planned = plan(send, network)
    data = _prepared.get(_key(send, planned)) or _bytes(send, planned)
    receiver = network.owner(planned.destination) if planned.destination else None
    frame = Frame(
        sender=send.from_,
        interface=planned.interface.name,
        through=planned.through,
        data=data,
        summary=_summary(fields(data), send.from_, receiver),
    )
    return (frame,) * send.count


def count(send: Send) -> int:
    """How many frames :func:`build` makes."""
    return send.count


def prepare(packets: Iterable[tuple[Send, Network]]) -> dict[str, bytes]:
    """Build frames for a process that should do without scapy; it hands them to :func:`use`.

    Packets that contradict themselves or their lab are left out: :func:`build` says why.
    """
    frames = {}
    for send, network in packets:
        with suppress(Problem):
            planned = plan(send, network)
            frames[_key(send, planned)] = _bytes(send, planned)
    return frames


def use(prepared: Mapping[str, bytes]) -> None:
    """Have :func:`build` take frames from :func:`prepare` instead of building them again."""
    _prepared.update(prepared)


_prepared: dict[str, bytes] = {}


def _key(send: Send, planned: Plan) -> str:
    """All that the bytes of a frame depend on. Not JSON: omit_defaults goes by identity, which pickle loses."""
    ends = planned.source_mac, planned.destination_mac, str(planned.source), str(planned.destination)
    return repr((send, ends))


# --- filling in ---------------------------------------------------------------------------------


def _addresses(send: Send, network: Network) -> tuple[int | None, Address | None, Address | None]:
    """The IP version, source and destination that are given; what disagrees is refused."""
    family, because = None, ""
    source = destination = None

    def settle(version: int, reason: str, *keys: str) -> None:
        nonlocal family, because
        if family is not None and family != version:
            raise Problem(f"{reason} is IPv{version}, but {because} is IPv{family}", *keys)
        family, because = version, because or reason

    for name, version in (("ip", 4), ("ip6", 6), ("arp", 4)):
        header: IPv4 | IPv6 | ARP | None = getattr(send, name)
        if header is None:
            continue
        settle(version, name, name)
        if header.src is not None:
            source = _address(header.src, version, name, "src")
        if header.dst is not None:
            destination = _address(header.dst, version, name, "dst")
    for name, version in (("icmp", 4), ("icmpv6", 6)):
        if getattr(send, name) is not None:
            settle(version, name, name)
    if send.to is not None and send.to not in network.hosts:
        try:
            address = ip_address(send.to)
        except ValueError:
            raise unknown(send.to, network.hosts, "host of the lab and no address", "to") from None
        settle(address.version, send.to, "to")
        destination = destination or address
    if send.to == send.from_ and destination is None and network.hosts[send.from_].silent:
        raise Problem(f"{send.to} would send to itself", "to")
    return family, source, destination


def _address(text: str, version: int, *keys: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise Problem(f"'{text}' is not an IPv{version} address", *keys) from None
    if address.version != version:
        raise Problem(f"{text} is not an IPv{version} address", *keys)
    return address


def _plan_raw(send: Send, network: Network) -> Plan:
    """A frame that holds neither IP nor ARP: from the first interface to whoever is at its other end."""
    if send.tcp or send.udp or send.ether is None or send.ether.type is None:
        raise Problem("does not say where to", remedy="add to: with a host or an address")
    interface = next(iter(network.hosts[send.from_].interfaces.values()), None)
    if interface is None:
        raise Problem(f"{send.from_} has no interface", "from")
    peer = network.hosts[interface.peer.host].interfaces[interface.peer.interface]
    return Plan(
        interface=interface,
        through="wire",
        source_mac=send.ether.src or interface.mac,
        destination_mac=send.ether.dst or peer.mac,
        family=None,
        source=None,
        destination=None,
    )


def _through(send: Send, network: Network, family: int) -> Through:
    """What an endpoint sends is a frame, even if its kernel has addresses. Others send as programs on them do."""
    router = send.from_ == network.device or network.hosts[send.from_].forwarding
    if not router or send.arp is not None:
        return "wire"
    if send.from_ != network.device and send.ether is not None:
        return "wire"
    why = f"the kernel of {send.from_} writes the {{}} of what {send.from_} sends"
    if send.ether is not None:
        raise Problem(why.format("Ethernet header"), "ether", remedy="leave ether: out", about_key=True)
    if family == 4 and send.ip is not None and send.ip.checksum is not None:  # raw_send_hdrinc() in net/ipv4/raw.c
        raise Problem(why.format("IPv4 checksum"), "ip", "checksum", remedy="leave it out", about_key=True)
    if family == 4 and send.ip is not None and send.ip.id == 0:
        raise Problem(f"the kernel of {send.from_} takes 0 for none, and chooses one", "ip", "id")
    return "output"


def _check_upper_layer(send: Send, family: int, transports: Sequence[str]) -> None:
    number = send.ip.proto if send.ip else send.ip6.nh if send.ip6 else None
    if not transports and number is None and send.arp is None:
        remedy = "add tcp:, udp:, icmp: or icmpv6:, or its number with " + (
            "ip: {proto: …}" if family == 4 else "ip6: {nh: …}"
        )
        raise Problem("says nothing about what stands above IP", remedy=remedy)


def _check_size(send: Send, family: int) -> None:
    size = (20 if family == 4 else 40) + (20 if send.tcp else 8) + len(_payload(send))
    if size > MTU:
        raise Problem(f"makes a packet of {size} bytes, and the interfaces of a lab take {MTU}", "payload")


def _payload(send: Send) -> bytes:
    return send.payload.encode() if isinstance(send.payload, str) else bytes.fromhex(send.payload.hex)


def _has(network: Network, host: str | None, family: int) -> bool:
    return any(one.address(family) for one in network.hosts[host or ""].interfaces.values())


def _layer(send: Send, family: int) -> str:
    return "arp" if send.arp else "ip" if family == 4 else "ip6"


# --- building -----------------------------------------------------------------------------------


def _bytes(send: Send, planned: Plan) -> bytes:
    # Only what is needed of scapy, only now: see the top.
    from scapy.layers import inet, inet6, l2
    from scapy.packet import Raw

    frame = l2.Ether(src=planned.source_mac, dst=planned.destination_mac)
    if send.ether is not None and send.ether.type is not None:
        frame.type = send.ether.type
    if send.ether is not None and send.ether.vlan is not None:
        frame.type = 0x8100
        frame /= l2.Dot1Q(vlan=send.ether.vlan)
        if send.ether.type is not None:
            frame[l2.Dot1Q].type = send.ether.type
    source, destination = str(planned.source), str(planned.destination)
    if send.arp is not None:
        reply = send.arp.op == "reply"
        frame /= l2.ARP(
            op=2 if reply else 1,
            hwsrc=planned.source_mac,
            psrc=source,
            hwdst=planned.destination_mac if reply else "00:00:00:00:00:00",
            pdst=destination,
        )
    elif planned.family == 4:
        ip = send.ip or IPv4()
        frame /= inet.IP(src=source, dst=destination, ttl=ip.ttl, tos=ip.tos, id=ip.id, flags=ip.flags, frag=ip.frag)
        if ip.proto is not None:
            frame[inet.IP].proto = ip.proto
        frame[inet.IP].chksum = ip.checksum
    elif planned.family == 6:
        ip6 = send.ip6 or IPv6()
        frame /= inet6.IPv6(src=source, dst=destination, hlim=ip6.hlim, tc=ip6.tc, fl=ip6.fl)
        if ip6.nh is not None:
            frame[inet6.IPv6].nh = ip6.nh
    if (tcp := send.tcp) is not None:
        frame /= inet.TCP(
            sport=tcp.sport,
            dport=tcp.dport,
            flags=tcp.flags,
            seq=tcp.seq,
            ack=tcp.ack,
            window=tcp.window,
            chksum=tcp.checksum,
            options=[] if tcp.mss is None else [("MSS", tcp.mss)],
        )
    elif send.udp is not None:
        frame /= inet.UDP(sport=send.udp.sport, dport=send.udp.dport, chksum=send.udp.checksum)
    elif (echo := send.icmp) is not None:
        frame /= inet.ICMP(type=icmp.number(echo.type, icmp.TYPES), code=echo.code, id=echo.id, seq=echo.seq)
    elif (message := send.icmpv6) is not None:
        # After checksum: identifier and sequence number of an echo; reserved, and the target of a
        # neighbour message (RFC 4861 sections 4.3 and 4.4).
        number, body = icmp.number(message.type, icmp.TYPES_V6), bytes(4)
        if number in icmp.ECHO_V6:
            body = struct.pack(">HH", message.id, message.seq)
        elif number in icmp.NEIGHBOUR_V6 and planned.destination:
            body += planned.destination.packed
        frame /= inet6.ICMPv6Unknown(type=number, code=message.code, msgbody=body + _payload(send))
    if (payload := _payload(send)) and send.icmpv6 is None:
        frame /= Raw(payload)
    return bytes(frame)


# --- reading ------------------------------------------------------------------------------------

_FLAGS = "FSRPAUECN"
# Extension headers of IPv6 that may stand before the upper layer: hop-by-hop, routing, fragment,
# destination options, mobility, host identity, shim6 (RFC 7045).
_EXTENSIONS = frozenset({0, 43, 44, 60, 135, 139, 140})
_PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}


def fields(frame: bytes) -> Mapping[str, str | int]:
    """The headers of ``frame``, from Ethernet on, as flat fields; those it does not have are absent.

    ``ether_src ether_dst ether_type vlan``; ``src dst`` (text, of IP or ARP); ``family`` (4, 6),
    ``ttl`` (or hop limit), ``tos`` (or traffic class), ``dscp`` (its upper bits), ``length`` (bytes,
    IP header included), ``proto`` (number), ``protocol`` (name); ``sport dport``; ``flags seq ack
    mss`` of TCP; ``type code`` of ICMP and ICMPv6; ``op`` of ARP. A truncated frame gives the fields up to there.
    """
    found: dict[str, str | int] = {}
    try:
        _read_ethernet(frame, found)
    except (struct.error, IndexError):
        found["truncated"] = 1
    return found


def summarise(frame: bytes) -> str:
    """One line about ``frame``, e.g. ``203.0.113.5:40000 → 10.0.2.2:443 tcp S (IPv4, 40 bytes)``."""
    return _summary(fields(frame))


def _read_ethernet(frame: bytes, found: dict[str, str | int]) -> None:
    found["ether_dst"], found["ether_src"] = frame[:6].hex(":"), frame[6:12].hex(":")
    at, (kind,) = 14, struct.unpack_from(">H", frame, 12)
    while kind in (0x8100, 0x88A8):  # 802.1Q, 802.1ad; the innermost tag counts
        tag, kind = struct.unpack_from(">HH", frame, at)
        found["vlan"] = tag & 0xFFF
        at += 4
    found["ether_type"] = kind
    if kind == 0x0800:
        _read_ipv4(frame[at:], found)
    elif kind == 0x86DD:
        _read_ipv6(frame[at:], found)
    elif kind == 0x0806:
        (operation,) = struct.unpack_from(">H", frame, at + 6)
        source, target = struct.unpack_from(">4s6x4s", frame, at + 14)
        found |= {"protocol": "arp", "op": {1: "request", 2: "reply"}.get(operation, operation)}
        found |= {"src": str(IPv4Address(source)), "dst": str(IPv4Address(target))}


def _read_ipv4(packet: bytes, found: dict[str, str | int]) -> None:
    first, tos, length, _, fragment, ttl, proto, source, destination = struct.unpack_from(">BBHHHBBxx4s4s", packet)
    found |= {"family": 4, "src": str(IPv4Address(source)), "dst": str(IPv4Address(destination))}
    found |= {"ttl": ttl, "tos": tos, "dscp": tos >> 2, "length": length}
    _read_transport(proto, packet[(first & 15) * 4 : length], found, first_fragment=not fragment & 0x1FFF)


def _read_ipv6(packet: bytes, found: dict[str, str | int]) -> None:
    first, length, proto, hops, source, destination = struct.unpack_from(">IHBB16s16s", packet)
    found |= {"family": 6, "src": str(IPv6Address(source)), "dst": str(IPv6Address(destination))}
    found |= {"ttl": hops, "tos": first >> 20 & 0xFF, "dscp": first >> 22 & 0x3F, "length": length + 40}
    at, first_fragment = 40, True
    while proto in _EXTENSIONS and first_fragment:
        header, (proto, size) = proto, struct.unpack_from(">BB", packet, at)
        if header == 44:
            first_fragment = not struct.unpack_from(">H", packet, at + 2)[0] & 0xFFF8
        at += 8 if header == 44 else 8 * (size + 1)
    _read_transport(proto, packet[at : length + 40], found, first_fragment=first_fragment)


def _read_transport(proto: int, data: bytes, found: dict[str, str | int], *, first_fragment: bool) -> None:
    name = _PROTOCOLS.get(proto, str(proto))
    found |= {"proto": proto, "protocol": name}
    if not first_fragment:
        return
    if name in ("tcp", "udp", "sctp", "dccp", "udplite"):
        found["sport"], found["dport"] = struct.unpack_from(">HH", data)
    if name == "tcp":
        found["seq"], found["ack"], bits = struct.unpack_from(">IIH", data, 4)
        found["flags"] = "".join(flag for bit, flag in enumerate(_FLAGS) if bits >> bit & 1)
        _read_options(data[20 : (bits >> 12) * 4], found)
    elif name in ("icmp", "icmpv6"):
        found["type"], found["code"] = struct.unpack_from(">BB", data)


def _read_options(options: bytes, found: dict[str, str | int]) -> None:
    """Of TCP's options only the maximum segment size (RFC 9293 section 3.2)."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 2:
            (found["mss"],) = struct.unpack_from(">H", options, at + 2)
        at += 1 if options[at] == 1 else max(options[at + 1], 2)


def _summary(found: Mapping[str, str | int], sender: str | None = None, receiver: str | None = None) -> str:
    if "src" not in found:
        return f"{found.get('ether_src')} → {found.get('ether_dst')} type 0x{found.get('ether_type', 0):04x}"
    ends = []
    for end, port, name in (("src", "sport", sender), ("dst", "dport", receiver)):
        address = str(found[end])
        if port in found:
            address = f"[{address}]:{found[port]}" if ":" in address else f"{address}:{found[port]}"
        ends.append(f"{name} {address}" if name else address)
    words = [" → ".join(ends), str(found.get("protocol", ""))]
    if found.get("protocol") == "arp":
        return " ".join([*words, str(found["op"])])
    if flags := found.get("flags"):
        words.append(str(flags))
    if "type" in found:
        types = icmp.TYPES if found["protocol"] == "icmp" else icmp.TYPES_V6
        words.append(next((name for name, number in types.items() if number == found["type"]), f"type {found['type']}"))
        if found["code"]:
            words.append(f"code {found['code']}")
    return f"{' '.join(words)} (IPv{found['family']}, {found['length']} bytes)"
