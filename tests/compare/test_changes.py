"""Effects of two rulesets on the same packets, compared, grouped, approved and shown."""

from __future__ import annotations

from typing import Any

import pytest

from harness.batch.messages import Effect, Effects
from harness.compare.changes import compared as compared_packets
from harness.compare.changes import difference, grouped, undecided
from tests.compare.builders import BOOKS, DROPPED, POLICY, RULE, book, change, effect, sure


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({}, {}, ""),
        ({"verdict": "drop"}, {}, "drop → accept"),
        ({}, {"verdict": "reject with tcp reset"}, "accept → reject with tcp reset"),
        ({"arrived": ("server eth0: a",)}, {"arrived": ("server eth0: b",)}, "accept, arrives differently"),
        ({}, {"answers": ("client eth0: icmp",)}, "accept, is answered differently"),
        ({"mark": 1}, {"mark": 2}, "accept, another mark"),
        ({}, {"logs": ('log prefix "x"',)}, "accept, logs differently"),
        ({}, {"elements": {"inet t s": ("1.2.3.4",)}}, "accept, other elements"),
        ({}, {"connections": ("protocol 6",)}, "accept, another entry of conntrack"),
        ({"met": ()}, {}, ""),
        ({"hooks": ("input drop",)}, {}, ""),
    ],
)
def test_what_differs_is_the_verdict_or_else_what_follows(old: Any, new: Any, words: str) -> None:
    assert difference(effect(**old), effect(**new)) == words


def test_another_rule_counts_only_when_asked_for() -> None:
    by_policy = effect(decided=(POLICY,))
    assert change(0, effect(), by_policy) is None
    assert sure(change(0, effect(), by_policy, rules=True)).kind == "accept, by another rule"


def test_chance_decides_about_no_change() -> None:
    assert change(0, DROPPED, effect(by_chance="numgen random")) is None


def test_a_count_of_connections_that_were_reset_is_by_chance() -> None:
    frame = "client eth0: 192.0.2.1:443 → 192.0.2.2:40000 tcp RA (IPv4, 40 bytes), ttl 64"
    reset, counted = effect(arrived=(frame,)), effect(counts_connections=True)
    answered = effect(answers=(frame,))
    open_one = effect(arrived=("server eth0: 192.0.2.2:40000 → 192.0.2.1:443 tcp S (IPv4, 40 bytes), ttl 63",))
    assert undecided((reset, counted), (reset, effect()))
    assert undecided((reset, effect()), (answered, counted))
    assert not undecided((open_one, counted), (open_one, counted))
    assert not undecided((reset, effect()), (reset, effect()))
    assert not undecided((reset,), (reset,))


def at(age: float, certain: float | None, **values: Any) -> Effect:
    return effect(age_s=age, certain_s=certain, **values)


@pytest.mark.parametrize(
    ("old", "new", "compared"),
    [
        ((0.01, 0.05), (0.02, 0.05), True),  # in less time than a token takes
        ((0.01, 0.05), (0.06, 0.05), False),  # only one of the sides has taken as long
        ((0.06, 0.05), (0.01, 0.05), False),
        ((0.06, None), (0.06, 0.05), True),  # accepted for certain on one side, and not on the other
        ((0.06, 20), (0.06, 0.05), True),
        ((30, 20), (0.01, 0.05), False),
    ],
)
def test_a_change_is_certain_on_one_side_at_least(
    old: tuple[float, float | None], new: tuple[float, float | None], compared: bool
) -> None:
    before, after = at(*old), at(*new, verdict="drop", decided=(POLICY,), met=(POLICY,))
    assert (change(0, before, after) is not None) is compared
    assert bool(undecided((before,), (after,))) is not compared
    assert undecided((before,), (after,), either=True).startswith("time decides") or max(old[0], new[0]) < 0.05


def test_what_differs_before_time_decides_is_a_change() -> None:
    late = at(1, 0.5)
    sends = ({"from": "client", "to": "server", "tcp": {"dport": 80}},)
    found = compared_packets(
        (0, sends, "two packets"), Effects(seen=(effect(), late)), Effects(seen=(DROPPED, late)), BOOKS, rules=False
    )
    assert sure(found).kind == "accept → drop"


def test_groups_have_the_simplest_packet() -> None:
    found = [sure(change(n, DROPPED, effect(), port=port)) for n, port in enumerate((8080, 80, 443))]
    found.append(sure(change(3, effect(), DROPPED)))
    one, other = grouped(found, lambda witness: len(repr(witness.sends)))
    assert (one.kind, one.packets, one.witness.sends[0]["tcp"]["dport"]) == ("drop → accept", 3, 80)
    assert str(one.old) == "old.nft:3: policy drop"
    assert str(one.new) == "new.nft:7: tcp dport 80 accept"
    assert other.kind == "accept → drop"


def test_what_was_met_counts_only_for_the_same_rules() -> None:
    one, same, other = book("a.nft"), book("a.nft"), book("a.nft", "tcp dport 81 accept")
    same.met = {RULE}
    other.met = {POLICY}
    one.add(same)
    one.add(other)
    assert one.met == {RULE}
