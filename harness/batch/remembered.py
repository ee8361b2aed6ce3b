"""What a ruleset remembers of packets, and whether a packet may have changed that."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from harness.batch.reached import Statements
from harness.batch.timing import timed
from harness.errors import Unsupported
from harness.model.observation import Connection, Place, Rule, Step
from harness.reading.rules import bare
from harness.ruleset import conntrack, state

if TYPE_CHECKING:
    from harness.batch.stage import Stage
    from harness.ruleset.load import Ruleset

REMEMBERS: Final = re.compile(
    r"\b(?:limit (?:rate|name)|quota|numgen inc|ct count|last|(?:add|update|delete) @|flow add)"
)
"""Statements by which a ruleset remembers packets; connections are forgotten in any case."""
_OF_XT: Final = re.compile(r"(?<!\S)(?:-m|--match) (?:\w*limit|recent|quota2?|statistic|conn\w+|rateest)\b|-j SET\b")
"""The same in rules of iptables, of which nft lists nothing."""
_CHANGED: Final = re.compile(r"\b(?:add|update|delete) @([\w./-]+) \{")  # not a flowtable, which has no elements
_OF_CONNECTION: Final = re.compile(
    r"\b(?:ct (?:mark|helper|label|zone|timeout|expectation)|notrack|[sd]nat|masquerade|redirect)\b"
)

UNKNOWN_S: Final = 1e9
"""An age that is not known: older than anything lasts."""
_SHOWN: Final = re.compile(r"flow add @\S+\s*")
"""A statement at the end of its rule that remembers nothing where it does not match: the trace shows the rule if it did
(nft_flow_offload_eval in net/netfilter/nft_flow_offload.c). Others count a packet and then let it by."""


class Remembered:
    """The rules of ``ruleset`` by which it remembers packets."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._statements = Statements(ruleset.rules, _remembering)
        self._sets: dict[Place, tuple[str, ...]] = {}
        self.of_connections = False
        """Whether a rule may change of a connection what no packet shows."""
        for rule in ruleset.rules:
            text = bare(rule.text)
            if names := _CHANGED.findall(text):
                self._sets[rule.place] = tuple(f"{rule.family} {rule.table} {name}" for name in names)
            self.of_connections = self.of_connections or bool(_OF_CONNECTION.search(text))
        chains = {chain for _, _, chain in self._statements.chains} | {chain for _, _, chain, _ in self._sets}
        self._names = [f"{chain}\0".encode() for chain in sorted(chains)]
        """Those of chains that remember packets, as they end an attribute of netlink."""

    def may_concern(self, messages: Iterable[bytes]) -> bool:
        """Whether these messages of nf_tables' trace, as the kernel gave them, may name a chain that remembers packets.

        A packet that comes to a chain has a message with its name, at the latest at its end.
        """
        return any(name in message for message in messages for name in self._names)

    def is_changed(self, steps: Iterable[Step]) -> bool:
        """Whether a packet with these ``steps`` may have come to a statement that remembers it."""
        steps = list(steps)
        came = {(step.family, step.table, step.chain, step.rule.handle) for step in steps if step.rule}
        return any(shown is None or shown in came for shown in self._statements.reached(steps))

    def sets(self, steps: Iterable[Step]) -> Iterator[str]:
        """The sets and maps that the rules of ``steps`` change: family, table and name."""
        for step in steps:
            if step.rule is not None:
                yield from self._sets.get((step.family, step.table, step.chain, step.rule.handle), ())


def _remembering(rule: Rule) -> Iterator[tuple[str, Place | None]]:
    """The statement of ``rule`` that remembers, with its place where the trace shows whether it has done so."""
    text = bare(rule.text)
    if found := REMEMBERS.search(text):
        yield text[: found.start()], rule.place if _SHOWN.fullmatch(text, found.start()) else None
    elif _OF_XT.search(rule.written):
        yield "", None


class State:
    """The state of the device of ``stage`` that packets change, and how it is taken back."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.remembered = Remembered(stage.ruleset)
        self.timed = timed(stage.ruleset)
        """What of the ruleset depends on time."""
        self._tracked = conntrack.Tracked(stage.device)
        self._fresh: float | None = time.monotonic()
        """When the ruleset was as just loaded; None where that is not known."""
        if self.timed.loaded is not None:
            self._renew()  # time has passed since it was loaded

    def follow(self) -> None:
        """Know the statements of the stage's ruleset, which is another one."""
        self.remembered = Remembered(self._stage.ruleset)

    @property
    def age(self) -> float:
        """Seconds since the ruleset was as just loaded, at most; :data:`UNKNOWN_S` where that is not known."""
        return UNKNOWN_S if self._fresh is None else time.monotonic() - self._fresh

    def begin(self) -> None:
        """A packet is sent now, the first since :meth:`forget`."""
        if self.timed.loaded is None:
            self._fresh = time.monotonic()

    def left_by(self, steps: Sequence[Step]) -> tuple[dict[str, tuple[str, ...]], tuple[Connection, ...]]:
        """What the sets hold that the rules of ``steps`` change, and, where rules may change of connections what no
        packet shows, what is tracked; nothing where this kernel does not list it."""
        elements: dict[str, tuple[str, ...]] = {}
        for name in sorted(set(self.remembered.sets(steps))):
            with suppress(state.MissingError):
                held = state.kept(self._stage.ruleset.nft, [name])
                elements |= {key: tuple(sorted(found)) for key, found in held.items()}
        connections: tuple[Connection, ...] = ()
        if self.remembered.of_connections:
            with suppress(Unsupported):
                connections = self._tracked.list()
        return elements, connections

    def forget(self, steps: Iterable[Step]) -> bool:
        """Have the device forget packets with these ``steps``; whether it is again as just loaded."""
        try:
            self._tracked.flush()
        except Unsupported:
            return False
        if self.remembered.is_changed(steps) or (self.timed.loaded or inf) < 2 * self.age:
            return self._renew()
        self.begin()
        return True

    def _renew(self) -> bool:
        """Load the ruleset anew; whether that could be done."""
        before = time.monotonic()
        is_renewed = self._stage.renew()
        self._fresh = before if is_renewed else None
        return is_renewed
