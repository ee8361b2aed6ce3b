"""Which rulesets stay as they are when packets have met them, on the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.lab.lab import Host, Lab
from harness.ruleset.load import Ruleset
from harness.ruleset.state import counts_of_rules
from harness.ruleset.unchanged import Loaded
from harness.topology.builtin import LABS
from harness.topology.network import Network

pytestmark = pytest.mark.kernel


@pytest.fixture
def device() -> Iterator[Host]:
    with Lab.build(Network.of(LABS["router"])) as lab:
        yield lab.device


def load(device: Host, folder: Path, rules: str, more: str = "", hook: str = "prerouting") -> Ruleset:
    """Load rules of a chain at ``hook``, in a table with ``more``."""
    kind = "nat" if "nat" in rules or "masq" in rules or "redirect" in rules else "filter"
    file = folder / "rules.nft"
    file.write_text(
        f"table inet t {{\n{more}\n  chain other {{ accept; }}\n"
        f"  chain c {{\n    type {kind} hook {hook} priority filter + 5;\n    {rules}\n  }}\n}}\n"
    )
    try:
        return Ruleset.load(device, file)
    except HarnessError as error:
        pytest.skip(f"this kernel does not take it: {error}")


@pytest.mark.parametrize(
    "rules",
    [
        "ip saddr 192.0.2.0/24 tcp dport { 22, 80-90 } ct state new accept",
        'iifname { "wan", "lan" } ip daddr . tcp dport { 10.0.2.2 . 80, 10.0.2.3 . 443 } accept',
        "tcp dport vmap { 22 : drop, 80 : jump other, 443 : goto other }",
        "meta mark set ip daddr map { 10.0.2.2 : 1, 10.0.2.3 : 2 } ct mark set meta mark ip dscp set af11",
        "tcp flags & (syn | rst) == syn tcp option maxseg size set 1200 notrack",
        'fib daddr type local log prefix "local " reject with icmpx admin-prohibited',
        "meta mark set jhash ip saddr mod 2 ct original saddr 192.0.2.5 drop",
        "tcp dport 80 dnat ip to 10.0.2.2:8080",
        "tcp dport 80 redirect to :8080",
        "meta l4proto tcp tproxy to :3128 meta mark set 1",
        "socket transparent 1 meta mark set 2 accept",
        "jump { ip saddr 192.0.2.7 drop; }",
    ],
)
def test_what_packets_cannot_change_stays(device: Host, tmp_path: Path, rules: str) -> None:
    hook = "input" if "reject" in rules else "prerouting"
    load(device, tmp_path, rules, hook=hook)
    loaded = Loaded(device)
    assert loaded.reset()
    assert loaded.reset()


@pytest.mark.parametrize(
    ("rules", "more"),
    [
        ("tcp dport 22 limit rate 3/minute accept", ""),
        ("tcp dport 22 quota 100 bytes accept", ""),
        ("tcp dport 22 ct count over 3 reject", ""),
        ("meta mark set numgen inc mod 2", ""),
        ("tcp dport 22 last accept", ""),
        ("tcp dport 22 counter name n accept", "counter n { }"),
        ("tcp dport 22 limit name n accept", "limit n { rate 3/minute }"),
        ("add @s { ip saddr }", "set s { type ipv4_addr; flags dynamic; }"),
        ("delete @s { ip saddr }", "set s { type ipv4_addr; flags dynamic; }"),
        ("ip saddr @s accept", "set s { type ipv4_addr; timeout 1h; elements = { 192.0.2.5 } }"),
        ("ip saddr @s accept", "set s { type ipv4_addr; flags timeout; elements = { 192.0.2.5 timeout 1h } }"),
        ("ip saddr @s accept", "set s { type ipv4_addr; counter; elements = { 192.0.2.5 } }"),
        ("ip saddr { 192.0.2.5 counter, 192.0.2.6 } accept", ""),
        ("counter name ip saddr map { 192.0.2.5 : n }", "counter n { }"),
        ("meter m { ip saddr limit rate 3/minute } accept", ""),
        ("jump { tcp dport 22 limit rate 3/minute accept; }", ""),
        ("ct state new queue num 0 bypass", ""),
    ],
)
def test_what_packets_can_change_does_not_stay(device: Host, tmp_path: Path, rules: str, more: str) -> None:
    load(device, tmp_path, rules, more)
    assert not Loaded(device).reset()


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        ("-p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m comment --comment ssh -j ACCEPT", True),
        ("-p tcp -m multiport --dports 80,443 -m mark --mark 1 -j LOG --log-prefix web", True),
        ("-p udp -m udp --dport 53 -m addrtype --dst-type LOCAL -j REJECT", True),
        ("-m limit --limit 3/minute -j ACCEPT", False),
        ("-p tcp -m hashlimit --hashlimit-above 3/minute --hashlimit-mode srcip --hashlimit-name h -j DROP", False),
        ("-m recent --set --name seen -j ACCEPT", False),
        ("-m statistic --mode nth --every 2 --packet 0 -j DROP", False),
        ("-m quota --quota 1000 -j ACCEPT", False),
        ("-p tcp -m connlimit --connlimit-above 3 -j DROP", False),
    ],
)
def test_of_iptables_the_same_is_known_by_the_names_of_extensions(
    device: Host, tmp_path: Path, rule: str, stays: bool
) -> None:
    file = tmp_path / "rules.v4"
    file.write_text(f"*filter\n:INPUT ACCEPT [7:420]\n[3:180] -A INPUT {rule}\nCOMMIT\n")
    try:
        ruleset = Ruleset.load(device, file)
    except HarnessError as error:
        pytest.skip(f"this kernel does not take it: {error}")
    assert ruleset.may_stay()
    loaded = Loaded(device)
    can = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 5)  # each of these rules has a counter
    assert loaded.reset() is (stays and can)


def test_counters_of_rules_are_reset_since_linux_6_5(device: Host, tmp_path: Path) -> None:
    load(device, tmp_path, "tcp dport 22 counter packets 7 bytes 420 accept; counter packets 2 bytes 80")
    loaded = Loaded(device)
    assert sorted(counts_of_rules(device).values()) == [2, 7]
    can = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 5)
    assert loaded.reset() is can
    assert (counts_of_rules(device) == {}) is can


@pytest.mark.parametrize(
    "command",
    [
        "add rule inet t c tcp dport 80 drop",
        "add element inet t s { 192.0.2.6 }",
        "delete element inet t s { 192.0.2.5 }",
        "add table ip another",
        "flush ruleset",
    ],
)
def test_what_somebody_else_has_changed_does_not_stay(device: Host, tmp_path: Path, command: str) -> None:
    ruleset = load(device, tmp_path, "ip saddr @s accept", "set s { type ipv4_addr; elements = { 192.0.2.5 } }")
    loaded = Loaded(device)
    assert loaded.reset()
    ruleset.nft.run(command)
    assert not loaded.reset()
    loaded.reloaded()
    assert loaded.reset()


@pytest.mark.parametrize(("last", "stays"), [("", True), (" counter", False)])
def test_an_element_among_many_that_counts_is_found(device: Host, tmp_path: Path, last: str, stays: bool) -> None:
    """The kernel lists sets of this size in several messages."""
    many = ", ".join(f"10.1.{number // 250}.{number % 250}" for number in range(5000))
    load(device, tmp_path, f"ip saddr {{ {many}, 192.0.2.5{last} }} accept")
    assert Loaded(device).reset() is stays


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("add table ip t\n", True),
        ("table ip t { chain c { counter packets 0 bytes 0 drop; }\n}\n", True),
        ("table ip t { chain c { counter packets 3 bytes 100 drop; }\n}\n", False),
        ('include "./part.nft"\n', True),
        ('include "./pa*.nft"\n', False),
        ('include "./parts/*"\nadd table ip t\n', False),
    ],
)
def test_files_that_say_more_than_their_rules_are_read_again(
    device: Host, tmp_path: Path, text: str, stays: bool
) -> None:
    (tmp_path / "part.nft").write_text("add table ip included\n")
    file = tmp_path / "rules.nft"
    file.write_text(text)
    ruleset = Ruleset.load(device, file)
    assert ruleset.may_stay() is stays
    file.write_text(f"{text}# written\n")
    assert not ruleset.may_stay()
