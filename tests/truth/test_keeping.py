"""What is kept of a flow that the judges do not agree about."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.model import layers
from harness.scenario.load import load_all
from tests.truth import keeping
from tests.truth.flow import Flow, read, write
from tests.truth.language import FIELDS, Chain, Compare, Rule, Ruleset, Table, Verdict
from tests.truth.packets import TCP, Packet


@pytest.fixture
def flow() -> Flow:
    """Two tables and five packets, of which the third is to port 22."""
    rules = tuple(
        Rule(number, (Compare(FIELDS["tcp dport"], "==", 20 + number),), (), Verdict("drop")) for number in range(4)
    )
    tables = tuple(
        Table("ip", name, chains=(Chain("f", rules, "forward", policy="accept"),)) for name in ("first", "second")
    )
    packets = tuple(Packet("203.0.113.5", "10.0.2.2", TCP, 1024, 20 + number, iif="wan0") for number in range(5))
    return Flow(Ruleset(tables), packets, "file")


def test_only_what_is_needed_is_left(flow: Flow) -> None:
    def fails(one: Flow) -> bool:
        has_rule = any(rule.number == 2 and table.name == "second" for table, _, rule in one.ruleset.rules())
        return has_rule and any(packet.dport == 22 for packet in one.packets)

    found = keeping.smallest(flow, fails)
    assert [packet.dport for packet in found.packets] == [22]
    assert [(table.name, rule.number) for table, _, rule in found.ruleset.rules()] == [("second", 2)]


def test_what_fails_only_as_a_whole_stays(flow: Flow) -> None:
    assert keeping.smallest(flow, lambda one: one == flow) == flow


def test_it_is_a_scenario(flow: Flow, tmp_path: Path) -> None:
    keeping.keep(flow, tmp_path)
    (tmp_path / "pytest.ini").touch()
    loaded = load_all(tmp_path / "truth.yaml", layers=layers.NAMES)
    assert not loaded.errors
    assert len(loaded.cases) == 1


def test_parts_of_a_file_are_all_of_it(flow: Flow, tmp_path: Path) -> None:
    write(tmp_path / "flows", 10, seed=1)
    parts = [read(tmp_path / "flows", part, 3) for part in range(3)]
    assert sorted(map(len, parts)) == [3, 3, 4]
    assert len({repr(one) for part in parts for one in part}) == len(
        {repr(one) for one in read(tmp_path / "flows", 0, 1)}
    )
