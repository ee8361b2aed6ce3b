"""What is read of counters and sets, in the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.lab.lab import Lab
from harness.ruleset import state
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import Nft
from harness.topology.builtin import LABS
from harness.topology.network import Network

pytestmark = pytest.mark.kernel

RULESET = """\
table inet t {
	counter hits { packets 7 bytes 420; }
	set plain { type inet_service; elements = { 22, 80-90 }; flags interval; }
	set nets { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
	set timed { type ipv4_addr; timeout 7s; elements = { 192.0.2.1 timeout 1h comment "x", 192.0.2.2 } }
	set empty { type ipv4_addr; }
	map pairs { type ipv4_addr . inet_service : verdict; elements = { 10.0.0.1 . 443 : drop } }
	chain input {
		type filter hook input priority 0
		counter name hits
		tcp dport 22 counter packets 3 bytes 180 accept
		counter drop
	}
}
"""


@pytest.fixture
def nft(tmp_path: Path) -> Iterator[Nft]:
    path = tmp_path / "a.nft"
    path.write_text(RULESET)
    with Lab.build(Network.of(LABS["host"])) as lab:
        yield Ruleset.load(lab.device, path).nft


def test_counters(nft: Nft) -> None:
    assert state.counters(nft, ["inet t hits"]) == {"inet t hits": 7}


def test_what_rules_have_counted(tmp_path: Path) -> None:
    (path := tmp_path / "a.nft").write_text(RULESET)
    with Lab.build(Network.of(LABS["host"])) as lab:
        Ruleset.load(lab.device, path)
        counts = state.counts_of_rules(lab.device)
    assert list(counts.values()) == [3]
    assert next(iter(counts)).startswith("inet t input ")


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("plain", {"22", "80-90"}),
        ("nets", {"192.0.2.0/24", "198.51.100.7"}),
        ("timed", {"192.0.2.1", "192.0.2.2"}),
        ("empty", set()),
        ("pairs", {"10.0.0.1 . 443"}),
    ],
)
def test_elements_as_nft_writes_them(nft: Nft, name: str, held: set[str]) -> None:
    assert set(state.elements(nft, [f"inet t {name}"])[f"inet t {name}"]) == held


def test_for_how_long_elements_are_kept(nft: Nft) -> None:
    assert state.kept(nft, ["inet t timed"]) == {"inet t timed": ("192.0.2.1 timeout 3600s", "192.0.2.2 timeout 7s")}
    assert set(state.kept(nft, ["inet t plain"])["inet t plain"]) == {"22", "80-90"}


def test_what_is_not_there(nft: Nft) -> None:
    with pytest.raises(state.MissingError, match="the ruleset has no set or map inet t plane"):
        state.elements(nft, ["inet t plane"])
    with pytest.raises(state.MissingError, match="the ruleset has no counter inet t plain"):
        state.counters(nft, ["inet t plain"])


def test_members_of_sets_and_maps(nft: Nft) -> None:
    names = [f"inet t {name}" for name in ("plain", "empty", "pairs", "missing")]
    held = {name: set(elements) for name, elements in state.members(nft, names).items()}
    assert held == {"inet t plain": {"22", "80-90"}, "inet t empty": set(), "inet t pairs": {"10.0.0.1 . 443 : drop"}}
