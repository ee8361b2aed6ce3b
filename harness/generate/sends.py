"""The fields of a packet as the ``send`` of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.generate import names
from harness.generate.expressions import Fields

REPLY_PORT: Final = 40000
"""Where packets come from unless they say otherwise."""


def send_of(fields: Fields) -> dict[str, Any]:
    """``send`` for a packet."""
    send: dict[str, Any] = {"from": fields["from"], "to": fields["to"]}
    ether = {"src": fields.get("ether_saddr"), "dst": fields.get("ether_daddr"), "vlan": fields.get("vlan")}
    if ether := {name: value for name, value in ether.items() if value is not None}:
        send["ether"] = ether
    protocol, family = fields["proto"], fields["family"]
    if protocol == "arp":
        return send | {"arp": {"op": fields["op"]} if fields["op"] != "request" else {}}
    header = _ip_header(fields)
    if "frag" in fields:
        return send | {"ip": header | {"frag": fields["frag"], "proto": 17}, "payload": "later"}
    if protocol not in _UPPER:
        header["proto" if family == 4 else "nh"] = names.PROTOCOLS.get(protocol, protocol)
    literal = ":" in fields["to"] or fields["to"][0].isdigit()
    if header or (family == 6 and protocol != "ipv6-icmp" and not literal):
        send["ip" if family == 4 else "ip6"] = header
    if protocol in _UPPER:
        key, upper = _UPPER[protocol]
        send[key] = upper(fields)
    if protocol in ("dccp", "udplite"):
        ports = b"".join(fields[port].to_bytes(2, "big") for port in ("sport", "dport"))
        send["payload"] = {"hex": (ports + bytes(12)).hex()}  # as much of a header as rules read
    if "payload" in fields:
        send["payload"] = {"hex": fields["payload"]}
    return send


def _ip_header(fields: Fields) -> dict[str, Any]:
    """What ``fields`` say of the header of IPv4 or IPv6."""
    header: dict[str, Any] = {}
    if "saddr" in fields and not fields.get("reply"):
        header["src"] = str(fields["saddr"])
    if "ttl" in fields:
        header["ttl" if fields["family"] == 4 else "hlim"] = fields["ttl"]
    if fields.get("dscp"):
        header["tos" if fields["family"] == 4 else "tc"] = fields["dscp"] << 2
    return header


def _ports(fields: Fields) -> dict[str, Any]:
    return ({"sport": fields["sport"]} if fields["sport"] != REPLY_PORT else {}) | {"dport": fields["dport"]}


def _tcp_header(fields: Fields) -> dict[str, Any]:
    header = _ports(fields)
    letters = "".join(letter for name, letter in zip(names.FLAGS, "FSRPAUEC", strict=True) if name in fields["flags"])
    if letters != "S":
        header["flags"] = letters
    if "mss" in fields:
        header["mss"] = fields["mss"]
    return header


def _icmp_header(fields: Fields) -> dict[str, Any]:
    header = {"type": fields["type"]} if fields["type"] != "echo-request" else {}
    return header | ({"code": fields["code"]} if fields["code"] else {})


_UPPER: Final[Mapping[str, tuple[str, Callable[[Fields], dict[str, Any]]]]] = {
    "tcp": ("tcp", _tcp_header),
    "udp": ("udp", _ports),
    "sctp": ("sctp", _ports),
    "icmp": ("icmp", _icmp_header),
    "ipv6-icmp": ("icmpv6", _icmp_header),
}
"""The key of ``send`` for each protocol above IP, and what stands below it."""
