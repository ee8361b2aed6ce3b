"""The fields of a packet as the ``send`` of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.generate import headers, names
from harness.generate.expressions import Fields

MORE_FRAGMENTS: Final = 0x2000
"""The flag in front of the fragment offset: IP_MF of include/net/ip.h."""
REPLY_PORT: Final = 40000
"""Where packets come from unless they say otherwise."""


def send_of(fields: Fields) -> dict[str, Any]:
    """``send`` for a packet, or for as many as ``count`` of ``fields`` says."""
    send = _send_of(fields)
    return send | {"count": fields["count"]} if fields.get("count", 1) > 1 else send


def _send_of(fields: Fields) -> dict[str, Any]:
    send: dict[str, Any] = {"from": fields["from"], "to": fields["to"]}
    ether = {"src": fields.get("ether_saddr"), "dst": fields.get("ether_daddr"), "vlan": fields.get("vlan")}
    if ether := {name: value for name, value in ether.items() if value is not None}:
        send["ether"] = ether
    protocol, family = fields["proto"], fields["family"]
    if protocol == "arp":
        message = {"op": fields["op"]} if fields["op"] != "request" else {}
        return send | {"arp": message | ({"src": str(fields["saddr"])} if "saddr" in fields else {})}
    if "quoted" in fields:
        return send | {"packet": _quoting(fields, fields["quoted"])}
    header = _ip_header(fields)
    if "frag" in fields:
        more = {"flags": "MF"} if fields["frag"] & MORE_FRAGMENTS else {}
        offset = fields["frag"] & ~MORE_FRAGMENTS
        return send | {"ip": header | more | {"frag": offset, "proto": 17}, "payload": "later"}
    if protocol not in _UPPER:
        header["proto" if family == 4 else "nh"] = names.PROTOCOLS.get(protocol, protocol)
    literal = ":" in fields["to"] or fields["to"][0].isdigit()
    if header or (family == 6 and protocol != "ipv6-icmp" and not literal):
        send["ip" if family == 4 else "ip6"] = header
    if protocol in _UPPER:
        key, upper = _UPPER[protocol]
        send[key] = upper(fields)
    return send | _payload(fields)


def _payload(fields: Fields) -> dict[str, Any]:
    """What a packet carries behind the headers that have keys of their own."""
    if size := fields.get("size"):
        return {"payload": "x" * size}
    if "payload" in fields:
        return {"payload": {"hex": fields["payload"]}}
    if fields["proto"] in ("dccp", "udplite"):
        ports = b"".join(fields[port].to_bytes(2, "big") for port in ("sport", "dport"))
        return {"payload": {"hex": (ports + bytes(12)).hex()}}  # as much of a header as rules read
    return {}


def _ip_header(fields: Fields) -> dict[str, Any]:
    """What ``fields`` say of the header of IPv4 or IPv6."""
    header: dict[str, Any] = {}
    if "saddr" in fields and not fields.get("reply"):
        header["src"] = str(fields["saddr"])
    if "ttl" in fields:
        header["ttl" if fields["family"] == 4 else "hlim"] = fields["ttl"]
    if service := (fields.get("dscp", 0) << 2) | fields.get("ecn", 0):
        header["tos" if fields["family"] == 4 else "tc"] = service
    if fields["family"] == 4:
        header |= _given(fields, {"ip_id": "id"})
        if options := headers.held(fields, "ip option"):
            header["options"] = options
        return header
    header |= _given(fields, {"flow": "fl"})
    extensions: list[Any] = list(headers.held(fields, "exthdr"))
    if "rt_type" in fields:
        extensions = [*(one for one in extensions if one != "rt"), {"rt": {"type": fields["rt_type"]}}]
    return header | ({"headers": extensions} if extensions else {})


def _given(fields: Fields, keys: Mapping[str, str]) -> dict[str, Any]:
    """Those of ``fields`` that are given, as the keys that a header has for them."""
    return {key: fields[name] for name, key in keys.items() if name in fields}


def _ports(fields: Fields) -> dict[str, Any]:
    return ({"sport": fields["sport"]} if fields["sport"] != REPLY_PORT else {}) | {"dport": fields["dport"]}


def _tcp_header(fields: Fields) -> dict[str, Any]:
    header = _ports(fields)
    letters = "".join(letter for name, letter in zip(names.FLAGS, "FSRPAUEC", strict=True) if name in fields["flags"])
    if letters != "S":
        header["flags"] = letters
    return header | _given(fields, {name: name for name in ("seq", "ack", "window", "mss", "checksum")})


def _icmp_header(fields: Fields) -> dict[str, Any]:
    header = {"type": fields["type"]} if fields["type"] != "echo-request" else {}
    header |= {"code": fields["code"]} if fields["code"] else {}
    return header | _given(fields, {"echo_id": "id", "echo_seq": "seq"})


def _udp_header(fields: Fields) -> dict[str, Any]:
    return _ports(fields) | _given(fields, {"checksum": "checksum"})


def _sctp_header(fields: Fields) -> dict[str, Any]:
    chunk = next((name for name in headers.CHUNKS if fields.get(f"chunk {name}")), "init")
    return _ports(fields) | _given(fields, {"tag": "tag"}) | ({"chunk": chunk} if chunk != "init" else {})


_UPPER: Final[Mapping[str, tuple[str, Callable[[Fields], dict[str, Any]]]]] = {
    "tcp": ("tcp", _tcp_header),
    "udp": ("udp", _udp_header),
    "sctp": ("sctp", _sctp_header),
    "icmp": ("icmp", _icmp_header),
    "ipv6-icmp": ("icmpv6", _icmp_header),
}
"""The key of ``send`` for each protocol above IP, and what stands below it."""


def _quoting(fields: Fields, quoted: Fields) -> str:
    """The expression of an ICMP error that quotes a packet, of which the addresses are ``src`` and ``dst``."""
    four, is_tcp = fields["family"] == 4, quoted["proto"] == "tcp"
    network = "IP" if four else "IPv6"
    source = f'src="{fields["saddr"]}"' if "saddr" in fields else ""
    layer = f"ICMP(type={names.number(fields['type'], 'type', 'icmp')}, " if four else f"{_ERRORS[fields['type']]}("
    addresses = f'src="{quoted["src"]}", dst="{quoted["dst"]}"'
    ports = f"sport={quoted['sport']}, dport={quoted['dport']}"
    upper = f"TCP({ports}, seq=1000)" if is_tcp else f"UDP({ports})"
    return f"{network}({source})/{layer}code={fields['code']})/{network}({addresses})/{upper}"


_ERRORS: Final = {
    "destination-unreachable": "ICMPv6DestUnreach",
    "packet-too-big": "ICMPv6PacketTooBig",
    "time-exceeded": "ICMPv6TimeExceeded",
    "parameter-problem": "ICMPv6ParamProblem",
}
