"""Machines of all kinds and their twins: packets fare alike on both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ALL = sorted(path.stem for path in Path(__file__).with_name("machines").glob("*.sh"))
IN_LONG_FORM = "NFT_SOAK_MINUTES" in os.environ
MACHINES = ALL if IN_LONG_FORM else ["docker", "trunk"]
"""Each takes half a minute in an emulated guest."""
PACKETS = 30 if IN_LONG_FORM else 10


@pytest.mark.kernel
@pytest.mark.parametrize("name", MACHINES)
def test_packets_fare_alike(name: str, built: Callable, compare: Callable, tmp_path: Path) -> None:
    found = compare(built(name), tmp_path / "twin", PACKETS)
    differing = [one for one in found if one.machine != one.twin]
    print(f"{len(found)} packets")
    assert not differing, (
        "\n".join(f"{one.packet}\n  machine {one.machine}\n  twin    {one.twin}" for one in differing[:8])
        + f"\n{len(differing)} of {len(found)}"
    )
    assert len(found) >= PACKETS // 2
