"""The part of a large ruleset that matters for packets that come to one place: small enough to be simulated often.

What a packet meets in the rules that are left out, the kernel shows when the packet is sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from harness.model.observation import Place
from harness.mutate.edits import place_of
from harness.mutate.messages import Structure

NEAR: Final = 3
"""Rules before a place and after it that are kept."""
ENDS: Final = 8
"""Rules at the beginning and at the end of each base chain that are kept: they decide about many packets."""
PLACES: Final = 2
"""Places that are kept of a mutant that touches more: a set may be used by many rules."""
CALLERS: Final = 2
"""Rules that are kept of those that jump to the same chain."""
ELEMENTS: Final = 16
"""Elements at either end of a set that are kept."""

ChainKey = tuple[str, str, str]


class Slices:
    """Cuts parts out of a ruleset."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._chains: dict[ChainKey, list[Place]] = defaultdict(list)
        """The rules of each chain in their order."""
        self._callers: dict[ChainKey, list[Place]] = defaultdict(list)
        """The rules that jump to each chain."""
        self._sets: dict[Place, set[str]] = {}
        """The names of sets and maps that each rule refers to."""
        self._bases = [
            (one["chain"]["family"], one["chain"]["table"], one["chain"]["name"])
            for one in structure.objects
            if "hook" in one.get("chain", {})
        ]
        targets = {
            (what["family"], what["table"], what["name"]): {
                chain for word, chain in _named(what.get("elem")) if not word
            }
            for one in structure.objects
            for what in one.values()
            if "map" in one or "set" in one
        }
        for rule in (one["rule"] for one in structure.objects if "rule" in one):
            place = place_of(rule)
            self._chains[place[:3]].append(place)
            for word, name in _named(rule["expr"]):
                chains = {name} if not word else targets.get((*place[:2], name), set())
                for chain in chains:
                    self._callers[(*place[:2], chain)].append(place)
                if word:
                    self._sets.setdefault(place, set()).add(name)

    def around(self, touched: Sequence[Place]) -> Structure:
        """The ruleset with few rules besides those that are ``touched`` and those that lead to them."""
        kept = {
            place
            for chain in self._bases
            for rules in [self._chains[chain]]
            for place in (*rules[:ENDS], *rules[-ENDS:])
        }
        chains = [place[:3] for place in touched[:PLACES]]
        for place in touched[:PLACES]:
            rules = self._chains[place[:3]]
            number = rules.index(place) if place[3] else len(rules)
            kept.update(rules[max(number - NEAR, 0) : number + NEAR + 1])
        seen = set(chains)
        while chains:
            callers = self._callers[chains.pop()][:CALLERS]
            kept.update(callers)
            chains += (more := {place[:3] for place in callers} - seen)
            seen |= more
        names = {(*place[:2], name) for place in kept for name in self._sets.get(place, ())}
        structure = self._structure
        return msgspec.structs.replace(
            structure,
            objects=list(_cut(structure.objects, kept, names)),
            rules=tuple(rule for rule in structure.rules if rule.place in kept),
        )


def _cut(
    objects: Iterable[dict[str, Any]], kept: set[Place], names: set[tuple[str, str, str]]
) -> Iterator[dict[str, Any]]:
    for one in objects:
        ((kind, what),) = one.items()
        if kind == "rule" and place_of(what) not in kept:
            continue
        if kind in ("set", "map"):
            if (what["family"], what["table"], what["name"]) not in names:
                continue
            elements = what.get("elem", [])
            if len(elements) > 2 * ELEMENTS:
                yield {kind: what | {"elem": [*elements[:ELEMENTS], *elements[-ELEMENTS:]]}}
                continue
        yield one


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """The sets and maps that a part of nft's JSON names, each behind "@", and the chains it jumps to, behind ""."""
    if isinstance(value, str) and value.startswith("@"):
        yield "@", value[1:]
    elif isinstance(value, list):
        for one in value:
            yield from _named(one)
    elif isinstance(value, dict):
        for word, what in value.items():
            if word in ("jump", "goto") and isinstance(what, dict):
                yield "", str(what.get("target"))
            else:
                yield from _named(what)
