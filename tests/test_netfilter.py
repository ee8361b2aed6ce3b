from __future__ import annotations

import pytest

from harness import netfilter
from harness.netfilter import family_name, hook_name, verdict_name


def test_families_are_those_of_nft_and_the_rest_is_a_number() -> None:
    assert [family_name(number) for number in (1, 2, 3, 5, 7, 10, 12)] == [
        *("inet", "ip", "arp", "netdev", "bridge", "ip6"),
        "12",
    ]


def test_hooks() -> None:
    assert [hook_name(2, 0), hook_name(10, 4), hook_name(7, 5), hook_name(5, 1), hook_name(3, 2)] == [
        *("prerouting", "postrouting", "brouting", "egress", "forward")
    ]
    assert hook_name(42, 1) == "42:1"
    assert hook_name(3, 9) == "3:9"


def test_each_hook_of_a_chain_is_one_of_some_family() -> None:
    named = {hook_name(family, hook) for family in netfilter.FAMILIES for hook in range(8)}
    assert set(netfilter.HOOK_NAMES) == {name for name in named if ":" not in name} - {"brouting"}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, "drop"),
        (1, "accept"),
        (2, "stolen"),
        (1 << 16 | 2, "drop"),  # NF_DROP_REASON() with EPERM
        (111 << 16, "drop"),  # NF_DROP_ERR(-ECONNREFUSED)
        (3, "queue"),
        (7 << 16 | 3, "queue"),
        (0xFFFF << 16 | 3, "queue"),  # with a number of which the topmost bit is set
        (0xFFFF0003 - (1 << 32), "queue"),  # the same as a signed number
        (-1, "continue"),
        (0xFFFFFFFF, "continue"),
        (-2, "break"),
        (-3, "jump"),
        (0xFFFFFFFC, "goto"),
        (-5, "return"),
        (4, "4"),
    ],
)
def test_verdicts(code: int, name: str) -> None:
    assert verdict_name(code) == name
