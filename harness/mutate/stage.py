"""A lab whose device has one mutant of its ruleset after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from harness.errors import HarnessError
from harness.model.observation import Observation, Place, Rule, Step
from harness.mutate.edits import (
    Deleted,
    Edit,
    Elements,
    Objects,
    Replaced,
    Swapped,
    chain_of,
    commands,
    order,
    rewritten,
    undone,
)
from harness.packets.frames import Frame
from harness.reading.rules import same_rule
from harness.ruleset import listing
from harness.ruleset.listing import Chain
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import Nft, NftError, handles_in_blocks
from harness.ruleset.process import LostError

if TYPE_CHECKING:
    from harness.batch.stage import Stage
    from harness.lab.lab import Host

Part = tuple[str, ...]
"""A part of a ruleset that is listed by itself: a chain, or () for all of it where rules stand in others."""


class RefusedError(Exception):
    """nft refuses a mutant."""


class Listed(NamedTuple):
    """How a mutant is listed."""

    texts: tuple[tuple[str, str], ...]
    """Rules with another text: as it was, and as it is."""
    is_same: bool
    """Whether all is listed as of the original."""


class MutatedStage:
    """``stage`` with a mutant in place of its ruleset; a :class:`~harness.batch.stage.Stage` as that is.

    One mutant is taken back in the transaction that makes the next one, as each transaction waits for all packets
    that are under way (nf_tables_commit in net/netfilter/nf_tables_api.c).
    """

    def __init__(
        self, stage: Stage, objects: Objects, fixed: Collection[Place] = (), names: Iterable[str] = ()
    ) -> None:
        """``objects`` are those of the original, ``fixed`` its rules that are not loaded from nft's JSON, ``names``
        what scenarios call rules."""
        self.inner = stage
        self._objects = objects
        self._fixed = frozenset(fixed)
        self._names = tuple(names)
        self._original = stage.ruleset
        self._is_in_blocks = any(listing.ANONYMOUS.match(rule.chain) for rule in self._original.rules)
        """Whether rules stand in others: nft lists no handles of these."""
        self._of_original: dict[Part, list[Rule]] = {}
        for rule in self._original.rules:
            self._of_original.setdefault(self._part_of(rule.place[:3]), []).append(rule)
        self._known: dict[Part, Sequence[tuple[Rule, Rule | listing.ListedRule]]] = self._as_loaded()
        """The rules of the original as they are now, as far as they are there."""
        self._edit: Edit | None = None
        self._undone: Edit | None = None
        """A mutant that is to be taken back."""
        self._handles: dict[Place, int] = {}
        """Of rules that were loaded again."""
        self.is_known = True
        """Whether nothing of the device has changed but by edits."""

    @property
    def ruleset(self) -> Ruleset:
        """The mutant."""
        return self.inner.ruleset

    @property
    def watches_functions(self) -> bool:
        """Of the lab."""
        return self.inner.watches_functions

    @property
    def device(self) -> Host:
        """The device under test."""
        return self.inner.device

    def rename(self, ruleset: Ruleset) -> None:
        """Of the lab."""
        self.inner.rename(ruleset)

    def inject_each(
        self, groups: Iterable[Sequence[Frame]], after: Callable[[Sequence[Step]], bool]
    ) -> list[tuple[Observation, ...] | None]:
        """Of the lab."""
        return self.inner.inject_each(groups, after)

    def restore(self) -> bool:
        """Take the mutant back, at once or with the next one; whether that could be done."""
        edit, self._edit = self._edit, None
        if not self.is_known or (edit is not None and rewritten(edit) in self._fixed):
            return self._load()
        self._undone = edit
        return True

    def settle(self) -> None:
        """Have the device the original now, with all of it known by its handles."""
        if self._undone is not None:
            edit, self._undone = self._undone, None
            try:
                self._run(undone(edit, self._objects, self._handles))
                self._follow(None, edit)
            except (NftError, LostError, HarnessError):
                self._load_again()

    def renew(self) -> bool:
        """Load the mutant anew, in two transactions; whether that could be done."""
        edit = self._edit
        if not self._load():
            return False
        if edit is not None:
            self._run(commands(edit, self._objects))
            self._edit = edit
            self._follow(edit, None)
        return True

    def become(self, edit: Edit) -> Listed:
        """Turn the original into a mutant.

        Raises :class:`RefusedError` where nft does not take it; then the original is loaded.
        """
        try:
            self._run([*self._taken_back(edit), *commands(edit, self._objects, self._handles)])
        except (NftError, LostError) as refused:
            # Whichever was refused: the mutant alone says it.
            if isinstance(refused, NftError):
                self.settle()  # what is refused changes nothing
            else:
                self._load_again()
            self._run_alone(edit)
        before, self._undone, self._edit = self._undone, None, edit
        return self._follow(edit, before)

    def _run_alone(self, edit: Edit) -> None:
        try:
            self._run(commands(edit, self._objects, self._handles))
        except (NftError, LostError) as refused:
            if isinstance(refused, LostError):
                self._load_again()
            raise RefusedError(str(refused).splitlines()[0]) from None

    def _taken_back(self, edit: Edit) -> list[dict[str, Any]]:
        """The commands that take the mutant before ``edit`` back, as far as that needs any."""
        before = self._undone
        if before is None or (place := rewritten(before)) is None:
            return [] if before is None else undone(before, self._objects, self._handles)
        if isinstance(before, Replaced) and isinstance(edit, Replaced | Deleted) and edit.rule == place:
            return []
        needed = {rewritten(edit)} | ({edit.rule} if isinstance(edit, Swapped) else set())
        if place in needed:  # it gets a new handle
            self.settle()
            return []
        return undone(before, self._objects, self._handles)

    @property
    def _nft(self) -> Nft:
        return self._original.nft

    def _run(self, several: list[dict[str, Any]]) -> None:
        self._nft.run(json.dumps({"nftables": several}), as_json=True)

    def _load_again(self) -> None:
        if not self._load():
            raise HarnessError("the ruleset could not be loaded again")

    def _load(self) -> bool:
        """Load the original from its files."""
        self._edit = self._undone = None
        self._handles = {}
        self._known = self._as_loaded()
        self.is_known = self.inner.renew()
        if self.is_known:
            self.inner.rename(self._original)
        return self.is_known

    def _follow(self, edit: Edit | None, before: Edit | None) -> Listed:
        """Know the rules by the handles that they have now, with ``edit`` in place of the mutant ``before``.

        Listed are the chains that the transaction has changed; it leaves the others as they were.
        """
        texts: list[tuple[str, str]] = []
        is_same = not isinstance(edit, Elements)  # which are not in the listing
        policies = {(one.family, one.table, one.name): one.policy for one in self._original.chains}
        own = self._part(edit)
        for part in dict.fromkeys(one for one in (self._part(before), own) if one is not None):
            chains, rules = self._list(part)
            self._known[part] = now = self._pairs(part, rules, edit if part == own else None)
            if part == own:
                found = {(one.family, one.table, one.name): one.policy for one in chains}
                originals = [one.text for one in self._of_original.get(part, ())]
                texts = [(one.text, other.text) for one, other in now if one.text != other.text]
                is_same = [other.text for _, other in now] == originals and found.items() <= policies.items()
                policies |= found
        pairs: list[tuple[Rule, Rule | listing.ListedRule]] = []
        for part in self._of_original:
            pairs += self._known[part]
        self._handles = {one.place: now.handle for one, now in pairs if one.handle != now.handle}
        chains = [
            msgspec.structs.replace(one, policy=policies[one.family, one.table, one.name])
            for one in self._original.chains
        ]
        named = [self._named(one, now) for one, now in pairs]
        original = self._original
        mutant = Ruleset(
            *(chains, named, original.sets, self._nft, original.tables),
            listed=original.listed,
            of_elements=original.of_elements,
        )
        self.inner.rename(mutant)
        return Listed(tuple(texts), is_same)

    def _as_loaded(self) -> dict[Part, Sequence[tuple[Rule, Rule | listing.ListedRule]]]:
        return {part: [(rule, rule) for rule in rules] for part, rules in self._of_original.items()}

    def _part(self, edit: Edit | None) -> Part | None:
        """The part that ``edit`` changes; None for elements."""
        chain = None if edit is None else chain_of(edit)
        return None if chain is None else self._part_of(chain)

    def _part_of(self, chain: tuple[str, str, str]) -> Part:
        return () if self._is_in_blocks else chain

    def _list(self, part: Part) -> tuple[Sequence[Chain], Sequence[listing.ListedRule]]:
        """The chains and rules of ``part`` as they are now."""
        if part:
            return listing.read(self._nft.run(f"list chain {' '.join(part)}"))
        chains, rules = listing.read(self._nft.ruleset(), self.device.namespace.call(handles_in_blocks))
        tables = {(one.family, one.table) for one in self._original.chains}
        return (
            [one for one in chains if (one.family, one.table) in tables],
            [one for one in rules if (one.family, one.table) in tables],
        )

    def _pairs(
        self, part: Part, rules: Sequence[listing.ListedRule], edit: Edit | None
    ) -> Sequence[tuple[Rule, listing.ListedRule]]:
        """The rules of ``part`` that the original has, without one that is deleted, each with how it is listed now."""
        before = self._of_original.get(part, ())
        before = order(edit, before) if edit is not None else before
        changed = None if edit is None else rewritten(edit)
        pairs = list(zip(before, rules, strict=False))
        if len(rules) != len(before) or any(one.text != now.text and one.place != changed for one, now in pairs):
            raise HarnessError("nft lists other rules than the mutant was to have")
        return pairs

    def _named(self, before: Rule, now: Rule | listing.ListedRule) -> Rule:
        """A rule of the mutant, which scenarios call as they call that of the original: they are about its place."""
        if (before.handle, before.text) == (now.handle, now.text):
            return before
        found = msgspec.structs.replace(before, handle=now.handle, text=now.text)
        if before.text != now.text and any(same_rule(one, before) and not same_rule(one, found) for one in self._names):
            return msgspec.structs.replace(found, written=before.text)
        return found
