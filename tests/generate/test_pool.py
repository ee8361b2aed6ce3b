"""Packets at the boundaries of what two rulesets look at."""

from __future__ import annotations

from typing import Any

import pytest

from harness.generate import pool
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.pool import Pool
from harness.generate.simulate import SimulatedRuleset
from harness.packets import line
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.listings import match, table

ACCEPT: dict[str, Any] = {"accept": None}


def made(*sides: Facts, budget: int = 60, seed: int = 1) -> list[pool.PooledPacket]:
    network = Network.of(LABS["router"])
    return Pool([SimulatedDevice(SimulatedRuleset(one), network) for one in sides], seed).packets(budget)


@pytest.mark.parametrize(
    ("old", "new", "sent"),
    [
        (match("tcp", "dport", 80), match("tcp", "dport", 81), {80, 81}),
        (match("tcp", "dport", {"range": [10, 20]}), match("tcp", "dport", {"range": [10, 21]}), {21}),
        (match("tcp", "dport", {"set": [1, 2, 3]}), match("tcp", "dport", {"set": [1, 3]}), {2}),
    ],
)
def test_packets_on_which_the_rulesets_differ_are_among_them(
    old: dict[str, Any], new: dict[str, Any], sent: set[int]
) -> None:
    packets = made(table([old, ACCEPT]), table([new, ACCEPT]))
    differing = {one.fields["dport"] for one in packets if len({verdict for _, verdict in one.way}) > 1}
    assert sent <= differing


def test_what_packets_were_made_for_is_known_however_few_are_sent() -> None:
    network = Network.of(LABS["router"])
    side = table([match("tcp", "dport", 80), ACCEPT], [match("tcp", "dport", 81), match("tcp", "dport", 82), ACCEPT])
    device = SimulatedDevice(SimulatedRuleset(side), network)
    generator = Pool([device], 1)
    assert len(generator.packets(1)) == 1
    (first, never) = (rule.key for chain in device.ruleset.chains.values() for rule in chain.rules)
    assert (id(device), first) in generator.made
    assert (id(device), never) not in generator.made


def test_why_no_packet_was_made_for_a_rule() -> None:
    port = match("tcp", "dport", 80)
    side = table([port, {"drop": None}], [port, ACCEPT])
    device = SimulatedDevice(SimulatedRuleset(side), Network.of(LABS["router"]))
    generator = Pool([device], 1)
    generator.packets(10)
    first, second = (rule.key for chain in device.ruleset.chains.values() for rule in chain.rules)
    reasons = [generator.why_none(device, key, lambda place: f"rule {place[3]}") for key in (first, second)]
    assert reasons == ["", f"every packet tried for it is decided earlier, by rule {first[3]}"]
    generator.left_out.add(second)
    assert generator.why_none(device, second, str) == pool.LEFT_OUT


def test_a_limit_gets_as_many_packets_as_are_over_it() -> None:
    limited = [match("tcp", "dport", 25), {"limit": {"rate": 1, "per": "second", "burst": 3}}, ACCEPT]
    assert 4 in {send.get("count") for one in made(table(limited)) for send in one.sends}


def test_pings_over_a_limit_belong_to_different_connections() -> None:
    """The device answers, and the next ping of the same identifier is one of an established connection."""
    echo = match("icmp", "type", "echo-request")
    limited = [echo, {"limit": {"rate": 4, "per": "second", "burst": 3}}, ACCEPT]
    over = [one for one in made(table(limited, [echo, {"drop": None}])) if len(one.sends) == 4]
    assert any(len({fields.get("echo_id") for fields in one.steps}) == 4 for one in over)
    assert "accept,accept,accept,drop" in {verdict for one in over for _, verdict in one.way}


def test_the_same_seed_gives_the_same_packets() -> None:
    side = table([match("tcp", "dport", 80), ACCEPT])
    first, again, other = (made(side, seed=seed) for seed in (3, 3, 4))
    assert [one.sends for one in first] == [one.sends for one in again]
    assert [one.sends for one in first] != [one.sends for one in other]
    assert len(first) <= 60


def test_a_packet_is_told_on_one_line() -> None:
    send = {
        "from": "client",
        "to": "server",
        "ip": {"src": "198.51.100.7"},
        "tcp": {"dport": 22, "flags": "A"},
        "count": 2,
    }
    assert line.parse(pool.describe_send(send), "packet").value == send


def test_a_simpler_packet_says_one_thing_less() -> None:
    send = {"from": "client", "to": "server", "ip": {"src": "198.51.100.7"}, "tcp": {"sport": 1, "dport": 22}}
    assert list(pool.simpler(send)) == [
        {"from": "client", "to": "server", "tcp": {"sport": 1, "dport": 22}},
        {"from": "client", "to": "server", "ip": {"src": "198.51.100.7"}, "tcp": {"dport": 22}},
    ]


def test_of_large_rulesets_what_only_one_has_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [[match("tcp", "dport", port), ACCEPT] for port in range(1, 40)]
    monkeypatch.setattr(pool, "MANY", 20)
    monkeypatch.setattr(pool, "EVALUATED_AT_MOST", 6000)
    network = Network.of(LABS["router"])
    sides = table(*same), table(*same, [match("tcp", "dport", 999), ACCEPT])
    devices = [SimulatedDevice(SimulatedRuleset(one), network) for one in sides]
    generator = Pool(devices, 1)
    packets = generator.packets(60)
    assert 999 in {one.fields.get("dport") for one in packets}
    assert 0 < len(generator.left_out) < 40
    # The one that differs has a packet, whatever comes before it.
    (own,) = (rule.key for rule in devices[1].ruleset.chains["inet", "t", "forward"].rules[-1:])
    assert own not in generator.left_out
    # A packet more is simulated at most.
    assert sum(one.ruleset.evaluated for one in devices) < 6000 + 3 * 80


def test_of_small_rulesets_nothing_is_left_out() -> None:
    device = SimulatedDevice(SimulatedRuleset(table([match("tcp", "dport", 80), ACCEPT])), Network.of(LABS["router"]))
    generator = Pool([device], 1)
    generator.packets(60)
    assert not generator.left_out


def test_packets_beside_a_rule_are_those_for_which_one_of_its_matches_fails() -> None:
    old = [match("tcp", "dport", 22), match("ip", "saddr", {"set": ["198.51.100.7"]}), ACCEPT]
    packets = made(table(old), table([old[0], ACCEPT]), budget=200)
    differing = [one for one in packets if len({verdict for _, verdict in one.way}) > 1]
    assert any(one.fields["dport"] == 22 and "198.51.100.7" not in repr(one.sends) for one in differing)


def test_packets_over_a_limit_are_changed_as_others_are() -> None:
    """The old one lets a network by before the limit, the new one half of it."""

    def side(length: int) -> Facts:
        network = {"prefix": {"addr": "198.51.100.0", "len": length}}
        limit = {"limit": {"rate": 3, "burst": 2, "per": "minute", "inv": True}}
        return table([match("ip", "saddr", network), ACCEPT], [limit, {"drop": None}], [ACCEPT])

    packets = made(side(24), side(25), budget=400)
    differing = [one for one in packets if len({verdict for _, verdict in one.way}) > 1]
    assert any(len(one.sends) == 3 and one.fields["saddr"] == "198.51.100.255" for one in differing)


def test_of_packets_that_need_those_before_them_some_have_one_less() -> None:
    saddr = {"payload": {"protocol": "ip", "field": "saddr"}}
    knock = [match("tcp", "dport", 7), {"set": {"op": "add", "elem": saddr, "set": "@seen"}}, {"drop": None}]
    opened = [match("tcp", "dport", 22), match("ip", "saddr", "@seen"), ACCEPT]
    packets = made(table(knock, opened, sets=({"name": "seen", "type": "ipv4_addr"},)), budget=300)
    ports = {tuple(fields.get("dport") for fields in one.steps) for one in packets}
    assert {(7, 22), (22,)} <= ports


def test_a_rule_that_changes_packets_gets_one_that_is_let_by() -> None:
    mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}
    only = match("ip", "saddr", "10.0.2.2")
    found = made(table([mark], [only, ACCEPT]), budget=12)
    assert any(one.way[0][1] == "accept mark 7" and len(one.way[0][0]) == 2 for one in found)


def test_packets_of_one_connection_are_only_changed_where_they_may_differ() -> None:
    established = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}
    for one in made(table([established, ACCEPT], [match("udp", "dport", 53), ACCEPT]), budget=300):
        if len(one.steps) == 2 and one.fields.get("reply"):
            assert one.fields["sport"] == one.before[0]["dport"]


def test_the_order_of_two_rules_is_shown_by_a_packet_for_both() -> None:
    port = [match("tcp", "dport", 22), ACCEPT]
    banned = [match("ip", "saddr", "198.51.100.7"), {"drop": None}]
    differing = [
        one
        for one in made(table(port, banned), table(banned, port), budget=100)
        if len({outcome for _, outcome in one.way}) > 1
    ]
    assert {(one.fields["dport"], str(one.fields["saddr"])) for one in differing} == {(22, "198.51.100.7")}


def test_a_packet_differs_by_what_rules_write_on_it() -> None:
    mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}
    other = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 8}}
    (first, *_) = made(table([mark], policy="accept"), table([other], policy="accept"), budget=4)
    assert [outcome for _, outcome in first.way] == ["accept mark 7", "accept mark 8"]
