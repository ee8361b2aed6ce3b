"""Which packets that are other than expected may have been so because the machine was slow."""

from __future__ import annotations

import msgspec
import pytest

from harness.errors import BrokenMeasurement
from harness.judge.evidence import Evidence
from harness.judge.lateness import refuse_late
from harness.model.observation import Lasting, Pace, Rule
from harness.reading.decision import outcome
from harness.scenario.models.expect import Expect
from tests.builders import changed, frame, observation, rule, step

LIMITED = rule("tcp dport 443 limit rate 5/second burst 3 packets accept", line=3, handle=1)
OTHERS = rule("tcp dport 22 limit rate 5/second burst 3 packets accept", line=4, handle=2)
BANS = rule("tcp dport 22 limit rate over 5/second burst 3 packets add @banned { ip saddr } drop", line=5, handle=3)
BYTES = rule("tcp dport 443 limit rate 10 mbytes/second accept", line=6, handle=4)
BANNED = rule("ip saddr @banned drop", line=7, handle=7)
MAPPED = rule('tcp dport 443 limit name ip saddr map { 192.0.2.1 : "slow" } accept', line=6, handle=4)
OWN = rule("tcp dport 443 ip saddr @own accept", line=6, handle=4)
METER = rule("tcp dport 443 meter m size 9 { ip saddr limit rate 5/second burst 3 packets } accept", line=6, handle=4)
NAMED = {
    "inet filter slow": "limit rate 5/second burst 3 packets",
    "inet filter @own": "limit rate 5/second burst 3 packets",
}
KNOCKED = rule("tcp dport 443 ip saddr @knocked accept", line=8, handle=8)
ELSEWHERE = rule("tcp dport 22 ip saddr @knocked accept", line=8, handle=8)
STATE = rule("ct state established accept", line=8, handle=8)
NAT = rule("tcp dport 8443 dnat ip to 10.0.2.2", line=8, handle=8, chain="ip nat prerouting")
LAST = rule("tcp dport 80 accept", line=9, handle=9)


def evidence(*rules: Rule, by: Rule | None = None) -> Evidence:
    """A packet to port 443 that a rule decided about, or the policy behind all."""
    decided = msgspec.structs.replace(step("accept" if by else "drop", by), headers=frame()[14:])
    packet = changed(steps=(decided,), hops=(), deliveries=())
    return Evidence(Expect(verdict="accept"), outcome(packet, "device"), observation(packet), packet, (*rules, LAST))


@pytest.mark.parametrize(
    ("seen", "pace"),
    [
        (evidence(LIMITED), Pace(late=0.2, packets=4)),
        (evidence(LIMITED, by=LIMITED), Pace(late=0.3, packets=4)),
        (evidence(OTHERS, BANS, BANNED), Pace(late=0.2, packets=4)),
        (evidence(BYTES), Pace(late=0.2, packets=200, bytes=11 << 20)),
        (evidence(MAPPED), Pace(late=0.2, packets=1)),
        (evidence(OWN), Pace(late=0.2, packets=4)),
        (evidence(METER), Pace(late=0.2, packets=4)),
    ],
    ids=["its-limit", "it-matched", "a-limit-that-others-come-to-bans-it", "bytes", "map", "set", "meter"],
)
def test_a_limit_may_have_let_more_pass(seen: Evidence, pace: Pace) -> None:
    with pytest.raises(
        BrokenMeasurement, match=r"packets came 0\.[23] s later than the scenario asks, in which `limit "
    ):
        refuse_late(seen, pace, NAMED)


@pytest.mark.parametrize(
    ("seen", "pace"),
    [
        (evidence(LIMITED), Pace(late=0.19, packets=4)),
        (evidence(LIMITED), Pace(late=0.2, packets=3)),
        (evidence(OTHERS, BANS), Pace(late=0.2, packets=4)),
        (evidence(LIMITED), Pace()),
        (evidence(BYTES), Pace(late=0.2, packets=1000, bytes=10 << 20)),
        (evidence(MAPPED), Pace(late=0.19, packets=9)),
        (evidence(OWN), Pace(late=0.2, packets=3)),
        (evidence(), Pace(late=9.0, packets=1000)),
    ],
    ids=[
        "less-than-a-token",
        "no-more-than-at-once",
        "it-came-to-none",
        "at-once",
        "few-bytes",
        "map",
        "set",
        "no-limit",
    ],
)
def test_what_time_cannot_have_decided_stays_a_failure(seen: Evidence, pace: Pace) -> None:
    refuse_late(seen, pace, NAMED)


@pytest.mark.parametrize(
    ("rate", "says_pace"), [("5/second", False), ("500/second", True), ("500 bytes/second", False)]
)
def test_the_remedy_is_a_pace_where_no_machine_is_fast_enough(rate: str, says_pace: bool) -> None:
    limited = rule(f"tcp dport 443 limit rate {rate} accept", line=3, handle=1)
    with pytest.raises(BrokenMeasurement) as broken:
        refuse_late(evidence(limited), Pace(late=1, packets=9, bytes=900))
    assert ("by `rate` or `interval`" in str(broken.value)) is says_pace


def test_what_iptables_has_seen_recently_may_be_too_long_ago() -> None:
    looks = msgspec.structs.replace(LAST, written="-m recent --name x --rcheck --seconds 3 --hitcount 2 -j DROP")
    refuse_late(evidence(looks), Pace(late=2.9, packets=2))
    with pytest.raises(BrokenMeasurement, match="looks back 3 s"):
        refuse_late(evidence(looks), Pace(late=3, packets=2))


def test_a_limit_may_have_a_name() -> None:
    seen = evidence(rule('tcp dport 443 limit name "slow" accept', line=3, handle=1))
    pace = Pace(late=0.5, packets=4)
    refuse_late(seen, pace, {"inet filter fast": "limit rate 5/second burst 3 packets"})
    with pytest.raises(BrokenMeasurement, match="in which `limit rate 5/second burst 3 packets`"):
        refuse_late(seen, pace, {"inet filter slow": "limit rate 5/second burst 3 packets"})


KNOCK, CONNECTION = Lasting("an element of set knocked", 2.0, "@knocked"), Lasting("a connection", 2.0)


@pytest.mark.parametrize(
    ("asking", "expired"), [(KNOCKED, KNOCK), (STATE, CONNECTION), (NAT, CONNECTION)], ids=["set", "state", "nat"]
)
def test_what_it_needs_may_have_expired(asking: Rule, expired: Lasting) -> None:
    pace = Pace(late=2.5, packets=2, lasting=(expired,))
    with pytest.raises(BrokenMeasurement, match=f"{expired.what} stays 2 s, and more than that has passed"):
        refuse_late(evidence(asking), pace)


@pytest.mark.parametrize(("asking", "expired"), [(ELSEWHERE, KNOCK), (STATE, KNOCK), (KNOCKED, CONNECTION)])
def test_what_no_rule_has_asked_for_may_expire(asking: Rule, expired: Lasting) -> None:
    refuse_late(evidence(asking), Pace(late=2.5, packets=2, lasting=(expired,)))
