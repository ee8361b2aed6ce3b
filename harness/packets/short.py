"""The short form of a packet, header by header, becomes the bytes of a frame."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from harness.packets import icmp
from harness.packets.endpoints import Endpoints, payload
from harness.packets.isolation import alone
from harness.packets.spec import SCTP, Extension, Fragment, IPv4, IPv6, Routing, Send


def data(send: Send, planned: Endpoints) -> bytes:
    """The frame that ``send`` means, from the Ethernet header on."""
    # Only what is needed of scapy, only now: its import takes 0.2 s, 3 s under emulation.
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
        frame[inet.IP].options = [_option(name, destination) for name in ip.options]
    elif planned.family == 6:
        ip6 = send.ip6 or IPv6()
        frame /= inet6.IPv6(src=source, dst=destination, hlim=_hop_limit(send, ip6), tc=ip6.tc, fl=ip6.fl)
        for header in ip6.headers:
            frame /= _extension(header)
        if ip6.nh is not None:
            frame.lastlayer().nh = ip6.nh
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
    elif (association := send.sctp) is not None:
        frame /= _sctp(association, payload(send))
    elif send.gre is not None:
        key = send.gre.key
        frame /= l2.GRE(proto=send.gre.protocol, key_present=int(key is not None), key=key)
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
        frame /= inet6.ICMPv6Unknown(type=number, code=message.code, msgbody=body + payload(send))
    if (load := payload(send)) and send.icmpv6 is None and send.sctp is None:
        frame /= Raw(load)
    with alone():
        return bytes(frame)


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
