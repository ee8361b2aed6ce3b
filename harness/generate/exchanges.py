"""Packets that need others before them: an answer, an ICMP error about a connection, the end of a TCP handshake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Final

from harness.generate.expressions import Fields
from harness.generate.sends import REPLY_PORT
from harness.topology.network import Network

COMMON_PORTS: Final = (53, 443)
ERRORS: Final[Mapping[str, Sequence[Fields]]] = {
    "icmp": ({"type": "destination-unreachable", "code": 1},),
    "ipv6-icmp": ({"type": "destination-unreachable", "code": 3},),
}
"""An ICMP error for rules that ask for none by name: that the host was not reached."""
_QUOTING: Final = {
    "icmp": ("destination-unreachable", "source-quench", "time-exceeded", "parameter-problem"),
    "ipv6-icmp": ("destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"),
}
"""The messages that quote a packet, and are related to its connection: nf_conntrack_icmpv4_error() and
nf_conntrack_icmpv6_error() of net/netfilter."""
_SEQUENCE: Final = 1000
"""The first sequence number of a TCP connection in scenarios."""


class Exchanges:
    """The packets that may come before others in one network."""

    def __init__(self, network: Network, ports: Sequence[int], free_port: int) -> None:
        self._network = network
        self._ports = ports
        self._free_port = free_port

    def of(self, fields: Fields) -> Iterator[tuple[Fields, ...]]:
        """Packets in the order in which they are sent, of which the last is as ``fields`` ask for."""
        if fields["state"] == "related":
            yield from self._errors(fields)
        elif fields.get("assured"):
            yield from self._handshakes(fields)
        else:
            yield from self._answers(fields)

    def _begun(self, fields: Fields, protocol: str) -> Fields | None:
        """The first packet of a connection of ``protocol``, from the receiver of ``fields`` to their sender."""
        beginner = fields["to"]
        if beginner not in self._network.hosts:
            beginner = self._network.owner(ip_address(beginner)) or ""
        if not beginner or self.resets(fields, protocol):
            return None
        first: Fields = {name: fields[name] for name in ("family", "ether_type")} | {"proto": protocol}
        first |= {"from": beginner, "to": fields["from"]}
        return first | ({"saddr": fields["to"]} if beginner != fields["to"] else {})

    def resets(self, fields: Fields, protocol: str) -> bool:
        """Whether the sender of ``fields`` would have reset the connection that they are about."""
        return protocol == "tcp" and not self._is_silent(fields["from"])

    def _is_silent(self, host: str) -> bool:
        """Whether the kernel of ``host`` leaves TCP connections alone; the device's or a router's resets them, since no
        program listens there, and conntrack forgets a connection of which the first answer is a reset."""
        return bool(self._network.hosts[host].silent)

    def _answers(self, fields: Fields) -> Iterator[tuple[Fields, ...]]:
        protocol, device = fields["proto"], self._network.device
        if (first := self._begun(fields, protocol)) is None:
            return
        answer = fields | {"reply": True}
        if protocol in _QUOTING and fields["type"] == "echo-reply":
            yield first | {"type": "echo-request", "code": 0}, answer
            return
        if protocol in _QUOTING:
            # Our own kernel answers a ping: the second one belongs to what the first began.
            if fields["type"] == "echo-request" and fields["to"] == device:
                yield first | {"from": fields["from"], "to": device, "type": "echo-request", "code": 0}, answer
            return
        if protocol == "tcp":
            first["flags"], answer["flags"] = ("syn",), ("syn", "ack")
        if "dport" not in fields:
            yield first, answer
            return
        asked = fields["sport"] != REPLY_PORT
        for port in [fields["sport"]] if asked else self._tried_ports():
            yield first | {"sport": fields["dport"], "dport": port}, answer | {"sport": port}

    def _errors(self, fields: Fields) -> Iterator[tuple[Fields, ...]]:
        if fields.get("type") not in _QUOTING.get(fields["proto"], ()):
            return  # what else is related has been announced to a helper, in a protocol of its own
        for protocol in ("udp", "tcp"):
            if (first := self._begun(fields, protocol)) is None:
                continue
            first |= {"sport": REPLY_PORT} | ({"flags": ("syn",)} if protocol == "tcp" else {})
            for port in self._tried_ports():
                about = first | {"dport": port}
                yield about, fields | {"reply": True, "quoted": about}

    def _handshakes(self, fields: Fields) -> Iterator[tuple[Fields, ...]]:
        """A connection is assured from the ACK that ends the handshake on: nf_conntrack_tcp_packet()."""
        beginner, other = fields["from"], fields["to"]
        if fields["proto"] != "tcp" or other not in self._network.hosts:
            return
        if not self._is_silent(beginner) or not self._is_silent(other):
            return
        ends: Fields = {name: fields[name] for name in ("family", "ether_type", "proto")}
        asked = "dport" in fields and fields["dport"] not in (self._free_port, *self._ports)
        for port in [fields["dport"]] if asked else dict.fromkeys([fields["dport"], *self._tried_ports()]):
            last = fields | {"dport": port, "flags": ("ack",), "seq": _SEQUENCE + 1, "ack": _SEQUENCE + 1}
            first = {name: value for name, value in fields.items() if name not in ("state", "assured")}
            first |= {"dport": port, "flags": ("syn",)}
            answer = ends | {"from": other, "to": beginner, "state": "established", "reply": True}
            answer |= {"sport": port, "dport": fields["sport"], "flags": ("syn", "ack"), "ack": _SEQUENCE + 1}
            if "saddr" in fields:
                answer["to"] = str(fields["saddr"])
            yield first, answer, last

    def _tried_ports(self) -> list[int]:
        """Ports that a ruleset may let by."""
        return list(dict.fromkeys([*COMMON_PORTS, self._free_port, *self._ports]))
