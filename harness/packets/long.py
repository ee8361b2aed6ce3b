"""The long form of a packet: an expression of scapy layers becomes packets.

Lists and ranges of values stand for a packet each, as in scapy: ``TCP(dport=[80, 443])`` are two,
``IP(ttl=(1, 10))`` ten, ``IP(dst="10.0.2.0/30")`` four. Only layers that are listed here can be
named, a value goes where scapy takes it or is refused, and nothing is asked of the machine: neither
names nor addresses are looked up, and what an expression leaves out comes from the lab.
"""

from __future__ import annotations

import importlib
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from msgspec import structs

from harness.bounds import PACKETS_BYTES
from harness.model.fields import MOST_PACKETS
from harness.model.problem import Problem, did_you_mean, unknown
from harness.packets import spec
from harness.packets.endpoints import Endpoints
from harness.packets.expression import FieldValue, Layer, Stack, parse
from harness.packets.isolation import alone

_MODULES: Mapping[str, str] = {
    "packet": "Padding Raw",
    "layers.l2": "ARP Dot1AD Dot1Q Ether GRE LLC SNAP",
    "layers.inet": "ICMP IP IPOption IPOption_Address_Extension IPOption_EOL IPOption_LSRR IPOption_MTU_Probe "
    "IPOption_MTU_Reply IPOption_NOP IPOption_RR IPOption_Router_Alert IPOption_SDBM IPOption_SSRR IPOption_Security "
    "IPOption_Stream_Id IPOption_Timestamp IPOption_Traceroute TCP UDP",
    "layers.inet6": "HAO HBHOptUnknown ICMPv6DestUnreach ICMPv6EchoReply ICMPv6EchoRequest ICMPv6MLDone "
    "ICMPv6MLDMultAddrRec ICMPv6MLQuery ICMPv6MLQuery2 ICMPv6MLReport ICMPv6MLReport2 ICMPv6NDOptDstLLAddr "
    "ICMPv6NDOptMTU ICMPv6NDOptPrefixInfo ICMPv6NDOptRDNSS ICMPv6NDOptRedirectedHdr ICMPv6NDOptRouteInfo "
    "ICMPv6NDOptSrcLLAddr ICMPv6ND_NA ICMPv6ND_NS ICMPv6ND_RA ICMPv6ND_RS ICMPv6ND_Redirect ICMPv6PacketTooBig "
    "ICMPv6ParamProblem ICMPv6TimeExceeded ICMPv6Unknown IPv6 IPv6ExtHdrDestOpt IPv6ExtHdrFragment "
    "IPv6ExtHdrHopByHop IPv6ExtHdrRouting IPv6ExtHdrSegmentRouting Jumbo Pad1 PadN RouterAlert",
    "layers.dhcp": "BOOTP DHCP",
    "layers.dhcp6": "DHCP6_Advertise DHCP6_Confirm DHCP6_Decline DHCP6_InfoRequest DHCP6_Rebind DHCP6_Reconf "
    "DHCP6_Release DHCP6_Renew DHCP6_Reply DHCP6_Request DHCP6_Solicit",
    "layers.dns": "DNS DNSQR DNSRR DNSRRMX DNSRROPT DNSRRSOA DNSRRSRV",
    "layers.ipsec": "AH ESP",
    "layers.isakmp": "ISAKMP",
    "layers.l2tp": "L2TP",
    "layers.ntp": "NTPHeader",
    "layers.ppp": "PPP PPPoE PPPoED",
    "layers.rip": "RIP RIPEntry",
    "layers.rtp": "RTP",
    "layers.sctp": "SCTP SCTPChunkAbort SCTPChunkCookieAck SCTPChunkCookieEcho SCTPChunkData SCTPChunkError "
    "SCTPChunkHeartbeatAck SCTPChunkHeartbeatReq SCTPChunkInit SCTPChunkInitAck SCTPChunkSACK SCTPChunkShutdown "
    "SCTPChunkShutdownAck SCTPChunkShutdownComplete",
    "layers.tftp": "TFTP TFTP_ACK TFTP_DATA TFTP_ERROR TFTP_RRQ TFTP_WRQ",
    "layers.vrrp": "VRRP VRRPv3",
    "layers.vxlan": "VXLAN",
    "contrib.geneve": "GENEVE",
    "contrib.gtp": "GTP_U_Header GTPHeader",
    "contrib.igmp": "IGMP",
    "contrib.igmpv3": "IGMPv3 IGMPv3gr IGMPv3mq IGMPv3mr",
    "contrib.lldp": "LLDPDU LLDPDUChassisID LLDPDUEndOfLLDPDU LLDPDUPortID LLDPDUTimeToLive",
    "contrib.mpls": "MPLS",
    "contrib.wireguard": "WireguardInitiation WireguardResponse WireguardTransport",
}
LAYERS: Mapping[str, str] = {name: module for module, names in _MODULES.items() for name in names.split()}
"""The layers that may be named, and scapy's module of each."""

ScapyPacket = Any
"""A packet, or a layer with those inside; scapy has no types that could be checked."""


def packets(text: str) -> tuple[ScapyPacket, ...]:
    """The packets that the expression ``text`` means, in scapy's order, with what it leaves out left open.

    Raises :class:`~harness.model.problem.Problem`, with the place in ``text``.
    """
    stack = parse(text)
    _import(stack)
    with alone():
        return tuple(_packets(stack))


def _import(stack: Stack) -> None:
    """Import the modules of all layers, which may read what this machine has."""
    waiting: list[object] = [stack]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Stack):
            for layer in value.layers:
                _kind(layer)
                waiting += [field.value for field in layer.fields.values()]
        elif isinstance(value, list | tuple):
            waiting += value


def _packets(stack: Stack) -> Iterator[ScapyPacket]:
    kinds = [_kind(layer) for layer in stack.layers]
    choices = [
        (number, name, field, _choices(kind, name, field))
        for number, (layer, kind) in enumerate(zip(stack.layers, kinds, strict=True))
        for name, field in layer.fields.items()
    ]
    count = math.prod(len(values) for *_, values in choices)
    if count > MOST_PACKETS:
        raise Problem(f"makes {count:,} packets, and {MOST_PACKETS:,} is the limit")
    size = sum(max(map(_weight, values)) for *_, values in choices)
    if count * size > PACKETS_BYTES:
        raise Problem(f"makes {count * size:,} bytes of packets, and {PACKETS_BYTES:,} is the limit")
    firsts: list[dict[str, Any]] = [{} for _ in kinds]
    for number, name, _, values in choices:
        firsts[number][name] = values[0]
    for number, name, field, values in choices:
        for value in values:
            _check(kinds[number], name, field, value, firsts[number])
    for chosen in itertools.product(*(values for *_, values in choices)):
        yield _assemble(kinds, choices, chosen)


def _weight(value: object) -> int:
    """Bytes that a value adds to a packet, at least."""
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_weight, value)) if isinstance(value, list | tuple) else 0


def _assemble(
    kinds: Sequence[Any], choices: Sequence[tuple[int, str, FieldValue, Any]], chosen: Sequence[Any]
) -> ScapyPacket:
    fields: list[dict[str, Any]] = [{} for _ in kinds]
    for (number, name, _, _), value in zip(choices, chosen, strict=True):
        fields[number][name] = value
    packet = None
    for kind, given in zip(kinds, fields, strict=True):
        layer = kind(**_given(given))
        packet = layer if packet is None else packet / layer
    return packet


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields without those that are None, which are as if they were left out."""
    return {name: value for name, value in fields.items() if value is not None}


def _kind(layer: Layer) -> Any:
    """The class of a layer; it must have the fields given."""
    if layer.name not in LAYERS:
        raise _placed(unknown(layer.name, LAYERS, "layer that can be used here"), layer.offset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules that move from one version to the next
        kind = getattr(importlib.import_module(f"scapy.{LAYERS[layer.name]}"), layer.name)
    names = [field.name for field in kind.fields_desc]
    for name, field in layer.fields.items():
        if name not in names:
            remedy = did_you_mean(name, names) if names else "it has none"
            raise Problem(f"{layer.name} has no field '{name}'", remedy=remedy, offset=field.key)
    return kind


def _choices(kind: Any, name: str, field: FieldValue) -> Sequence[Any]:
    """The values of a field, one of which each packet has."""
    value = field.value
    if _field(kind, name).islist:
        return [_plain(value, field)]
    parts = [_spread(kind, name, field, one) for one in (value if isinstance(value, list) else [value])]
    count = sum(map(len, parts))
    if not count:
        raise Problem(f"{kind.__name__}.{name} is given an empty list", offset=field.offset)
    if count > MOST_PACKETS:
        raise Problem(f"makes {count:,} packets, and {MOST_PACKETS:,} is the limit", offset=field.offset)
    return [one for part in parts for one in part]


def _spread(kind: Any, name: str, field: FieldValue, value: object) -> Sequence[Any]:
    """A value, or those of a range ``(first, last)``, ``(first, last, step)``, or of a subnet."""
    if isinstance(value, tuple):
        if len(value) not in (2, 3) or not all(isinstance(one, int) for one in value) or 0 in value[2:]:
            remedy = "as in (1024, 2048), both included"
            raise Problem("is not a range, which has two numbers", remedy=remedy, offset=field.offset)
        numbers = range(value[0], value[1] + 1, *value[2:])
        if not numbers:
            raise Problem("is a range without a number", remedy="the smaller comes first", offset=field.offset)
        return numbers
    if isinstance(value, str) and "/" in value and _is_address(_field(kind, name)):
        try:
            subnet = ip_network(value, strict=False)
        except ValueError:
            raise Problem(f"'{value}' is neither an address nor a subnet", offset=field.offset) from None
        if subnet.num_addresses > MOST_PACKETS:
            sentence = f"'{value}' has {subnet.num_addresses:,} addresses, and {MOST_PACKETS:,} is the limit"
            raise Problem(sentence, offset=field.offset)
        return [str(one) for one in subnet]
    return [_plain(value, field)]


def _plain(value: object, field: FieldValue) -> Any:
    """A value as scapy takes it: nested layers built, each one packet."""
    if isinstance(value, Stack):
        kinds = [_kind(layer) for layer in value.layers]
        packet = None
        for layer, kind in zip(value.layers, kinds, strict=True):
            given: dict[str, Any] = {}
            for name, inner in layer.fields.items():
                values = _choices(kind, name, inner)
                if len(values) != 1:
                    raise Problem("a field of an inner layer takes one value only", offset=inner.offset)
                _check(kind, name, inner, values[0], given)
                given[name] = values[0]
            inside = kind(**_given(given))
            packet = inside if packet is None else packet / inside
        return packet
    if isinstance(value, list):
        return [_plain(one, field) for one in value]
    if isinstance(value, tuple):
        return tuple(_plain(one, field) for one in value)
    return value


def _check(kind: Any, name: str, given: FieldValue, value: Any, beside: Mapping[str, Any]) -> None:
    """Have scapy put ``value`` into its field, as building will, and refuse what that refuses or cuts off.

    ``beside`` are values of the layer's fields: some say what others hold.
    """
    from scapy.packet import Packet

    if value is None:
        return
    field = _field(kind, name)
    what = f"{kind.__name__}.{name}"
    _check_addresses(field, value, given)
    if isinstance(value, Packet) and not field.holds_packets:
        raise Problem(f"{what} holds no layer", offset=given.offset)
    if isinstance(value, int) and (bits := _bits(field)) and not 0 <= value < 1 << bits:
        raise Problem(f"{what} goes from 0 to {(1 << bits) - 1}, and {value} is given", offset=given.offset)
    if not any(_fits(kind, name, value, others) for others in ({}, beside)):
        raise Problem(f"scapy cannot put {value!r:.60} into {what}", offset=given.offset)


def _check_addresses(field: Any, value: Any, given: FieldValue) -> None:
    """Refuse a text that scapy would take for a host's name, where ``field`` holds addresses."""
    from scapy import fields
    from scapy.layers.inet6 import IP6ListField

    if _is_address(field):
        _check_text(isinstance(value, str) and _is_ip(value), "an address", value, given)
    elif isinstance(field, IP6ListField):  # which has a resolver of its own
        right = isinstance(value, list) and all(isinstance(one, str) and _is_ip(one) for one in value)
        _check_text(right, "a list of addresses", value, given)
    elif isinstance(field, fields.MACField):
        _check_text(isinstance(value, str) and bool(_MAC.fullmatch(value)), "an Ethernet address", value, given)
    elif isinstance(field, fields.MultipleTypeField) and isinstance(value, str) and not _MAC.fullmatch(value):
        # Another field determines what this one holds. Bytes are used as they are, a text may be a host's name.
        _check_text(_is_ip(value), f"an address; write b{value!r} for bytes", value, given)


def _fits(kind: Any, name: str, value: Any, beside: Mapping[str, Any]) -> bool:
    from scapy.fields import BitField

    try:
        layer = kind(**_given({**beside, name: value}))
        if not isinstance(_field(kind, name), BitField):
            found, inner = layer.getfield_and_val(name)
            found.addfield(layer, b"", inner)
    except Exception:  # scapy has no exception class of its own
        return False
    return True


_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def _is_ip(text: str) -> bool:
    if "%" in text:  # a scope: interfaces are the lab's
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _check_text(right: bool, what: str, value: Any, given: FieldValue) -> None:
    if not right:
        raise Problem(f"{value!r:.60} is not {what}", offset=given.offset)


def _bits(field: Any) -> int:
    """Width of a field that holds a number without sign; 0 for others."""
    from scapy import fields

    if isinstance(field, fields.BitField):
        return abs(int(field.size))
    if isinstance(field, fields.ThreeBytesField):
        return 24
    return {"B": 8, "H": 16, "I": 32, "Q": 64}.get(field.fmt.lstrip("!<>"), 0) if isinstance(field.fmt, str) else 0


def _field(kind: Any, name: str) -> Any:
    """The field itself, out of what scapy wraps around it."""
    from scapy.fields import ConditionalField, Emph

    field = next(one for one in kind.fields_desc if one.name == name)
    while isinstance(field, Emph | ConditionalField):
        field = field.fld
    return field


def _is_address(field: Any) -> bool:
    from scapy.fields import IP6Field, IPField

    return isinstance(field, IPField | IP6Field)


def _placed(problem: Problem, offset: int) -> Problem:
    return Problem(problem.sentence, remedy=problem.remedy, offset=offset)


# --- what a packet gives, and what the lab adds ------------------------------------------------


def said(packet: ScapyPacket) -> dict[str, Any]:
    """The addresses of ``packet``, as fields of a short form's :class:`~harness.packets.spec.Send`."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

    headers: dict[str, Any] = {}
    given = packet.fields
    if isinstance(packet, Ether | Dot1Q | Dot1AD):
        headers["ether"] = spec.Ether(src=given.get("src"), dst=given.get("dst"))
    layer = packet
    while isinstance(layer, Ether | Dot1Q | Dot1AD):
        layer = layer.payload
    given = layer.fields
    if isinstance(layer, IP):
        headers["ip"] = spec.IPv4(
            src=given.get("src"), dst=given.get("dst"), proto=0, checksum=given.get("chksum"), id=given.get("id", 1)
        )
    elif isinstance(layer, IPv6):
        headers["ip6"] = spec.IPv6(src=given.get("src"), dst=given.get("dst"), nh=59)
    elif isinstance(layer, ARP):
        asks = layer.op == 1
        headers["arp"] = spec.ARP(op="request" if asks else "reply", src=given.get("psrc"), dst=given.get("pdst"))
    elif "ether" in headers:
        headers["ether"] = structs.replace(headers["ether"], type=packet.type or 0)
    else:
        raise Problem(f"begins with {packet.name}", remedy="begin with Ether, IP, IPv6 or ARP")
    return headers


def data(packet: ScapyPacket, planned: Endpoints) -> bytes:
    """The bytes of ``packet``, from the Ethernet header on, with the addresses of ``planned`` where it gives none."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

    frame = packet.copy() if isinstance(packet, Ether) else Ether() / packet
    names: Mapping[Any, Mapping[str, str]] = {
        Ether: {"src": "source_mac", "dst": "destination_mac"},
        IP: {"src": "source", "dst": "destination"},
        IPv6: {"src": "source", "dst": "destination"},
        ARP: {"hwsrc": "source_mac", "psrc": "source", "pdst": "destination"},
    }
    outer = True
    layer = frame
    while layer:
        lacking = [name for name in names.get(type(layer), {}) if name not in layer.fields]
        if lacking and not outer:
            raise Problem(f"the inner {layer.name} has no {lacking[0]}", remedy="only the outer one's is known")
        for name in lacking:
            layer.setfieldval(name, str(getattr(planned, names[type(layer)][name])))
        if isinstance(layer, ARP) and layer.op == 2 and "hwdst" not in layer.fields:
            layer.hwdst = planned.destination_mac
        outer = outer and isinstance(layer, Ether | Dot1Q | Dot1AD)
        layer = layer.payload
    _check_nested(frame, names)
    try:
        with alone():
            return bytes(frame)
    except Exception:  # scapy has no exception class of its own
        raise Problem("scapy cannot build it") from None


def _check_nested(frame: ScapyPacket, names: Mapping[Any, Mapping[str, str]]) -> None:
    """Layers in fields of layers have no ends that the lab could know."""
    from scapy.packet import Packet

    waiting = [frame]
    while waiting:
        layer = waiting.pop()
        while layer:
            for value in layer.fields.values():
                for inner in value if isinstance(value, list) else [value]:
                    if isinstance(inner, Packet):
                        lacking = [name for name in names.get(type(inner), {}) if name not in inner.fields]
                        if lacking:
                            raise Problem(f"the inner {inner.name} has no {lacking[0]}")
                        waiting.append(inner)
            layer = layer.payload
