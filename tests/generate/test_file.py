"""What is written is a scenario file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.generate import file, lab
from harness.generate.file import ScenarioDraft
from harness.scenario.case import Case
from harness.scenario.load import load_all
from tests.listings import NAMES, facts, packets


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_a_scenario_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "firewall.nft").touch()
    chosen, made = lab.choose(facts(name)), packets(name)
    scenarios = [
        ScenarioDraft(f"rule: {number}", next(iter(made.of((one.family, one.table, one.chain, one.handle)))).sends)
        for number, one in enumerate(facts(name).rules)
        if next(made.of((one.family, one.table, one.chain, one.handle)), None)
    ]
    output = tmp_path / "scenarios.yaml"
    output.write_text(file.head([tmp_path / "firewall.nft"], output, chosen) + file.body(scenarios, ["one: a\nb"]))
    loaded = load_all(output, recording=True)
    assert loaded.errors == ()
    assert all(isinstance(case, Case) for case in loaded.cases)
    assert len(loaded.cases) == len(scenarios)
