"""Rules that cannot be written as nft's JSON has them: what nft lists so it does not always load so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from harness.model.observation import Place
from harness.mutate.edits import Objects, place_of
from harness.ruleset import listing
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import NftError
from harness.ruleset.process import LostError


def unwritable(ruleset: Ruleset, objects: Objects) -> Iterator[Place]:
    """The rules of ``ruleset`` that nft refuses, or lists otherwise, when they are replaced by themselves.

    The loaded ruleset has other handles after this.
    """
    rules = [one["rule"] for one in objects if "rule" in one]
    texts = {one.place: one.text for one in ruleset.rules}
    blocks = [rule for rule in rules if any(isinstance(part, str) for part in rule["expr"])]
    others = [rule for rule in rules if rule not in blocks]
    yield from map(place_of, blocks)
    found = _replaced(ruleset, others)
    if found is None:
        for rule in others:
            one = _replaced(ruleset, [rule])
            if one is None or one.get(place_of(rule)[:3]) is None:
                yield place_of(rule)
        found = _texts(ruleset)
    for chain, several in found.items():
        before = [place for place in texts if place[:3] == chain]
        for place, text in zip(before, several, strict=False):
            if texts[place] != text and place not in map(place_of, blocks):
                yield place


def _replaced(ruleset: Ruleset, rules: Sequence[dict[str, object]]) -> dict[tuple[str, str, str], list[str]] | None:
    """Each chain's rules after ``rules`` were replaced by themselves; None where nft refuses that."""
    text = json.dumps({"nftables": [{"replace": {"rule": rule}} for rule in rules]})
    try:
        ruleset.nft.run(text, as_json=True)
    except (NftError, LostError):
        return None
    return _texts(ruleset)


def _texts(ruleset: Ruleset) -> dict[tuple[str, str, str], list[str]]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for one in listing.read(ruleset.nft.ruleset())[1]:
        found.setdefault(one.place[:3], []).append(one.text)
    return found
