"""What evidence says of a packet and of what is expected of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.judge.evidence import Evidence
from harness.model.observation import ObservedPacket
from harness.reading.decision import outcome
from harness.scenario.models.expect import Expect
from tests.builders import HTTPS, PASSED, arrival, changed, dropped, frame, observation, rule, step

SSH = rule("tcp dport 22 accept", line=20, handle=11)


def evidence(packet: ObservedPacket = PASSED, *others: ObservedPacket, **expect: Any) -> Evidence:
    seen = msgspec.structs.replace(observation(packet), packets=(packet, *others))
    wanted = msgspec.convert(expect or {"verdict": "accept"}, Expect)
    return Evidence(wanted, outcome(packet, "device"), seen, packet, (HTTPS, SSH))


def test_the_step_that_decided_last() -> None:
    assert evidence().last == PASSED.steps[0]
    assert evidence(changed(steps=(), hops=())).last is None


@pytest.mark.parametrize(("packet", "refused"), [(PASSED, False), (dropped(step("drop")), True)])
def test_whether_the_ruleset_refused_it(packet: ObservedPacket, refused: bool) -> None:
    assert evidence(packet).is_refused is refused


@pytest.mark.parametrize(
    ("expect", "unmet", "expected"),
    [
        ({"rule": SSH.text}, [SSH.text], SSH),
        ({"rule": HTTPS.text}, [], None),
        ({"rules": [HTTPS.text, 11]}, [11], SSH),
        ({"rule": "policy"}, [], None),
        ({"rule": "no such rule"}, ["no such rule"], None),
    ],
)
def test_the_expected_rules_that_were_not_met(expect: dict[str, Any], unmet: list[Any], expected: Any) -> None:
    found = evidence(**expect)
    assert (found.unmet, found.expected) == (unmet, expected)


@pytest.mark.parametrize(
    ("expect", "host", "should_pass"),
    [
        ({"verdict": "accept"}, "", True),
        ({"verdict": "drop"}, "", False),
        ({"delivered": "server"}, "server", True),
        ({"delivered": {"to": "server"}}, "server", True),
        ({"delivered": "nowhere"}, "nowhere", False),
    ],
)
def test_whether_and_where_it_should_arrive(expect: dict[str, Any], host: str, should_pass: bool) -> None:
    found = evidence(**expect)
    assert (found.expected_host, found.should_pass) == (host, should_pass)


@pytest.mark.parametrize(
    ("expect", "expects"),
    [
        ({"verdict": "reject"}, True),
        ({"reply": {"tcp": {"flags": "RA"}}}, True),
        ({"reply": "none"}, False),
        ({"verdict": "drop"}, False),
        ({"flow": "connected"}, True),
        ({"flow": "timeout"}, False),
    ],
)
def test_whether_the_sender_should_get_an_answer(expect: dict[str, Any], expects: bool) -> None:
    assert evidence(**expect).expects_answer is expects


def test_answers_are_what_the_kernel_of_the_device_made() -> None:
    reset = frame("10.0.2.2", "203.0.113.5", ttl=9)
    made = changed(number=1, injected=False, sender="device", steps=(), deliveries=(arrival("client", reset),))
    of_server = changed(made, sender="server")
    ((packet, seen),) = evidence(PASSED, made, of_server).answers()
    assert packet == made
    assert (seen["src"], seen["dst"]) == ("10.0.2.2", "203.0.113.5")
    assert list(evidence().answers()) == []
