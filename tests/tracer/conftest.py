"""A network whose hosts answer for themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.lab.lab import Lab
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.topology.spec import HostSpec, LabSpec


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The router, and hosts at its sides that have addresses."""
    hosts = {
        **LABS["router"].hosts,
        "client": HostSpec(interfaces={"eth0": ["203.0.113.5/24"]}, gateway="device", forwarding=True),
        "server": HostSpec(interfaces={"eth0": ["10.0.2.2/24"]}, gateway="device", forwarding=True),
    }
    with Lab.build(Network.of(LabSpec(hosts=hosts, links=LABS["router"].links, device="device"))) as built:
        yield built
