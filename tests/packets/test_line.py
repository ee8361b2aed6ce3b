"""A packet on one line becomes a ``send``, and what is wrong with it is said with its column."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.errors import ScenarioError
from harness.packets import line
from harness.packets.spec import Send


@pytest.mark.parametrize(
    ("text", "send"),
    [
        ("client > server tcp dport 22", {"from": "client", "to": "server", "tcp": {"dport": 22}}),
        (
            "client→server udp sport 0x35 dport 53",
            {"from": "client", "to": "server", "udp": {"sport": 53, "dport": 53}},
        ),
        (
            "client > 10.0.2.2 ip src 198.51.100.7 ttl 3 tcp dport 22 flags SA",
            {
                "from": "client",
                "to": "10.0.2.2",
                "ip": {"src": "198.51.100.7", "ttl": 3},
                "tcp": {"dport": 22, "flags": "SA"},
            },
        ),
        ("device > client icmp", {"from": "device", "to": "client", "icmp": {}}),
        (
            "client > server icmpv6 type packet-too-big code 0",
            {"from": "client", "to": "server", "icmpv6": {"type": "packet-too-big", "code": 0}},
        ),
        ("client > server ether vlan 10 icmp", {"from": "client", "to": "server", "ether": {"vlan": 10}, "icmp": {}}),
        ("client > server ip6 headers hbh,dst tcp dport 1", None),
        ("client > device arp op reply", {"from": "client", "to": "device", "arp": {"op": "reply"}}),
        ('client > server udp dport 1 payload "a b" count 3', None),
        ("client > server udp dport 1 payload hex 00ff", None),
    ],
)
def test_a_line_is_a_send(text: str, send: dict[str, Any] | None) -> None:
    found = line.parse(text, "packet").value
    assert msgspec.convert(found, Send)
    assert send is None or found == send


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "packet:1:1: the sender is missing"),
        ("tcp dport 22", "packet:1:1: the sender is missing"),
        ("client >", "packet:1:9: '>' is not followed by a destination"),
        (
            "client > server tcp dprt 22",
            "packet:1:21: 'dprt' is neither a field of tcp nor a layer; did you mean 'dport'?",
        ),
        ("client > server tpc dport 22", "packet:1:17: 'tpc' is not a layer; did you mean 'tcp'?"),
        ("client > server tcp dport", "packet:1:26: tcp dport has no value"),
        ("client > server tcp dport 22 tcp dport 23", "packet:1:30: tcp is given twice"),
        ("client > server tcp dport 22 dport 23", "packet:1:30: tcp dport is given twice"),
        ("client > server payload", "packet:1:24: payload has no value"),
        ("client > server " + "x" * 5000, "packet: has 5,016 characters"),
    ],
)
def test_what_is_wrong_is_said_with_its_column(text: str, words: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        line.parse(text, "packet")
    assert str(raised.value).startswith(words)
