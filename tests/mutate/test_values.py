"""Values of nft's JSON, as nft writes them."""

from __future__ import annotations

from harness.mutate import values


def test_elements_are_shown_as_nft_writes_them() -> None:
    assert values.several([80, {"range": [1, 3]}]) == "80, 1-3"
    assert values.several([{"elem": {"val": 22, "timeout": 60}}]) == "22"
    assert values.several([[81, {"concat": ["10.0.2.2", 8080]}]]) == "81 : 10.0.2.2 . 8080"
    assert values.several([[22, {"accept": None}], [23, {"jump": {"target": "web"}}]]) == "22 : accept, 23 : jump web"
