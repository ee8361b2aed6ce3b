from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.reference import EXAMPLE


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The file that the reference begins with."""
    (tmp_path / "rulesets").mkdir()
    (tmp_path / "rulesets/edge.nft").touch()
    path = tmp_path / "edge.yaml"
    path.write_text(EXAMPLE)
    return path
