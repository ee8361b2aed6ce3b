"""Rules that cannot be written as nft's JSON has them: what nft lists so it does not always load so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from harness.model.observation import Place
from harness.mutate.edits import Objects, place_of
from harness.ruleset import listing
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import NftError
from harness.ruleset.process import LostError

RUNS: Final = 400
"""Times that nft is run to find the rules that it refuses; of a group that it refuses after that, all count as such."""


def unwritable(ruleset: Ruleset, objects: Objects) -> Iterator[Place]:
    """The rules of ``ruleset`` that nft refuses, or lists otherwise, when they are replaced by themselves.

    The loaded ruleset has other handles after this.
    """
    rules = [one["rule"] for one in objects if "rule" in one]
    texts = {one.place: one.text for one in ruleset.rules}
    blocks = {place_of(rule) for rule in rules if any(isinstance(part, str) or "xt" in part for part in rule["expr"])}
    yield from blocks
    yield from _refused(ruleset, [rule for rule in rules if place_of(rule) not in blocks])
    listed: dict[tuple[str, str, str], list[str]] = {}
    for one in listing.read(ruleset.nft.ruleset())[1]:
        listed.setdefault(one.place[:3], []).append(one.text)
    for chain, several in listed.items():
        before = [place for place in texts if place[:3] == chain]
        for place, text in zip(before, several, strict=False):
            if texts[place] != text and place not in blocks:
                yield place


def _refused(ruleset: Ruleset, rules: Sequence[dict[str, object]]) -> Iterator[Place]:
    """Those of ``rules`` that nft refuses in place of themselves; the others are replaced."""
    left = [rules] if rules else []
    runs = 0
    while left:
        some = left.pop()
        runs += 1
        if _is_replaced(ruleset, some):
            continue
        if len(some) == 1 or runs > RUNS:
            yield from map(place_of, some)
        else:
            half = len(some) // 2
            left += [some[half:], some[:half]]


def _is_replaced(ruleset: Ruleset, rules: Sequence[dict[str, object]]) -> bool:
    """Whether nft replaces ``rules`` by themselves."""
    text = json.dumps({"nftables": [{"replace": {"rule": rule}} for rule in rules]})
    try:
        ruleset.nft.run(text, as_json=True)
    except (NftError, LostError):
        return False
    return True
