"""The machine as the device under test: routes and rules."""

from __future__ import annotations

from tests.twin.builders import addresses, network, twin


def test_rules_are_for_their_ip_version() -> None:
    made = twin(
        addresses=addresses(eth0=["192.0.2.1/24"]),
        routes4=[{"dst": "default", "gateway": "192.0.2.9", "dev": "eth0", "table": "100"}],
        rules4=[
            {"priority": 0, "src": "all", "table": "255"},
            {"priority": 50, "src": "all", "fwmark": "0x1", "fwmask": "0xff", "table": "100"},
            {"priority": 60, "not": None, "src": "10.0.0.0", "srclen": 8, "table": "254", "suppress_prefixlen": 0},
            {"priority": 70, "src": "all", "iif": "eth0", "action": "6"},
            {"priority": 80, "src": "all", "ipproto": "tcp", "table": "100"},
            {"priority": 90, "src": "all", "table": "220"},
            {"priority": 32766, "src": "all", "table": "254"},
        ],
    )
    assert made.lab["hosts"]["device"]["rules"] == [
        {"from": "0.0.0.0/0", "mark": 1, "mask": 255, "table": 100, "priority": 50},
        {"not": True, "from": "10.0.0.0/8", "table": "main", "suppress_prefixlength": 0, "priority": 60},
        {"from": "0.0.0.0/0", "iif": "eth0", "type": "blackhole", "priority": 70},
    ]
    assert [note for note in made.notes if "ipproto" in note]
    assert network(made)
