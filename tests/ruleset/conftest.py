from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.lab.lab import Host, Lab
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.ruleset.builders import CANARY


@pytest.fixture
def device() -> Iterator[Host]:
    with Lab.build(Network.of(LABS["host"])) as lab:
        yield lab.device


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project, beside a folder with a canary."""
    (tmp_path / "p").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/plain").write_text(f"{CANARY}\nTOPSECRET\n")
    (tmp_path / "p/file").symlink_to(tmp_path / "secret/plain")
    (tmp_path / "p/folder").symlink_to("../secret")
    (tmp_path / "p/inside.nft").write_text("add table ip inside\n")
    (tmp_path / "p/link.nft").symlink_to("inside.nft")
    return tmp_path / "p"
