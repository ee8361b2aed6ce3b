"""A lab whose client and server run programs that call each other, through a ruleset that each module chooses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.lab.lab import Lab
from harness.lab.sockets import Programs
from harness.ruleset.load import Ruleset
from harness.scenario.flow import speaking
from harness.scenario.models.sockets import Listen
from harness.topology.builtin import LABS
from harness.topology.network import Network


@pytest.fixture
def network() -> Network:
    return speaking(["client", "server"], Network.of(LABS["router"]))


@pytest.fixture
def lab(network: Network, ruleset: str, tmp_path: Path) -> Iterator[Lab]:
    path = tmp_path / "t.nft"
    path.write_text(ruleset)
    with Lab.build(network) as lab:
        Ruleset.load(lab.device, path)
        yield lab


@pytest.fixture
def programs(lab: Lab) -> Iterator[Programs]:
    with Programs(lab) as programs:
        programs.listen(Listen(on="server", tcp=80, udp=53))
        yield programs
