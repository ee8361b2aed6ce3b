"""What changed: the effects of two rulesets on the same packets, compared and grouped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import msgspec

from harness.batch.messages import Effect, Effects, Loaded
from harness.errors import Position
from harness.model.observation import Place, Rule
from harness.model.result import Policy

SPARE: Final = 2
"""Witnesses that a change keeps beside the simplest."""


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """What decided about a packet on one side."""

    chain: str
    text: str
    """The rule, or ``policy drop``; "" where no base chain saw the packet."""
    position: Position | None = None

    def __str__(self) -> str:
        place = f"{self.position.file}:{self.position.line}" if self.position else self.chain
        return f"{place}: {self.text}" if self.text else "no base chain"


class Book:
    """The rules and policies of one side, by their keys."""

    def __init__(self, loaded: Loaded, unpacked: str = "") -> None:
        """``unpacked`` is a folder whose files are called as they would be without it."""
        self.kernel = loaded.kernel
        self.whole = loaded.whole
        self._unpacked = unpacked
        self._rules: Mapping[Place, Rule] = {rule.place: rule for rule in loaded.rules}
        self._policies: Mapping[Place, Policy] = {policy.place: policy for policy in loaded.policies}
        self.met: set[Place] = set()

    @property
    def places(self) -> list[Place]:
        """Every rule and policy."""
        return [*self._rules, *self._policies]

    def add(self, other: Book) -> None:
        """Count what was met in ``other`` as well, if that has the same rules by the same handles."""
        texts = ({place: rule.text for place, rule in book._rules.items()} for book in (self, other))
        if next(texts) == next(texts):
            self.met |= other.met

    def decider(self, effect: Effect) -> Decider:
        """What decided: of several that accepted, the last rule, else the last policy."""
        ruled = [place for place in effect.decided if place[3]] or list(effect.decided)
        return self.named(ruled[-1]) if ruled else Decider(chain="", text="")

    def named(self, place: Place) -> Decider:
        """A rule or policy as people know it."""
        chain = " ".join(place[:3])
        if (rule := self._rules.get(place)) is not None:
            return Decider(chain=chain, text=rule.written or rule.text, position=self._place(rule.position))
        if (policy := self._policies.get(place)) is not None:
            return Decider(chain=chain, text=f"policy {policy.verdict}", position=self._place(policy.position))
        return Decider(chain=chain, text="a rule that is not listed")

    def _place(self, position: Position | None) -> Position | None:
        if position is None or not self._unpacked:
            return position
        return position._replace(file=position.file.removeprefix(self._unpacked))


class Witness(NamedTuple):
    """A packet that the sides treat differently."""

    number: int
    """Of the packet among all."""
    sends: tuple[dict[str, Any], ...]
    summary: str
    old: Effect
    new: Effect


class Change(msgspec.Struct, kw_only=True):
    """Packets in which the same has changed by the same rules."""

    kind: str
    """``drop → accept``; of packets with the same verdict what differs besides."""
    old: Decider
    new: Decider
    witness: Witness
    """The simplest."""
    spare: list[Witness] = []
    """Some more of them, the next simplest first."""
    packets: int = 1
    accepted: bool = False
    unconfirmed: str = ""
    """Of a change that was sifted, why its packets could not be measured again; "" for one that was."""

    @property
    def marks(self) -> str:
        """What reports say behind its kind."""
        return f"{' (accepted)' if self.accepted else ''}{' (not confirmed)' if self.unconfirmed else ''}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What an approved change is known by; lines may move."""
        return self.kind, f"{self.old.chain}: {self.old.text}", f"{self.new.chain}: {self.new.text}"


HOOKS: Final = "other hooks decide"
"""A difference that is none by itself: that of two packets which functions may show to differ."""


def difference(old: Effect, new: Effect, *, rules: tuple[Decider, Decider] | None = None, hooks: bool = False) -> str:
    """What differs between two effects in a few words; "" for nothing.

    With ``rules``, what decided on either side counts as well, with ``hooks`` where it was decided.
    """
    if old.verdict != new.verdict:
        return f"{old.verdict} → {new.verdict}"
    for name, before, after in (
        ("arrives differently", old.arrived, new.arrived),
        ("is given up differently", (old.ended,), (new.ended,)),
        ("is answered differently", old.answers, new.answers),
        ("another mark", (str(old.mark),), (str(new.mark),)),
        ("logs differently", old.logs, new.logs),
        ("other elements", tuple(_held(old.elements)), tuple(_held(new.elements))),
        ("another entry of conntrack", old.connections, new.connections),
    ):
        if before != after:
            return f"{old.verdict}, {name}"
    if rules and (rules[0].chain, rules[0].text) != (rules[1].chain, rules[1].text):
        return f"{old.verdict}, by another rule"
    if hooks and old.hooks != new.hooks:
        return HOOKS
    return ""


def details(old: Effect, new: Effect) -> Iterator[tuple[str, str, str]]:
    """What differs, each with what it was and what it is."""
    rows = (
        ("verdict", old.verdict, new.verdict),
        ("arrived", "; ".join(old.arrived), "; ".join(new.arrived)),
        ("given up", old.ended, new.ended),
        ("answers", "; ".join(old.answers), "; ".join(new.answers)),
        ("mark", str(old.mark), str(new.mark)),
        ("log", "; ".join(old.logs), "; ".join(new.logs)),
        ("sets", "; ".join(_held(old.elements)), "; ".join(_held(new.elements))),
        ("connection", "; ".join(old.connections), "; ".join(new.connections)),
    )
    for name, before, after in rows:
        if before != after:
            yield name, before or "nothing", after or "nothing"


def _held(elements: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for name, held in elements.items():
        yield f"{name}: {', '.join(held) or 'empty'}"


def compared(
    about: tuple[int, tuple[dict[str, Any], ...], str],
    old: Effects,
    new: Effects,
    books: tuple[Book, Book],
    *,
    rules: bool,
    hooks: bool = False,
) -> Change | None:
    """The change that a packet shows, if it does, and neither chance nor time decides about it.

    ``about`` are its number, what is sent and a summary; ``rules`` and ``hooks`` as of :func:`difference`.
    """
    for before, after in sure(old.seen, new.seen):
        deciders = books[0].decider(before), books[1].decider(after)
        if kind := difference(before, after, rules=deciders if rules else None, hooks=hooks):
            number, sends, summary = about
            seen = Witness(number, sends, summary, before, after)
            return Change(kind=kind, old=deciders[0], new=deciders[1], witness=seen)
    return None


def sure(old: Sequence[Effect], new: Sequence[Effect]) -> Iterator[tuple[Effect, Effect]]:
    """The effects on the same packets, up to the first about which chance or time may decide."""
    for at, both in enumerate(zip(old, new, strict=False), 1):
        if _undecided(old[:at], new[:at], all):
            return
        yield both


def undecided(old: Sequence[Effect], new: Sequence[Effect], *, either: bool = False) -> str:
    """What decides about one of the packets besides the rulesets, in a sentence; "" where nothing does.

    With ``either`` it is enough that time may have decided on one side.
    """
    lengths = range(1, min(len(old), len(new)) + 1)
    return next(filter(None, (_undecided(old[:at], new[:at], any if either else all) for at in lengths)), "")


def _undecided(old: Sequence[Effect], new: Sequence[Effect], several: Callable[[Iterable[bool]], bool]) -> str:
    """As :func:`undecided` of the last of the packets.

    Of two effects that differ it is enough that one is certain, and that it would be so if the packets had taken as
    long as those of the other side.
    """
    for seen in (old, new):
        if seen[-1].by_chance:
            return seen[-1].by_chance
        if seen[-1].counts_connections and any(map(_was_reset, seen[:-1])):
            # Whether the kernel has looked in the same tick of its clock decides whether a connection that was reset
            # counts (last_gc in __nf_conncount_add() of net/netfilter/nf_conncount.c).
            return "the tick of the kernel's clock decides whether ct count counts a connection that was reset"
    age = max(old[-1].age_s, new[-1].age_s)
    limits = [inf if seen[-1].certain_s is None else seen[-1].certain_s for seen in (old, new)]
    if several(age >= limit for limit in limits):
        return (
            f"time decides about the packet: a limit or an element of a set may have changed after {min(limits):.2g} s"
        )
    return ""


def _was_reset(one: Effect) -> bool:
    """Whether a TCP connection was reset."""
    return any(_RESET.search(frame) for frame in (*one.answers, *one.arrived))


_RESET: Final = re.compile(r"\btcp [A-Z]*R")


def grouped(changes: Sequence[Change], cost: Callable[[Witness], tuple[int, ...]]) -> list[Change]:
    """One change for those in which the same has changed by the same rules, with the cheapest witness."""
    found: dict[tuple[str, str, str], list[Change]] = {}
    for one in changes:
        found.setdefault(one.key, []).append(one)
    groups = []
    for several in found.values():
        best, *others = sorted(several, key=lambda one: cost(one.witness))
        spare = [one.witness for one in others[:SPARE]]
        groups.append(msgspec.structs.replace(best, packets=sum(one.packets for one in several), spare=spare))
    return groups
