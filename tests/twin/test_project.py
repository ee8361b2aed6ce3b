"""From the output of the script to a lab and rulesets."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.scenario.load import load_lab
from harness.twin import project
from tests.twin.builders import addresses, link, twin


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = twin(
        links=[link("eth0"), link("über%0")], addresses=addresses(eth0=["192.0.2.1/24"]), nft="table ip t {\n}\n"
    )
    paths = project.write(made, tmp_path / "fw1")
    assert [path.relative_to(tmp_path / "fw1").as_posix() for path in paths] == [
        "pytest.ini",
        "labs/fw1.yaml",
        "rulesets/fw1.nft",
    ]
    assert "über%0" in load_lab(tmp_path / "fw1/labs/fw1.yaml").hosts["device"].interfaces
    with pytest.raises(HarnessError, match="already exists"):
        project.write(made, tmp_path / "fw1")
