"""Why a rule has no packet."""

from __future__ import annotations

import pytest

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.packets import Candidates
from harness.generate.simulate import SimulatedRuleset
from harness.generate.targets import why_never, why_none
from tests.listings import facts, key_of, table


@pytest.mark.parametrize(
    ("name", "chain", "text", "reason"),
    [
        ("kernel", "input", "", "an earlier rule decides every packet"),
        ("kernel", "forward", "", "an earlier rule decides every packet"),
        ("kernel", "forward", "udp dport 53", "an earlier rule decides every packet"),
        (
            *("kernel", "input", 'iifname "wan0" ip saddr 127.0.0.0/8'),
            "the kernel drops packets from other hosts with the address 127.0.0.0/8 before this hook",
        ),
        (
            *("kernel", "input", "ip daddr 224.0.0.251"),
            "no program of the lab has joined the group 224.0.0.251, so the device does not receive it",
        ),
        ("gateway", "input", "", "an earlier rule decides every packet"),
    ],
)
def test_why_a_rule_has_no_packet(name: str, chain: str, text: str, reason: str) -> None:
    found = facts(name)
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    key = key_of(found, chain, text)
    assert next(Candidates(device).of(key), None) is None
    assert why_none(device, key) == reason


def test_no_rule_translates_what_a_rule_asks_for() -> None:
    found = facts("kernel")
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    device.ruleset.chains.pop(("ip", "nat", "prerouting"))
    assert why_none(device, key_of(found, "forward", "ct status dnat")) == ("no rule performs destination NAT")


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ({"meta": {"key": "mark"}}, 7, "no rule sets a mark, and packets are sent without"),
        ({"ct": {"key": "mark"}}, 7, "no rule sets such a mark"),
        (
            *({"socket": {"key": "mark"}}, 7),
            "it needs a socket: write steps with listen:, connect: or exchange:, and their mark: or cgroup:",
        ),
        ({"meta": {"key": "skuid"}}, 33, "what a lab's hosts send is sent by root"),
        (
            *({"ct": {"key": "helper"}}, "ftp"),
            "it needs a connection that this helper has announced: write steps with listen: and connect:",
        ),
        ({"meta": {"key": "iifgroup"}}, 2, "interfaces of a lab are in no group but the default one"),
        (
            {"payload": {"protocol": "ip6", "field": "saddr"}},
            {"prefix": {"addr": "fe80::", "len": 10}},
            "the device of a lab has no link-local address, and forwards none",
        ),
    ],
)
def test_what_no_packet_of_a_lab_has(left: dict[str, object], right: object, reason: str) -> None:
    found = table([{"match": {"op": "==", "left": left, "right": right}}, {"accept": None}])
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    assert why_none(device, ("inet", "t", "forward", 2)) == reason


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"meta": {"key": "skuid"}}, 0),
        ({"ct": {"key": "state"}}, "related"),
        ({"ct": {"key": "status"}}, "assured"),
        ({"ct": {"key": "state"}}, ["established", "related"]),
        ({"ct": {"key": "state"}}, {"set": ["new", "related"]}),
        ({"ct": {"key": "status"}}, "confirmed"),
    ],
)
def test_what_packets_of_a_lab_may_have(left: dict[str, object], right: object) -> None:
    found = table([{"match": {"op": "in" if isinstance(right, list) else "==", "left": left, "right": right}}])
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    assert why_never(device, ("inet", "t", "forward", 2)) == ""


@pytest.mark.parametrize(
    ("left", "op", "right", "is_announced"),
    [
        ({"payload": {"protocol": "tcp", "field": "dport"}}, ">", 1024, True),
        ({"meta": {"key": "l4proto"}}, "==", "udp", True),
        ({"meta": {"key": "l4proto"}}, "==", "icmp", False),
        ({"payload": {"protocol": "ip", "field": "daddr"}}, "==", "192.0.2.1", False),
    ],
)
def test_only_a_helper_makes_tcp_and_udp_related(
    left: dict[str, object], op: str, right: object, is_announced: bool
) -> None:
    state = {"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": "related"}}
    found = table([state, {"match": {"op": op, "left": left, "right": right}}, {"accept": None}])
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    why = "it needs a connection that a helper has announced: write steps with listen: and connect:"
    assert why_never(device, ("inet", "t", "forward", 2)) == (why if is_announced else "")


def test_what_decides_before_is_named() -> None:
    found = table([{"match": {"op": "==", "left": {"meta": {"key": "length"}}, "right": 5}}, {"accept": None}])
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    key = ("inet", "t", "forward", 2)
    assert why_none(device, key, ["a.nft:3: drop", "a.nft:4: reject", "a.nft:5: accept"]) == (
        "every packet tried for it is decided earlier, by a.nft:3: drop or by a.nft:4: reject"
    )
    assert why_none(device, key).startswith("no packet was found: its matches exclude one another")


@pytest.mark.parametrize(("mask", "is_sent"), [(0x1FFF, True), (0x2000, True), (0x4000, False), (0x8000, False)])
def test_fragments_are_sent_but_no_other_flags_beside_their_offset(mask: int, is_sent: bool) -> None:
    left = {"&": [{"payload": {"protocol": "ip", "field": "frag-off"}}, mask]}
    found = table([{"match": {"op": "!=", "left": left, "right": 0}}, {"accept": None}])
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    assert (next(Candidates(device).of(("inet", "t", "forward", 2)), None) is not None) == is_sent
