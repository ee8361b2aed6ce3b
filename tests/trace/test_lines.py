"""What ``nft-harness trace`` says at its end."""

from __future__ import annotations

from harness.model.observation import Loss
from harness.trace.lines import Statistics


def test_statistics_without_a_packet_have_no_empty_headings() -> None:
    nothing = Statistics(
        events=0,
        packets=0,
        functions=0,
        armed=7,
        chains=0,
        rules=0,
        seconds=1.0,
        loss=Loss(),
        by_layer={},
        by_verdict={},
    )
    assert str(nothing).splitlines()[-1].startswith("Lost:")
