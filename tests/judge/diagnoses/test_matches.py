"""What in a rule did not match, where its matches on headers held."""

from __future__ import annotations

import pytest

from harness.model.observation import ObservedPacket, Rule
from tests.builders import advice, at, changed, dropped, headers, rule, step

END = at(step("continue", chain="inet filter forward"), kind="return", headers=headers(), iif="wan0")


def evaluated(*, ip: bytes = headers()) -> ObservedPacket:
    """A packet from 203.0.113.5 to port 443 that came to the end of the chain and was accepted by the policy."""
    return changed(steps=(at(END, headers=ip), step("accept")), hops=())


def said(text: str, *more: Rule, packet: ObservedPacket | None = None, **sets: tuple[str, ...]) -> str:
    one = rule(text, line=5, handle=3)
    held = {f"inet filter {name}": elements for name, elements in sets.items()}
    found = advice({"verdict": "drop", "rule": text}, packet or evaluated(), rules=(one, *more), sets=held)
    return "; ".join(found).removeprefix("rulesets/edge.nft:5, the expected rule, did not match because ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tcp dport 443 limit rate 3/minute drop", "its limit was exceeded (`limit rate 3/minute`)"),
        (
            "tcp dport 443 limit rate 1/hour burst 1 packets counter packets 0 bytes 0 drop",
            "its limit was exceeded (`limit rate 1/hour burst 1 packets`)",
        ),
        (
            "limit rate over 1 mbytes/second drop",
            "the rate did not exceed its limit (`limit rate over 1 mbytes/second`)",
        ),
        ("tcp dport 443 quota over 5 kbytes drop", "its quota was not used up (`quota over 5 kbytes`)"),
        ("tcp dport 443 quota 5 kbytes accept", "its quota was used up (`quota 5 kbytes`)"),
        ("tcp dport 443 ct count 2 accept", "there were more connections (`ct count 2`)"),
        (
            "tcp dport 443 add @macs { ether saddr } drop",
            "set macs took no new element, as when it is full (`add @macs { ether saddr }`)",
        ),
        ("tcp dport 443 ct count over 2 drop", "there were not that many connections (`ct count over 2`)"),
        (
            "tcp dport 443 add @small { ip saddr timeout 1m } drop",
            "set small took no new element 203.0.113.5, as when it is full (`add @small { ip saddr timeout 1m }`)",
        ),
        (
            "update @meter { ip saddr limit rate over 3/second } drop",
            (
                "the condition that set meter keeps for the packet did not hold, or the set was full "
                "(`update @meter { ip saddr limit rate over 3/second }`)"
            ),
        ),
        (
            "tcp dport 443 tproxy to 127.0.0.1:12345 accept",
            "no transparent socket of the device listens at 127.0.0.1:12345 (`tproxy to 127.0.0.1:12345`)",
        ),
        ("tcp dport 443 ip saddr @bad drop", "bad has no element for 203.0.113.5 (`ip saddr @bad`)"),
        (
            "ip saddr . tcp dport @pairs drop",
            "pairs has no element for 203.0.113.5 . 443 (`ip saddr . tcp dport @pairs`)",
        ),
        ("ip saddr != @good drop", "good has an element for 203.0.113.5 (`ip saddr != @good`)"),
        ("ether saddr @macs drop", "macs has no element for the packet (`ether saddr @macs`)"),
        ("ct original ip saddr @bad drop", "bad has no element for the packet (`ct original ip saddr @bad`)"),
        (
            "tcp dport 443 ct state new limit rate 3/minute drop",
            "its limit was exceeded (`limit rate 3/minute`), or `ct state new` did not hold",
        ),
        (
            "ip saddr @bad limit rate 3/minute drop",
            "its limit was exceeded (`limit rate 3/minute`), or bad has no element for 203.0.113.5 (`ip saddr @bad`)",
        ),
    ],
)
def test_what_is_left(text: str, reason: str) -> None:
    assert said(text) == reason


def test_an_element_that_expired() -> None:
    assert said("ip saddr @tmp drop", tmp=("203.0.113.5",)) == (
        "tmp no longer has the element 203.0.113.5 that was loaded: it expired, or a step deleted it (`ip saddr @tmp`)"
    )
    assert said("ip saddr @tmp drop", tmp=("203.0.113.6",)).startswith("tmp has no element for")


@pytest.mark.parametrize(
    "text",
    [
        "tcp dport 80 limit rate 3/minute drop",  # another port: that is said of it
        "ip saddr 192.0.2.1 ip daddr @bad drop",
        "ct mark 7 drop",  # nothing that is known to fail
        'log prefix "limit rate 3/minute" ct mark 7 drop',
    ],
)
def test_near_misses(text: str) -> None:
    assert "did not match because" not in said(text)
    assert "limit was" not in said(text)


def test_not_of_a_rule_that_matched_or_was_not_reached() -> None:
    limit = rule("limit rate 3/minute accept", line=5, handle=3)
    met = changed(steps=(step("accept", limit),), hops=())
    assert advice({"verdict": "drop", "rule": limit.text}, met, rules=(limit,)) == []
    other = changed(steps=(step("accept", chain="inet filter other", hook="forward"),), hops=())
    assert advice({"verdict": "drop", "rule": limit.text}, other, rules=(limit,)) == []


def test_not_where_rules_change_headers() -> None:
    assert said("ip saddr @bad drop", rule("ip saddr set 192.0.2.1", line=4, handle=2)) == ""


def test_an_element_of_a_map_that_expired() -> None:
    assert said("ip saddr vmap @ways", ways=("203.0.113.5 : drop", "192.0.2.1 : accept")).startswith(
        "ways no longer has the element 203.0.113.5 that was loaded"
    )
    assert said("ip saddr vmap @ways", ways=("192.0.2.1 : accept",)).startswith("ways has no element for 203.0.113.5")


REFUSED = dropped(END, step("drop"))
"""A packet from 203.0.113.5 to port 443 that the policy dropped."""


def used_up(text: str, packet: ObservedPacket = REFUSED, **expect: object) -> list[str]:
    one = rule(text, line=5, handle=3)
    return advice({"verdict": "accept", **expect}, packet, rules=(one,))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tcp dport 443 limit rate 3/minute accept", "its limit was exceeded (`limit rate 3/minute`)"),
        ("tcp dport 443 quota 20 bytes counter accept", "its quota was used up (`quota 20 bytes`)"),
        ("tcp dport 443 ct count 1 accept", "there were more connections (`ct count 1`)"),
        (
            "tcp dport 443 add @small { ip saddr } accept",
            "set small took no new element 203.0.113.5, as when it is full (`add @small { ip saddr }`)",
        ),
        (
            "tcp dport 443 limit rate 3/minute quota 20 bytes accept",
            "its limit was exceeded (`limit rate 3/minute`) or its quota was used up (`quota 20 bytes`)",
        ),
    ],
)
def test_a_policy_decides_where_a_rule_that_accepts_is_used_up(text: str, reason: str) -> None:
    assert used_up(text) == [f"rulesets/edge.nft:5 accepts such packets, but did not match this one because {reason}"]
    others = rule("limit rate 1/day accept", chain="inet edge input"), rule("tcp dport 22 drop")
    found = advice({"verdict": "accept"}, REFUSED, rules=(*others, rule(text, line=5, handle=3)))
    assert found == used_up(text)  # rules before it, of another chain or without accept, are passed over


@pytest.mark.parametrize(
    "text",
    [
        "tcp dport 22 limit rate 3/minute accept",  # it is about others
        "tcp dport 443 limit rate 3/minute",  # it would not have accepted it
        "tcp dport 443 limit rate 3/minute drop",
        "tcp dport 443 ct state established limit rate 3/minute accept",  # perhaps that did not hold
        "tcp dport 443 ip saddr @good accept",  # it is not used up
    ],
)
def test_the_policy_decides_for_want_of_a_rule(text: str) -> None:
    (found,) = used_up(text)
    assert found.startswith("no rule of inet filter forward decided, so its policy did")


def test_of_a_chain_that_the_packet_met_twice_the_second_evaluation_counts() -> None:
    """As a packet that arrived encrypted does."""
    reason = "its limit was exceeded (`limit rate 3/minute`)"
    used = [f"rulesets/edge.nft:5 accepts such packets, but did not match this one because {reason}"]
    ssh, https = (at(END, headers=headers(dport=port)) for port in (22, 443))
    again = dropped(ssh, step("accept"), https, step("drop"))
    assert used_up("tcp dport 443 limit rate 3/minute accept", again) == used
    assert used_up("tcp dport 22 limit rate 3/minute accept", again) != used
    elsewhere = at(step("drop", chain="inet far forward"), host="server", headers=headers(dport=22))
    assert used_up("tcp dport 443 limit rate 3/minute accept", changed(again, steps=(*again.steps, elsewhere))) == used


def test_not_of_a_rule_that_the_packet_did_not_come_to() -> None:
    gone = at(step("goto", rule("goto other", line=4, handle=2)), headers=headers(), iif="wan0")
    accepts = rule("limit rate 3/minute accept", line=5, handle=3)
    assert "limit was exceeded" in advice({"verdict": "accept"}, REFUSED, rules=(gone.rule, accepts))[0]
    found = advice({"verdict": "accept"}, dropped(gone, step("drop")), rules=(gone.rule, accepts))
    assert "limit was exceeded" not in "".join(found)


def test_an_expected_drop_needs_no_cause() -> None:
    assert advice({"verdict": "drop", "rule": "policy"}, REFUSED, rules=(rule("limit rate 1/hour accept"),)) == []
