"""Which cgroups a ruleset names."""

from __future__ import annotations

import pytest

from harness.ruleset.cgroups import MOST, named

CHAIN = "table inet t {{\nchain c {{\ntype filter hook output priority 0;\n{}\n}}\n}}\n"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('socket cgroupv2 level 2 "system.slice/sshd.service" accept', {"system.slice/sshd.service"}),
        ("socket cgroupv2 level 1 user.slice accept", {"user.slice"}),
        ("socket cgroupv2 level 1 != user.slice drop", {"user.slice"}),
        ('socket cgroupv2 level 1 { "a.slice", "b.slice" } accept', {"a.slice", "b.slice"}),
        ('meta mark set socket cgroupv2 level 1 map { "a/b@1.service" : 1 }', {"a/b@1.service"}),
        ('# socket cgroupv2 level 1 "a" accept\naccept comment "b"', set()),
        ('socket cgroupv2 level 1 "../../etc" accept', set()),
        ('tcp dport 22 log prefix "a" accept', set()),
    ],
)
def test_each_that_nft_looks_for(rule: str, expected: set[str]) -> None:
    assert set(named(CHAIN.format(rule))) == expected


def test_variables_count_where_cgroups_are_matched() -> None:
    text = 'define web = "system.slice/nginx.service"\n' + CHAIN.format("socket cgroupv2 level 2 $web accept")
    assert "system.slice/nginx.service" in set(named(text))


def test_the_paths_of_iptables() -> None:
    assert set(named("*filter\n-A OUTPUT -m cgroup --path system.slice/a.service -j ACCEPT\nCOMMIT\n")) == {
        "system.slice/a.service"
    }


def test_there_is_a_limit() -> None:
    many = ", ".join(f'"a{number}"' for number in range(MOST + 10))
    assert len(set(named(CHAIN.format(f"socket cgroupv2 level 1 {{ {many} }} accept")))) == MOST
