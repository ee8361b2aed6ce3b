"""Which rules nft does not take from its own JSON, found with few runs of nft."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.model.observation import Rule
from harness.mutate.edits import Objects
from harness.mutate.fixed import unwritable
from harness.ruleset.nft import NftError
from tests.mutate.builders import WHERE, ruleset


class Nft:
    """Refuses to replace the rules with the handles ``refused``, and lists those with ``others`` otherwise then."""

    def __init__(self, objects: Objects, refused: set[int], others: set[int]) -> None:
        self.handles = [one["rule"]["handle"] for one in objects if "rule" in one]
        self._refused = refused
        self._others = others
        self.runs = 0

    def run(self, text: str, *, as_json: bool) -> str:
        assert as_json
        self.runs += 1
        if self._refused & {one["replace"]["rule"]["handle"] for one in json.loads(text)["nftables"]}:
            raise NftError("json: unknown statement")
        return ""

    def ruleset(self) -> str:
        rules = "\n".join(
            f"\t\ttcp dport {one} {'counter ' * (one in self._others)}accept # handle {one}" for one in self.handles
        )
        return f"table inet fw {{ # handle 1\n\tchain input {{ # handle 1\n{rules}\n\t}}\n}}\n"


def found(objects: Objects, refused: set[int], others: set[int]) -> tuple[list[int], int]:
    """The handles of the rules that cannot be written, and how often nft was run."""
    nft = Nft(objects, refused, others)
    rules = [
        Rule(**WHERE, chain="input", handle=handle, text=f"tcp dport {handle} accept", written="")
        for handle in nft.handles
    ]
    loaded: Any = type("Loaded", (), {"nft": nft, "rules": rules})
    return sorted(place[3] for place in unwritable(loaded, objects)), nft.runs


@pytest.mark.parametrize(
    ("refused", "others", "runs_at_most"),
    [(set(), set(), 1), ({17}, set(), 20), ({10, 508}, {11, 300}, 40), (set(range(10, 34)), set(), 80)],
)
def test_rules_that_nft_refuses_are_found_by_halves(refused: set[int], others: set[int], runs_at_most: int) -> None:
    objects = ruleset(*[[{"accept": None}]] * 500)
    handles, runs = found(objects, refused, others)
    assert set(handles) == refused | others
    assert runs <= runs_at_most


def test_of_very_many_whole_groups_count_as_refused() -> None:
    """Those that nft takes are not lost but where they stand among others."""
    objects = ruleset(*[[{"accept": None}]] * 4_000)
    refused = set(range(10, 2_010, 2))
    handles, runs = found(objects, refused, set())
    assert refused <= set(handles)
    assert max(handles) < 2_010
    assert runs < 450


def test_blocks_and_matches_of_iptables_are_not_tried() -> None:
    objects = ruleset([{"accept": None}], [{"xt": {"type": "match", "name": "u32"}}, {"accept": None}], ["jump { }"])
    handles, runs = found(objects, {11, 12}, set())
    assert (handles, runs) == ([11, 12], 1)
