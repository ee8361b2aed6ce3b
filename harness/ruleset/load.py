"""The user's ruleset in the device under test, and the index of its rules."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from harness.errors import Position, ScenarioError
from harness.lab.lab import Host
from harness.observation import Rule
from harness.ruleset import listing, source
from harness.ruleset.listing import Chain, Listed
from harness.ruleset.nft import CONFIGURATION, Nft, RefusedError, as_shown, complaint, handles_in_blocks
from harness.ruleset.nft import nft_version as nft_version

_STRING: Final = re.compile(r'"[^"]*"')
_TRACE_OFF: Final = re.compile(r"\bmeta nftrace set 0\b")


class Ruleset:
    """A loaded ruleset: what the kernel has, as nft lists it, and where it was written."""

    def __init__(self, chains: Iterable[Chain], rules: Iterable[Rule]) -> None:
        self.chains = tuple(chains)
        self.rules = tuple(rules)
        """In the order of nft's listing: by table, by chain, in the order of evaluation."""
        self._rules = {(rule.family, rule.table, rule.chain, rule.handle): rule for rule in self.rules}
        self._chains = {(chain.family, chain.table, chain.name): chain for chain in self.chains}

    @classmethod
    def load(cls, host: Host, path: Path) -> Ruleset:
        """Load ``path`` in the namespace of ``host``, as ``nft -f`` would when run in the file's folder.

        Files included by a relative name are looked for in ``/etc``, then in that folder.
        Positions call the file ``path``, and included files below its folder accordingly.

        Raises :class:`~harness.errors.ScenarioError` at the place that nft complains of.
        """
        if not path.is_file():
            raise ScenarioError("there is no such ruleset", Position(str(path)))
        full = path.absolute()
        folder = full.parent
        try:
            chains, listed = listing.read(*host.namespace.call(_load, full, folder))
        except RefusedError as refused:
            raise complaint(refused, full, path) from None
        try:
            written = source.read(full, (CONFIGURATION, folder), lambda file: as_shown(file, full, path))
        except source.UnclearError:
            written = source.Source({}, {})
        rules = list(placed(listed, written.rules))
        for rule in rules:
            if _TRACE_OFF.search(_STRING.sub("", rule.text)):
                raise ScenarioError(
                    f"this rule ends the trace of a packet, so the rules after it could not be seen: {rule.text}",
                    rule.position or Position(str(path)),
                    remedy="leave meta nftrace to the harness",
                )
        places = (written.policies.get((chain.family, chain.table, chain.name)) for chain in chains)
        return cls(
            (msgspec.structs.replace(chain, position=place) for chain, place in zip(chains, places, strict=True)), rules
        )

    def rule(self, family: str, table: str, chain: str, handle: int) -> Rule | None:
        """The rule with ``handle``; None when there is none."""
        return self._rules.get((family, table, chain, handle))

    def chain(self, family: str, table: str, name: str) -> Chain | None:
        """The chain by its names; None when there is none."""
        return self._chains.get((family, table, name))


def placed(listed: Iterable[Listed], written: Mapping[source.ChainKey, list[source.SourceRule]]) -> Iterable[Rule]:
    """The rules ``listed`` with the places where they are ``written``.

    A table's handles grow in the order in which the kernel gets its rules (nf_tables_alloc_handle
    in net/netfilter/nf_tables_api.c), and nft sends the rules of a chain in the order in which
    they are written. A chain that differs in number of rules or in a comment gets no places.
    """
    listed = tuple(listed)
    places: dict[tuple[str, str, int], source.SourceRule] = {}
    chains: dict[source.ChainKey, list[Listed]] = {}
    for rule in listed:
        chains.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
    written = dict(written)
    for key, rules in chains.items():  # a block's chain comes after that of the rule that holds it
        rules.sort(key=lambda rule: rule.handle)
        found = written.get(key, [])
        if [one.comment for one in found] == [rule.comment for rule in rules]:
            for one, rule in zip(found, rules, strict=True):
                places[rule.family, rule.table, rule.handle] = one
                written[rule.family, rule.table, rule.block] = list(one.block)
    for rule in listed:
        place = places.get((rule.family, rule.table, rule.handle))
        yield Rule(
            family=rule.family,
            table=rule.table,
            chain=rule.chain,
            handle=rule.handle,
            text=rule.text,
            comment=rule.comment,
            written=place.text if place else "",
            position=place.position if place else None,
        )


def _load(path: Path, folder: Path) -> tuple[str, list[listing.Handle]]:
    os.chdir(folder)  # this thread's own: for files included as ./name
    nft = Nft()
    nft.load(path, folder)
    return nft.ruleset(), handles_in_blocks()
