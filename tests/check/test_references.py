"""Rules, chains, sets and counters that scenarios name, against the text of the ruleset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.check.command import check
from harness.check.references import may_be_listed_as
from harness.errors import Position
from harness.ruleset.source import SourceRule

Write = Callable[..., Path]


@pytest.mark.parametrize(
    "expect",
    [
        '{rule: "ip daddr $web tcp dport { 80, 443 } accept"}',
        '{rule: "ip daddr 10.0.2.80 tcp dport {443,80} accept"}',  # as nft lists it
        "{rule: web}",
        "{rule: edge.nft:8}",
        "{rule: 7}",
        "{rule: policy}",
        "{rule: inet edge forward policy}",
        '{rule: "tcp dport 22 counter name \\"refused\\" reject with icmpx port-unreachable"}',
        "{rules: [edge.nft:9, edge.nft:12]}",
        "{counters: {inet edge refused: 1}}",
        "{elements: {inet edge blocked: []}}",
        "{path: [nft_do_chain: {chain: inet edge from_wan}]}",
        "{path: [nft_do_chain: {chain: inet edge from_wan}], never: [nft_do_chain: {chain: inet edge forward}]}",
    ],
)
def test_what_the_ruleset_has(project: Write, expect: str) -> None:
    assert check([project(expect)]).errors == ()


@pytest.mark.parametrize(
    ("expect", "sentence"),
    [
        (
            '{rule: "ip daddr $web tcp dport { 80, 444 } accept"}',
            "expect.rule: no rule of the ruleset reads so; the nearest is edge.nft:8: ip daddr $web tcp dport {",
        ),
        ("{rule: wbe}", "expect.rule: no rule of the ruleset reads so; the nearest is edge.nft:8: "),
        ("{rule: edge.nft:999}", "expect.rule: no rule of the ruleset begins on that line; the nearest is edge.nft:12"),
        ("{rule: other.nft:8}", "expect.rule: no file of the ruleset is called other.nft"),
        ("{rule: inet edge input policy}", "expect.rule: the ruleset has no base chain inet edge input"),
        ('{rules: [web, "tcp dport 22 drop"]}', "expect.rules[1]: no rule of the ruleset reads so"),
        (
            "{counters: {inet edge refuse: 1}}",
            "expect.counters: the ruleset has no counter 'inet edge refuse'; did you",
        ),
        ("{elements: {inet edge refused: []}}", "expect.elements: the ruleset has no set or map 'inet edge refused'"),
        (
            "{path: [ip_rcv, nft_do_chain: {chain: inet edge input}]}",
            "expect.path[1].nft_do_chain.chain: the ruleset has no chain 'inet edge input'",
        ),
        (
            "{path: {exactly: [nft_do_chain: {chain: inet edge input}]}}",
            "expect.path.exactly[0].nft_do_chain.chain: the ruleset has no chain 'inet edge input'",
        ),
    ],
)
def test_what_it_has_not(project: Write, expect: str, sentence: str) -> None:
    (error,) = check([project(expect)]).errors
    assert str(error).startswith("edge.yaml:6:")
    assert str(error).partition(": ")[2].startswith(sentence)


def test_a_step_that_changes_the_ruleset_ends_the_comparison(project: Write) -> None:
    file = project()
    send = "send: {from: client, to: server, tcp: {dport: 80}}"
    steps = f"steps: [{{nft: 'add chain inet edge late'}}, {{{send}, expect: {{rule: late}}}}]"
    file.write_text(file.read_text().replace(f"{send}\n    expect: {{verdict: accept}}", steps))
    assert check([file]).errors == ()


def test_rules_that_were_taken_away_leave_nothing_certain(project: Write, tmp_path: Path) -> None:
    file = project("{rule: late}")
    with (tmp_path / "edge.nft").open("a") as ruleset:
        ruleset.write("delete rule inet edge from_wan handle 9\n")
    assert check([file]).errors == ()


def written(text: str) -> SourceRule:
    return SourceRule(Position("r.nft", 1, 1), text, "")


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("tcp dport ssh accept", "tcp dport 22 accept"),
        ("meta l4proto tcp tcp dport 22 counter drop", "tcp dport 22 drop"),
        ("iifname lo accept", 'iifname "lo" accept'),
        ("ip saddr 10.0.0.5/24 drop", "ip saddr 10.0.0.0/24 drop"),
        ("tcp dport { 80-90, 85-100 } accept", "tcp dport { 80-100 } accept"),
        ("tcp dport {22} accept", "tcp dport 22 accept"),
        ("ip saddr . tcp dport { 10.0.0.1 . 22 } accept", "ip saddr . tcp dport { 10.0.0.1 . 22 } accept"),
        ("tcp dport vmap $ports", "tcp dport vmap { 22 : accept, 23 : drop }"),
        ("jump $where", "jump from_wan"),
        ("@th,16,16 53 accept", "th dport 53 accept"),
        ("reject", "reject with icmp port-unreachable"),
        ("tcp dport 0x50 accept", "tcp dport 80 accept"),
        ("ip6 saddr 2001:db8:0::1 drop", "ip6 saddr 2001:db8::1 drop"),
        ('log prefix "drop: " accept', 'log prefix "drop: " accept'),
    ],
)
def test_what_nft_may_make_of_a_rule(text: str, listed: str) -> None:
    assert may_be_listed_as(listed, written(text))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("tcp dport 22 accept", "tcp dport 23 accept"),
        ("tcp dport 22 accept", "tcp dport != 22 accept"),
        ("tcp dport 22 accept", "tcp sport 22 accept"),
        ("tcp dport 22 accept", "tcp dport 22 drop"),
        ("tcp dport 22 accept", "tcp dport 22"),
        ("iifname wan0 accept", 'iifname "lan0" accept'),
        ("ip saddr 10.0.0.1 drop", "ip saddr 10.0.0.2 drop"),
        ("jump from_wan", "jump from_lan"),
        ("iifname vmap { lan0 : jump a, wan0 : jump b }", 'iifname vmap { "lan0" : jump a, "wan0" : jump c }'),
        ("tcp dport { 80, 443 } accept", "tcp dport { 80, 444 } accept"),
    ],
)
def test_what_it_never_makes_of_it(text: str, other: str) -> None:
    assert not may_be_listed_as(other, written(text))


@pytest.mark.kernel
def test_each_rule_may_be_what_nft_lists() -> None:
    """Of rulesets of many kinds, as this kernel takes them."""
    from harness.lab.lab import Lab
    from harness.project import EVERYTHING
    from harness.ruleset.load import Ruleset
    from harness.topology.builtin import LABS
    from harness.topology.network import Network

    zoo = Path(__file__).parents[1] / "ruleset/zoo"
    rules = []
    for name in ("blocks.nft", "commands.nft", "includes.nft", "inline.nft"):
        with Lab.build(Network.of(LABS["router"])) as lab:
            rules += [one for one in Ruleset.load(lab.device, zoo / name, home=EVERYTHING).rules if one.position]
    assert len(rules) > 20
    assert [one for one in rules if one.position and not may_be_listed_as(one.text, written(one.written))] == []
