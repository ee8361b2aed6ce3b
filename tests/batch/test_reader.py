"""Observations of packets, made by hand, as effects; a sifted packet's is in test_sighting.py."""

from __future__ import annotations

import msgspec
import pytest

from harness.batch.messages import Effect
from harness.batch.reader import EffectReader, LeftBehind
from harness.errors import BrokenMeasurement
from harness.model.observation import Connection, Direction, Drop, ObservedPacket, Rule
from harness.packets.frames import Frame
from tests import builders

FRAME = Frame(sender="client", interface="eth0", through="wire", data=builders.frame(), summary="a SYN")
NOTHING = LeftBehind((), {}, ())
ENDS = Direction(src="203.0.113.5", dst="10.0.2.2", sport=40000, dport=443)
TRACKED = Connection(protocol=6, original=ENDS, reply=ENDS, state="SYN_SENT", status=("CONFIRMED", "DYING"), mark=3)


def effect(packet: ObservedPacket, *rules: Rule, left: LeftBehind = NOTHING) -> Effect:
    observed = builders.observation(packet)
    (found,) = EffectReader(rules).effects([((FRAME,), (observed,), left)])
    return found


def decided(text: str, verdict: str = "accept") -> tuple[ObservedPacket, Rule]:
    """A packet that a rule has decided."""
    rule = builders.rule(text)
    return builders.changed(hops=(), steps=(builders.step(verdict, rule),)), rule


def test_log_statements_that_a_packet_met() -> None:
    packet, rule = decided('tcp dport 443 log prefix "web " level info accept')
    assert effect(packet, rule).logs == ('log prefix "web " level info',)


def test_what_is_logged_by_chance_does_not_count() -> None:
    packet, rule = decided('numgen random mod 2 == 0 log prefix "one of two " accept')
    assert effect(packet, rule).logs == ()


def test_what_is_tracked_counts_for_an_accepted_packet_only() -> None:
    left = LeftBehind((), {}, (TRACKED,))
    (tracked,) = effect(*decided("accept"), left=left).connections
    assert tracked.endswith("SYN_SENT CONFIRMED mark 3")
    packet, rule = decided("drop", "drop")
    assert effect(msgspec.structs.replace(packet, deliveries=()), rule, left=left).connections == ()


def test_ports_that_chance_draws_are_not_compared() -> None:
    packet, rule = decided("masquerade to :1024-65535 random")
    (arrived,) = effect(packet, rule).arrived
    assert "203.0.113.5:* → 10.0.2.2:443 tcp" in arrived


def test_a_packet_about_which_chance_decides_says_by_what() -> None:
    packet, rule = decided("numgen random mod 2 == 0 accept")
    assert effect(packet, rule).by_chance.startswith("chance decides about the packet: numgen random mod 2")
    assert effect(*decided("accept")).by_chance == ""


def test_where_the_kernel_gave_up_what_the_ruleset_accepts() -> None:
    packet, rule = decided("accept")
    given_up = msgspec.structs.replace(
        packet, deliveries=(), drop=Drop(host="device", function="ip_forward", reason="IP_INHDR")
    )
    assert effect(given_up, rule).ended == "ip_forward: IP_INHDR"
    assert effect(packet, rule).ended == ""


def test_a_rule_that_is_not_listed_is_refused() -> None:
    packet, rule = decided("accept")
    unknown = msgspec.structs.replace(packet.steps[0], rule=None, kind="rule")
    with pytest.raises(BrokenMeasurement, match="not in the ruleset's listing"):
        effect(msgspec.structs.replace(packet, steps=(unknown,)), rule)


def test_hooks_that_decide_alike_in_a_row_are_one() -> None:
    steps = [builders.step(verdict, hook=hook) for hook, verdict in (("input", "accept"),) * 2 + (("output", "drop"),)]
    left = LeftBehind.of(steps, "device", {}, ())
    assert left.hooks == ("input accept", "output drop")
    assert len(left.steps) == 3
    assert LeftBehind.of(steps, "client", {}, ()).steps == ()


def test_how_long_an_effect_is_certain_and_how_old_it_was() -> None:
    limited = builders.rule("limit rate 20/second burst 2 packets accept", handle=1)
    packet = builders.changed(hops=(), steps=(builders.step("accept", limited),))
    observed = builders.observation(packet)
    left = LeftBehind.of(packet.steps, "device", {}, (), 0.25)
    reader = EffectReader((limited,))
    groups = [((FRAME,), (observed,), left)] * 3
    for _ in range(2):  # each begins with a full limit
        assert [one.certain_s for one in reader.effects(groups)] == [None, None, pytest.approx(0.05)]
    assert {one.age_s for one in reader.effects(groups)} == {0.25}


@pytest.mark.parametrize(
    ("text", "counts"), [("ct count over 2 reject", True), ("tcp dport 80 ct count 2 accept", False)]
)
def test_a_packet_that_may_have_come_to_ct_count_says_so(text: str, counts: bool) -> None:
    rules = builders.rule(text, handle=1), builders.rule("accept", handle=2)
    step = msgspec.structs.replace(builders.step("accept", rules[1]), headers=builders.frame()[14:])
    packet = builders.changed(hops=(), steps=(step,))
    left = LeftBehind.of(packet.steps, "device", {}, ())
    assert effect(packet, *rules, left=left).counts_connections is counts


def test_what_packets_sent_together_left_behind_is_of_the_last() -> None:
    packet, rule = decided("accept")
    observed = builders.observation(packet)
    left = LeftBehind(("forward accept",), {"inet t seen": ("192.0.2.1",)}, (TRACKED,))
    first, last = EffectReader((rule,)).effects([((FRAME, FRAME), (observed, observed), left)])
    assert (first.hooks, first.elements, first.connections) == ((), {}, ())
    assert last.hooks == ("forward accept",)
    assert last.elements == {"inet t seen": ("192.0.2.1",)}
    assert len(last.connections) == 1
