"""Files of a ruleset, and what they may name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Position, ScenarioError
from harness.lab.lab import Host, Lab
from harness.ruleset.load import Ruleset
from harness.topology.builtin import LABS
from harness.topology.network import Network

pytestmark = pytest.mark.kernel


@pytest.fixture
def device() -> Iterator[Host]:
    with Lab.build(Network.of(LABS["router"])) as lab:
        yield lab.device


@pytest.mark.parametrize("name", ["none.nft", "no-folder/none.nft", "."])
def test_a_missing_file_is_said_so(device: Host, tmp_path: Path, name: str) -> None:
    with pytest.raises(ScenarioError, match="there is no such ruleset") as refused:
        Ruleset.load(device, tmp_path / name)
    assert refused.value.position == Position(str(tmp_path / name))


def test_rules_that_a_command_replaced_have_no_place(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "replaced.nft"
    file.write_text(
        "table ip t { chain c { accept; drop; }; chain d { accept; }; }\nreplace rule ip t c handle 3 drop\n"
    )
    ruleset = Ruleset.load(device, file)
    assert {rule.chain: rule.position for rule in ruleset.rules} == {"c": None, "d": Position(str(file), 1, 51)}


def test_variables_and_what_files_define_for_later_ones(device: Host, tmp_path: Path) -> None:
    one, two = tmp_path / "1.nft", tmp_path / "2.nft"
    one.write_text("define ports = { 22, 80 }\ntable ip t { chain c { iifname $wan accept; }; }\n")
    two.write_text("table ip t { chain c { tcp dport $ports ip saddr $bad drop; }; }")
    three = tmp_path / "3.nft"
    three.write_text("table ip t { chain c { oifname $wan drop; }; }\n")
    ruleset = Ruleset.load(device, one, two, three, defines={"wan": "wan0", "bad": "{ 192.0.2.1, 198.51.100.0/24 }"})
    assert [rule.text for rule in ruleset.rules] == [
        'iifname "wan0" accept',
        "tcp dport { 22, 80 } ip saddr { 192.0.2.1, 198.51.100.0/24 } drop",
        'oifname "wan0" drop',
    ]
    assert [rule.position and rule.position.file for rule in ruleset.rules] == [str(one), str(two), str(three)]


def test_a_variable_that_nft_does_not_take_is_named(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "a.nft"
    file.touch()
    with pytest.raises(ScenarioError, match=r"syntax error, unexpected string.* in: define wan = eth0 eth1"):
        Ruleset.load(device, file, defines={"wan": "eth0 eth1"})


def test_a_file_that_a_link_leads_out_of_the_project_is_not_read(device: Host, tmp_path: Path) -> None:
    (tmp_path / "inside.nft").symlink_to("/etc/hostname")
    file = tmp_path / "a.nft"
    file.write_text('include "inside.nft"\n')
    with pytest.raises(ScenarioError, match="lies outside of the project"):
        Ruleset.load(device, file)
