"""What several expressions ask of one packet."""

from __future__ import annotations

from harness.generate.constraints import merged


def test_a_network_and_an_address_in_it_are_one_constraint() -> None:
    network = {"daddr": "10.0.0.0/8", "family": 4}
    assert merged([network, {"daddr": "10.1.2.3"}]) == merged([{"daddr": "10.1.2.3"}, network])
    assert merged([network, {"daddr": "10.1.2.3"}]) == {"daddr": "10.1.2.3", "family": 4}
    assert merged([network, {"daddr": "10.1.0.0/16"}]) == {"daddr": "10.1.0.0/16", "family": 4}
    assert merged([network, {"daddr": "192.0.2.1"}]) is None
