"""The short form of a packet, header by header, becomes the bytes of a frame."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from harness.packets import icmp
from harness.packets.endpoints import Endpoints, payload
from harness.packets.isolation import alone
from harness.packets.spec import (
    ARP,
    GRE,
    ICMP,
    SCTP,
    TCP,
    UDP,
    Extension,
    Fragment,
    ICMPv6,
    IPv4,
    IPv6,
    Routing,
    Send,
)
from harness.topology.parts import Address


def data(send: Send, planned: Endpoints) -> bytes:
    """The frame that ``send`` means, from the Ethernet header on."""
    from scapy.packet import Raw

    frame = _ethernet(send, planned)
    if send.arp is not None:
        frame /= _arp(send.arp, planned)
    elif planned.family == 4:
        frame /= _ipv4(send.ip or IPv4(), planned)
    elif planned.family == 6:
        frame /= _ipv6(send, planned)
    load = payload(send)
    if (upper := _upper_layer(send, planned, load)) is not None:
        frame /= upper
    if load and send.icmpv6 is None and send.sctp is None:
        frame /= Raw(load)
    with alone():
        return bytes(frame)


# Only what is needed of scapy, only where it is: its import takes 0.2 s, 3 s under emulation.


def _ethernet(send: Send, planned: Endpoints) -> Any:
    from scapy.layers import l2

    frame = l2.Ether(src=planned.source_mac, dst=planned.destination_mac)
    if send.ether is not None and send.ether.type is not None:
        frame.type = send.ether.type
    if send.ether is not None and send.ether.vlan is not None:
        frame.type = 0x8100
        frame /= l2.Dot1Q(vlan=send.ether.vlan)
        if send.ether.type is not None:
            frame[l2.Dot1Q].type = send.ether.type
    return frame


def _arp(message: ARP, planned: Endpoints) -> Any:
    from scapy.layers import l2

    reply = message.op == "reply"
    return l2.ARP(
        op=2 if reply else 1,
        hwsrc=planned.source_mac,
        psrc=str(planned.source),
        hwdst=planned.destination_mac if reply else "00:00:00:00:00:00",
        pdst=str(planned.destination),
    )


def _ipv4(header: IPv4, planned: Endpoints) -> Any:
    from scapy.layers import inet

    source, destination = str(planned.source), str(planned.destination)
    ip = inet.IP(src=source, dst=destination, ttl=header.ttl, tos=header.tos, id=header.id)
    ip.flags, ip.frag = header.flags, header.frag
    if header.proto is not None:
        ip.proto = header.proto
    ip.chksum = header.checksum
    ip.options = [_option(name, destination) for name in header.options]
    return ip


def _ipv6(send: Send, planned: Endpoints) -> Any:
    from scapy.layers import inet6

    header = send.ip6 or IPv6()
    source, destination = str(planned.source), str(planned.destination)
    ip = inet6.IPv6(src=source, dst=destination, hlim=_hop_limit(send, header), tc=header.tc, fl=header.fl)
    for extension in header.headers:
        ip /= _extension(extension)
    if header.nh is not None:
        ip.lastlayer().nh = header.nh
    return ip


def _upper_layer(send: Send, planned: Endpoints, load: bytes) -> Any | None:
    """The header above IP, if ``send`` has one; for SCTP and ICMPv6 with ``load`` in it."""
    if send.tcp is not None:
        return _tcp(send.tcp)
    if send.udp is not None:
        return _udp(send.udp)
    if send.sctp is not None:
        return _sctp(send.sctp, load)
    if send.gre is not None:
        return _gre(send.gre)
    if send.icmp is not None:
        return _icmp(send.icmp)
    return None if send.icmpv6 is None else _icmpv6(send.icmpv6, planned.destination, load)


def _tcp(header: TCP) -> Any:
    from scapy.layers import inet

    return inet.TCP(
        sport=header.sport,
        dport=header.dport,
        flags=header.flags,
        seq=header.seq,
        ack=header.ack,
        window=header.window,
        chksum=header.checksum,
        options=[] if header.mss is None else [("MSS", header.mss)],
    )


def _udp(header: UDP) -> Any:
    from scapy.layers import inet

    return inet.UDP(sport=header.sport, dport=header.dport, chksum=header.checksum)


def _gre(header: GRE) -> Any:
    from scapy.layers import l2

    return l2.GRE(proto=header.protocol, key_present=int(header.key is not None), key=header.key)


def _icmp(message: ICMP) -> Any:
    from scapy.layers import inet

    number = icmp.number(message.type, icmp.TYPES)
    return inet.ICMP(type=number, code=message.code, id=message.id, seq=message.seq)


def _icmpv6(message: ICMPv6, destination: Address | None, load: bytes) -> Any:
    """After checksum: identifier and sequence number of an echo; reserved, and the target of a neighbour message.

    See RFC 4861 sections 4.3 and 4.4.
    """
    from scapy.layers import inet6

    number, body = icmp.number(message.type, icmp.TYPES_V6), bytes(4)
    if number in icmp.ECHO_V6:
        body = struct.pack(">HH", message.id, message.seq)
    elif number in icmp.NEIGHBOUR_V6 and destination:
        body += destination.packed
    return inet6.ICMPv6Unknown(type=number, code=message.code, msgbody=body + load)


def _hop_limit(send: Send, header: IPv6) -> int:
    """The one given, or that of a packet that no router has touched where the kernel takes no other."""
    if header.hlim is not None:
        return header.hlim
    message = send.icmpv6
    return 255 if message and icmp.number(message.type, icmp.TYPES_V6) in icmp.DISCOVERY_V6 else 64


def _option(name: str, destination: str) -> Any:
    """An option of IPv4; a route has one stop, the destination itself (RFC 791 section 3.1)."""
    from scapy.layers import inet

    if name == "ra":
        return inet.IPOption_Router_Alert()
    kind = {"rr": inet.IPOption_RR, "lsrr": inet.IPOption_LSRR, "ssrr": inet.IPOption_SSRR}[name]
    # The stop is still to come: the kernel takes no other route for one when nft asks (ip_options.c).
    return kind(routers=["0.0.0.0" if name == "rr" else destination])


def _extension(header: str | Extension) -> Any:
    """An extension header of IPv6; options are padding alone."""
    from scapy.layers import inet6

    if header == "hbh":
        return inet6.IPv6ExtHdrHopByHop()
    if header == "dst":
        return inet6.IPv6ExtHdrDestOpt()
    fields = Extension(rt=Routing() if header == "rt" else None, frag=Fragment() if header == "frag" else None)
    if isinstance(header, Extension):
        fields = header
    if fields.rt is not None:
        return inet6.IPv6ExtHdrRouting(type=fields.rt.type, addresses=fields.rt.addresses)
    frag = fields.frag or Fragment()
    return inet6.IPv6ExtHdrFragment(offset=frag.offset, m=int(frag.more), id=frag.id)


def _sctp(header: SCTP, load: bytes) -> Any:
    from scapy.layers import sctp

    chunks: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
        "init": (sctp.SCTPChunkInit, {"init_tag": 1, "a_rwnd": 65535, "n_out_streams": 1, "n_in_streams": 1}),
        "data": (sctp.SCTPChunkData, {"data": load}),
        "heartbeat": (sctp.SCTPChunkHeartbeatReq, {}),
        "abort": (sctp.SCTPChunkAbort, {}),
        "shutdown": (sctp.SCTPChunkShutdown, {}),
        "cookie-ack": (sctp.SCTPChunkCookieAck, {}),
    }
    kind, fields = chunks[header.chunk]
    chunk = kind(**fields)
    return sctp.SCTP(sport=header.sport, dport=header.dport, tag=header.tag) / chunk
