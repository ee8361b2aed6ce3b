"""How many packets a rule takes."""

from __future__ import annotations

import pytest

from harness.generate.simulate import MANY, excess


@pytest.mark.parametrize(
    ("limit", "packets"),
    [
        ({"rate": 3, "burst": 5, "per": "minute", "inv": True}, 6),
        ({"rate": 10, "burst": 1, "per": "hour", "inv": True}, 2),
        # It refills while an emulated machine sends.
        ({"rate": 2, "burst": 5, "per": "second", "inv": True}, MANY),
        ({"rate": 60, "burst": 5, "per": "minute", "inv": True}, MANY),
        ({"rate": 10, "burst": 0, "per": "hour", "inv": True, "rate_unit": "kbytes"}, MANY),
        ({"rate": 2, "burst": 5, "per": "second"}, 0),
    ],
)
def test_packets_that_exceed_a_limit(limit: dict[str, object], packets: int) -> None:
    assert excess("limit", limit) == packets
    assert excess("set", {"op": "add", "stmt": [{"limit": limit}]}) == packets
