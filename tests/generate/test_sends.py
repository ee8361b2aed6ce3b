"""Fields of a packet become the ``send`` of a scenario, with nothing that would be so anyway."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.generate.sends import REPLY_PORT, send_of
from harness.packets.spec import Send

TCP = {
    "from": "client",
    "to": "server",
    "proto": "tcp",
    "family": 4,
    "flags": {"syn"},
    "sport": REPLY_PORT,
    "dport": 22,
}
ICMP = {"from": "client", "to": "server", "proto": "icmp", "family": 4, "type": "echo-request", "code": 0}
ENDS = {"from": "client", "to": "server"}


@pytest.mark.parametrize(
    ("fields", "send"),
    [
        (TCP, {**ENDS, "tcp": {"dport": 22}}),
        (TCP | {"sport": 1, "flags": {"syn", "ack"}}, {**ENDS, "tcp": {"sport": 1, "dport": 22, "flags": "SA"}}),
        (TCP | {"mss": 1000}, {**ENDS, "tcp": {"dport": 22, "mss": 1000}}),
        (TCP | {"saddr": "192.0.2.7"}, {**ENDS, "ip": {"src": "192.0.2.7"}, "tcp": {"dport": 22}}),
        (TCP | {"saddr": "192.0.2.7", "reply": True}, {**ENDS, "tcp": {"dport": 22}}),
        (TCP | {"family": 6}, {**ENDS, "ip6": {}, "tcp": {"dport": 22}}),
        (TCP | {"family": 6, "to": "2001:db8::1"}, {"from": "client", "to": "2001:db8::1", "tcp": {"dport": 22}}),
        (TCP | {"family": 6, "ttl": 1, "dscp": 8}, {**ENDS, "ip6": {"hlim": 1, "tc": 32}, "tcp": {"dport": 22}}),
        (TCP | {"ttl": 1, "dscp": 8}, {**ENDS, "ip": {"ttl": 1, "tos": 32}, "tcp": {"dport": 22}}),
        (TCP | {"vlan": 7}, {**ENDS, "ether": {"vlan": 7}, "tcp": {"dport": 22}}),
        (TCP | {"proto": "udp", "payload": "ff"}, {**ENDS, "udp": {"dport": 22}, "payload": {"hex": "ff"}}),
        (TCP | {"frag": 0x2000}, {**ENDS, "ip": {"flags": "MF", "frag": 0, "proto": 17}, "payload": "later"}),
        (TCP | {"frag": 9}, {**ENDS, "ip": {"frag": 9, "proto": 17}, "payload": "later"}),
        (ICMP, {**ENDS, "icmp": {}}),
        (ICMP | {"type": "redirect", "code": 1}, {**ENDS, "icmp": {"type": "redirect", "code": 1}}),
        (ICMP | {"proto": 89}, {**ENDS, "ip": {"proto": 89}}),
        (ICMP | {"proto": "ipv6-icmp", "family": 6}, {**ENDS, "icmpv6": {}}),
        ({**ENDS, "proto": "arp", "family": 4, "op": "request"}, {**ENDS, "arp": {}}),
        ({**ENDS, "proto": "arp", "family": 4, "op": "reply"}, {**ENDS, "arp": {"op": "reply"}}),
    ],
)
def test_what_is_written(fields: dict[str, Any], send: dict[str, Any]) -> None:
    assert send_of(fields) == send
    msgspec.convert(send, Send)


def test_protocols_without_a_key_carry_the_ports_that_rules_read() -> None:
    send = send_of(TCP | {"proto": "udplite", "sport": 258})
    assert send["ip"] == {"proto": 136}
    assert send["payload"]["hex"].startswith("01020016")
