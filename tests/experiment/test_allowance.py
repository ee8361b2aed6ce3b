"""What limits have let pass that they would not have at the pace of the scenario; test_timetable.py does
it with a kernel."""

from __future__ import annotations

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.experiment.allowance import Allowance
from harness.model.observation import Observation, Rule
from harness.ruleset.load import Ruleset
from tests.builders import changed, frame, observation, rule, step

BURST = "rate 10/second burst 2 packets"
LISTED = """\
table inet filter {
	limit slow {
		rate 10/second burst 2 packets
	}

	set each {
		type ipv4_addr
		size 65535
		flags dynamic
	}

	set few {
		type ipv4_addr
		size 10
		flags dynamic
	}

	set short {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 5s
	}
}
"""
LAST = rule("tcp dport 443 accept", line=9, handle=9)


def allowance(*rules: Rule) -> Allowance:
    return Allowance(Ruleset([], [*rules, LAST], listed=LISTED))


def seen(by: Rule, *, source: str = "203.0.113.7") -> Observation:
    """A packet that a rule decided about."""
    decided = msgspec.structs.replace(step("accept", by), headers=frame(src=source)[14:])
    return observation(changed(steps=(decided,), hops=(), deliveries=()))


def limited(text: str, handle: int = 1) -> Rule:
    return rule(text, line=handle, handle=handle)


WITHIN = limited(f"limit {BURST} accept")
OVER = limited("tcp dport 443 limit rate over 10/second burst 2 packets drop")
ELEMENTS = limited(f"update @each {{ ip saddr limit {BURST} }} accept")
ELEMENTS_OVER = limited("update @each { ip saddr limit rate over 10/second burst 2 packets } drop")


@pytest.mark.parametrize(
    ("asked", "is_beyond"), [([0, 0, 0], True), ([0, 0.1, 0.2], False), ([0, 0, 0.05], True), ([0, 0], False)]
)
@pytest.mark.parametrize(
    ("limit", "by"),
    [
        (WITHIN, WITHIN),
        (OVER, LAST),
        (ELEMENTS, ELEMENTS),
        (ELEMENTS_OVER, LAST),
        (limited('limit name "slow" accept'), limited('limit name "slow" accept')),
    ],
    ids=["within", "over", "elements", "elements-over", "named"],
)
def test_what_a_limit_let_pass_must_have_been_allowed_at_the_pace_of_the_scenario(
    asked: list[float], is_beyond: bool, limit: Rule, by: Rule
) -> None:
    passed = allowance(limit)
    for seconds in asked[:-1]:
        passed.take(seen(by), seconds)
    if not is_beyond:
        passed.take(seen(by), asked[-1])
        return
    with pytest.raises(BrokenMeasurement, match="let 3 packets pass, and not 2, because they came later"):
        passed.take(seen(by), asked[-1])


@pytest.mark.parametrize("asked", [0.0, 4.9])
def test_a_limit_by_bytes_counts_those_of_the_ip_header(asked: float) -> None:
    limit = limited("limit rate 10 bytes/second burst 70 bytes accept")
    passed = allowance(limit)
    size = len(frame()[14:])
    for _ in range(80 // size):
        passed.take(seen(limit), 0)
    if asked:
        passed.take(seen(limit), asked)
        return
    with pytest.raises(BrokenMeasurement, match=f"let {80 // size * size + size} bytes pass, and not 80"):
        passed.take(seen(limit), asked)


def test_rules_that_name_a_limit_share_its_tokens() -> None:
    rules = [limited(f'tcp dport {port} limit name "slow" accept', port) for port in (1, 2)]
    passed = allowance(*rules)
    passed.take(seen(rules[0]), 0)
    passed.take(seen(rules[1]), 0)
    with pytest.raises(BrokenMeasurement, match="`limit rate 10/second burst 2 packets`"):
        passed.take(seen(rules[0]), 0)


@pytest.mark.parametrize(
    "rules",
    [
        [limited("tcp dport 22 limit rate over 10/second burst 2 packets drop")],
        [limited("ct state new limit rate over 10/second burst 2 packets drop")],
        [limited("update @few { ip saddr limit rate over 10/second burst 2 packets } drop")],
        [limited("update @each { ip saddr . meta mark limit rate over 10/second burst 2 packets } drop")],
        [ELEMENTS_OVER, limited("udp dport 1 delete @each { ip saddr } accept", 2)],
        [limited('limit name ip saddr map { 192.0.2.1 : "slow" } accept')],
        [limited("quota over 10 bytes drop")],
    ],
    ids=["not-met", "unknown-match", "a-full-set", "unknown-key", "deleted", "map", "quota"],
)
def test_what_may_not_have_been_a_limit_is_let_pass(rules: list[Rule]) -> None:
    passed = allowance(*rules)
    for _ in range(5):
        passed.take(seen(LAST), 0)


def test_each_element_has_tokens_of_its_own() -> None:
    passed = allowance(ELEMENTS)
    for number in range(6):
        passed.take(seen(ELEMENTS, source=f"203.0.113.{number // 2 + 1}"), 0)
    with pytest.raises(BrokenMeasurement):
        passed.take(seen(ELEMENTS, source="203.0.113.1"), 0)


@pytest.mark.parametrize(("name", "own"), [("short", ""), ("each", " timeout 5s")])
def test_an_element_that_has_expired_has_all_tokens_again(name: str, own: str) -> None:
    limit = limited(f"add @{name} {{ ip saddr{own} limit rate 1/hour burst 2 packets }} accept")
    passed = allowance(limit)
    for seconds in (0, 0, 5, 5):
        passed.take(seen(limit), seconds)
    with pytest.raises(BrokenMeasurement, match="let 5 packets pass, and not 4"):
        passed.take(seen(limit), 5)
