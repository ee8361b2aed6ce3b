"""Why a rule has no packet."""

from __future__ import annotations

import pytest

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.packets import Candidates
from harness.generate.simulate import SimulatedRuleset
from harness.generate.targets import why_none
from tests.listings import facts, key_of


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
