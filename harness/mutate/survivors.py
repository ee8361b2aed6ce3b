"""Packets that distinguish a mutant from the original: candidates by simulation, and what the kernel says of them."""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgspec

from harness.batch.messages import Effects, Loaded
from harness.batch.session import BatchSession
from harness.compare.changes import details, difference, sure
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts, with_lists
from harness.generate.pool import MANY, Pool, PooledPacket, cost, went
from harness.generate.simulate import SimulatedRuleset
from harness.model.observation import Place
from harness.model.problem import Problem
from harness.mutate.edits import Objects, applied
from harness.mutate.messages import AskedApart, Structure, Trial
from harness.mutate.operators import Mutant
from harness.mutate.results import Witness
from harness.mutate.slices import Slices
from harness.packets.frames import Frame, build
from harness.packets.spec import Send
from harness.scenario.case import Case
from harness.topology.network import Network

POOLED: Final = 600
"""Packets that are made for a ruleset."""
SIMULATED: Final = 1_500
"""Packets of each kind that are simulated for that."""
EVALUATED_AT_MOST: Final = 4_000_000
"""Rules that packets are compared with in simulations of all mutants of a ruleset: some 80 s."""
FIRST: Final = 3
"""Packets that are tried on a mutant first: those on which a simulation sees a difference."""
MORE: Final = 20
"""Packets that are tried on it where those show none."""

END: Final = sys.maxsize
"""Number of the end of a chain among its rules."""


class Shown(NamedTuple):
    """What a mutant, or the original, did with the packets of one trial, in order."""

    effects: list[Effects]
    is_whole: bool
    """Whether functions were watched."""


class Candidate(NamedTuple):
    """A packet with those before it, ready to be sent."""

    sends: tuple[dict[str, Any], ...]
    frames: tuple[tuple[Frame, ...], ...]

    @property
    def summary(self) -> str:
        """The last packet in a line."""
        return self.frames[-1][-1].summary


class Size(NamedTuple):
    """How many packets are made of a ruleset."""

    pooled: int
    simulated: int
    """Of each kind, see :class:`~harness.generate.pool.Pool`."""


OF_PART: Final = Size(150, 100)


class Candidates:
    """Packets for the mutants of one ruleset in one lab."""

    def __init__(self, structure: Structure, network: Network, seed: int, size: Size | None = None) -> None:
        self._structure = structure
        self._network = network
        self._original = self._device(structure.objects)
        pooled, simulated = size or Size(POOLED, SIMULATED)
        self._packets = sorted(Pool([self._original], seed, simulated).packets(pooled), key=cost)
        self._came = [self._came_to(packet) for packet in self._packets]
        self._numbers = numbered(structure)
        self._made: dict[str, Candidate | None] = {}
        self._evaluated = 0

    def of(self, mutant: Mutant) -> Iterator[Candidate]:
        """Packets on which a simulation sees a difference, the simplest first; then others that may show one."""
        is_simulated = self._evaluated < EVALUATED_AT_MOST
        device = self._device(applied(mutant.edit, self._structure.objects)) if is_simulated else self._original
        counted = device.ruleset.evaluated
        chains = {place[:3] for place in mutant.touched}
        ways: list[PooledPacket] = []
        near: list[PooledPacket] = []
        rest: list[PooledPacket] = []
        for packet, came in zip(self._packets, self._came, strict=True):
            before = packet.way[0]
            comes = any(
                came.get((*place[:3], 0), 0) > self._numbers.get(place, 0) if place[3] else place in before[0]
                for place in mutant.touched
            )
            went = self._way(device, packet) if comes and is_simulated else before
            self._evaluated += device.ruleset.evaluated - counted
            counted = device.ruleset.evaluated
            if went is None or went[1] != before[1]:
                yield from self._ready(packet)
            elif went[0] != before[0]:
                ways.append(packet)
            elif any(key[:3] in chains for key in before[0]):
                near.append(packet)
            else:
                rest.append(packet)
        for packet in (*ways, *near[:: max(len(near) // MORE, 1)], *rest[:: max(len(rest) // MORE, 1)]):
            yield from self._ready(packet)

    def _device(self, objects: Objects) -> SimulatedDevice:
        listed = [{"rule": with_lists(one["rule"])} if "rule" in one else one for one in objects]
        structure = self._structure
        facts = Facts(objects=listed, chains=structure.chains, rules=structure.rules, defines={})
        return SimulatedDevice(SimulatedRuleset(facts), self._network)

    def _came_to(self, packet: PooledPacket) -> Mapping[Place, int]:
        """How many rules of each chain ``packet`` comes to."""
        came: dict[Place, int] = {}
        for one in self._original.journey(packet.steps):
            for place, number in (one.came if one else {}).items():
                came[place] = max(came.get(place, 0), number)
        return came

    @staticmethod
    def _way(device: SimulatedDevice, packet: PooledPacket) -> tuple[tuple[Place, ...], str] | None:
        with suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            return went(device, packet.steps)
        return None

    def _ready(self, packet: PooledPacket) -> Iterator[Candidate]:
        """The packet, if it can be sent."""
        key = repr(packet.sends)
        if key not in self._made:
            self._made[key] = made(packet.sends, self._network)
        if (one := self._made[key]) is not None:
            yield one


class NearCandidates:
    """Packets for the mutants of one large ruleset, made for each place of the part of the ruleset around it."""

    def __init__(self, structure: Structure, network: Network, seed: int) -> None:
        self._slices = Slices(structure)
        self._network = network
        self._seed = seed
        self._last: tuple[tuple[Place, ...], Candidates] | None = None

    def of(self, mutant: Mutant) -> Iterator[Candidate]:
        """As of :class:`Candidates`."""
        if self._last is None or self._last[0] != mutant.touched:
            part = self._slices.around(mutant.touched)
            self._last = mutant.touched, Candidates(part, self._network, self._seed, OF_PART)
        return self._last[1].of(mutant)


def numbered(structure: Structure) -> dict[Place, int]:
    """The number of each rule in its chain."""
    found: dict[Place, int] = {}
    counts: dict[tuple[str, str, str], int] = {}
    for rule in structure.rules:
        found[rule.place] = counts.get(rule.place[:3], 0)
        counts[rule.place[:3]] = found[rule.place] + 1
    return found


def made(sends: tuple[dict[str, Any], ...], network: Network) -> Candidate | None:
    """The frames of a packet and of those before it; None for what cannot be sent in this lab."""
    with suppress(Problem, msgspec.ValidationError):
        return Candidate(sends, tuple(build(msgspec.convert(send, Send), network) for send in sends))
    return None


def witnesses(packets: Sequence[Candidate], old: Sequence[Effects], new: Sequence[Effects]) -> Iterator[Witness]:
    """Those of ``packets`` whose effects differ under the original and under the mutant."""
    for packet, before, after in zip(packets, old, new, strict=True):
        if before.error or after.error:
            continue
        for one, other in sure(before.seen, after.seen):
            if found := difference(one, other):
                shown = tuple(row for row in details(one, other) if row[0] != "verdict")
                yield Witness(sends=packet.sends, summary=packet.summary, difference=found, details=shown)
                break


class Searching:
    """The search for packets that distinguish mutants from the original."""

    def __init__(self, structure: Structure, case: Case, session: BatchSession, seed: int) -> None:
        """Packets are sent in the lab of ``case``."""
        self._structure = structure
        self._case = case
        kind = NearCandidates if len(structure.rules) > MANY else Candidates
        self._candidates: Candidates | NearCandidates = kind(structure, case.network, seed)
        self._session = session
        self._original: dict[str, Effects] = {}
        """What the original does with packets, by their text."""
        self._numbers = numbered(structure)
        self.found: dict[str, list[Witness]] = {}
        """By the mutant's key, the simplest first."""
        self.packets: dict[str, int] = {}
        """How many were tried, and measured."""
        self._failed: dict[str, str] = {}
        """Why a packet could not be."""
        self._left: dict[str, Iterator[Candidate]] = {}
        """Packets that were not tried."""

    def search(self, todo: Sequence[Mutant], *, first: bool, step: Callable[[], None]) -> None:
        """Try packets on each of ``todo``; ``step`` is called when they are made for one, and tried on one."""
        trials: list[tuple[Mutant, list[Candidate]]] = []
        for mutant in todo:
            if first:
                self._left[mutant.key] = self._candidates.of(mutant)
            chosen = list(islice(self._left[mutant.key], FIRST if first else MORE))
            if first:
                step()
            if chosen:
                trials.append((mutant, chosen))
        self._learn([one for _, packets in trials for one in packets], sift=True)
        for mutant, packets in trials:
            self._count(mutant, [self._original[repr(one.sends)] for one in packets])
        trials = [(mutant, [one for one in packets if self._may_tell(one, mutant)]) for mutant, packets in trials]
        trials = [(mutant, packets) for mutant, packets in trials if packets]
        for (mutant, packets), (effects, _) in zip(trials, self._asked(trials, sift=True), strict=True):
            known = [self._original[repr(one.sends)] for one in packets]
            self.packets[mutant.key] -= len(effects)
            self._count(mutant, effects)
            self.found.setdefault(mutant.key, []).extend(witnesses(packets, known, effects))
            step()

    def _count(self, mutant: Mutant, effects: Sequence[Effects]) -> None:
        """Count those of the packets tried on ``mutant`` that were measured."""
        failed = [one.error for one in effects if one.error]
        self.packets[mutant.key] = self.packets.get(mutant.key, 0) + len(effects) - len(failed)
        if failed:
            self._failed[mutant.key] = failed[0]

    def unmeasured(self, mutant: Mutant) -> str:
        """Why none of the packets for ``mutant`` could be measured; "" where one was, or there is none."""
        return "" if self.packets.get(mutant.key) else self._failed.get(mutant.key, "")

    def _may_tell(self, packet: Candidate, mutant: Mutant) -> bool:
        """Whether ``packet`` comes to a changed place; one that does not under the original never does."""
        known = self._original[repr(packet.sends)]
        return not known.error and any(self._is_come_to(place, known) for place in mutant.touched)

    def _is_come_to(self, place: Place, known: Effects) -> bool:
        """Whether a packet with the effects ``known`` came to a rule, or to the end of its chain."""
        number = self._numbers.get(place, 0) if place[3] else END
        came = (one for effect in known.seen for one in effect.came if one[:3] == place[:3])
        return any(self._numbers.get(one, END) >= number for one in came)

    def confirm(self, todo: Sequence[Mutant]) -> None:
        """Keep, of each mutant, the first packet that also distinguishes it with functions watched, if one does."""
        trials = [
            (mutant, [one for seen in self.found.get(mutant.key, [])[:1] if (one := self._made(seen)) is not None])
            for mutant in todo
        ]
        trials = [(mutant, packets) for mutant, packets in trials if packets]
        self._original.clear()
        self._learn([one for _, packets in trials for one in packets], sift=False)
        for (mutant, packets), (effects, is_whole) in zip(trials, self._asked(trials, sift=False), strict=True):
            known = [self._original[repr(one.sends)] for one in packets]
            watched = "functions" if is_whole else "tracepoints"
            shown = [msgspec.structs.replace(one, confirmed=watched) for one in witnesses(packets, known, effects)]
            if shown:
                self.found[mutant.key] = shown

    def _made(self, one: Witness) -> Candidate | None:
        return made(one.sends, self._case.network)

    def _learn(self, packets: Sequence[Candidate], *, sift: bool) -> None:
        missing = {repr(one.sends): one for one in packets if repr(one.sends) not in self._original}
        if missing:
            trial = Trial(edit=None, packets=[one.frames for one in missing.values()])
            ((effects, _),) = self._shown([trial], sift=sift)
            self._original |= dict(zip(missing, effects, strict=True))

    def _asked(self, trials: Sequence[tuple[Mutant, list[Candidate]]], *, sift: bool) -> Iterator[Shown]:
        if trials:
            asked = [Trial(edit=mutant.edit, packets=[one.frames for one in packets]) for mutant, packets in trials]
            yield from self._shown(asked, sift=sift)

    def _shown(self, trials: Sequence[Trial], *, sift: bool) -> Iterator[Shown]:
        case = self._case
        asked = AskedApart(
            side=pickle.dumps((case.network, case.rulesets[case.network.device])),
            objects=self._structure.objects,
            fixed=self._structure.fixed,
            trials=tuple(trials),
            sift=sift,
        )
        is_whole = False
        left = deque(trials)
        found: list[Effects] = []
        for answer in self._session.measured(asked, chain.from_iterable(one.packets for one in trials), sift=sift):
            if isinstance(answer, Loaded):
                is_whole = answer.whole
                continue
            found.append(answer)
            if left and len(found) == len(left[0].packets):
                left.popleft()
                yield Shown(found, is_whole)
                found = []
