"""The resolution of neighbours beside the steps of a scenario: its packets are not theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.errors import HarnessError
from harness.lab.lab import Lab
from harness.lab.neighbours import Query, Resolver
from harness.model.observation import Observation
from harness.packets.frames import Frame
from harness.reading.decision import REFUSED, ended, outcome
from harness.ruleset import state
from harness.ruleset.load import Ruleset
from harness.topology.network import Network
from harness.topology.parts import Address

MESSAGES = {
    4: ("ARP request", "ARP reply", "accept ARP there"),
    6: (
        *("neighbour solicitation", "neighbour advertisement"),
        "accept icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
    ),
}
"""By version of IP: the question, the answer, and what a ruleset that drops them should do."""


class Resolution:
    """Resolves the neighbours of a lab before its steps need them, and keeps apart what rules count of that."""

    def __init__(self, lab: Lab, ruleset: Ruleset) -> None:
        self._lab = lab
        self._ruleset = ruleset
        self._resolver = Resolver(lab)
        self._resolver.hold()
        self._done: dict[tuple[str, object], tuple[Query, ...]] = {}
        self._apart: dict[str, int] = {}

    def follow(self, ruleset: Ruleset) -> None:
        """Ask again, through ``ruleset``, which a step has changed, for what had no answer.

        Counters that are made anew have counted nothing.
        """
        self._done = {way: failed for way, failed in self._done.items() if not failed}
        before, self._ruleset = self._ruleset, ruleset
        lasting = {key for key, handle in ruleset.tables.items() if before.tables.get(key) == handle}
        self._apart = {name: packets for name, packets in self._apart.items() if tuple(name.split()[:2]) in lasting}

    def moved(self) -> None:
        """Ask again for all, because a step has changed the lab."""
        self._done.clear()

    def ask(self, query: Query) -> bool:
        """Ask for one neighbour; whether it answered."""
        return self._resolver.ask(query)

    def of_flow(self, host: str, destination: Address) -> tuple[Query, ...]:
        """Resolve what a program of ``host`` that calls ``destination`` needs; what failed."""
        if not self._resolver.needed:
            return ()
        if (host, destination) not in self._done:
            with self.apart():
                self._done[host, destination] = self._resolver.towards(host, destination)
        return self._done[host, destination]

    def of_frame(self, frame: Frame) -> None:
        """Resolve what an injected frame needs: behind its first hop, or of a host whose kernel sends it on from it."""
        if not self._resolver.needed or not frame.family:
            return
        host = frame.sender if frame.through == "output" else self._lab.device.name
        if (host, frame.family) not in self._done:
            with self.apart():
                self._done[host, frame.family] = self._resolver.beyond(host, frame.family)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What the ruleset of the device counts in the block is not the scenario's."""
        before = self._counted()
        yield
        for name, packets in self._counted().items():
            if more := packets - before.get(name, 0):
                self._apart[name] = self._apart.get(name, 0) + more

    def without(self, counted: Mapping[str, int]) -> dict[str, int]:
        """Counts without those of the resolution."""
        return {name: packets - self._apart.get(name, 0) for name, packets in counted.items()}

    def _counted(self) -> dict[str, int]:
        device = self._lab.device
        return state.every_counter(self._ruleset.nft) | (state.counts_of_rules(device) if self._ruleset.counts else {})


def unreached(observation: Observation, failed: Sequence[Query]) -> list[Query]:
    """Those of the neighbours that ``failed`` to which packets of the flow could not be delivered."""
    if not failed or observation.flow is None or observation.flow.result in ("connected", "answered"):
        return []
    dropped = {one.drop.host for one in observation.packets if one.drop and one.drop.reason.startswith("NEIGH_")}
    return [query for query in failed if query.host in dropped]


def explain(query: Query, seen: Observation | None, network: Network) -> str:
    """Say why a neighbour was not resolved, by what was ``seen`` when it was asked for."""
    owner = network.owner(query.address) or ""
    asking, answering, remedy = MESSAGES[query.address.version]
    text = f"{query.host}:{query.interface} could not resolve its neighbour {query.address} ({owner})"
    for packet in seen.packets if seen else ():
        try:
            decided = outcome(packet, seen.device) if seen else None
        except HarnessError:
            continue
        if seen and decided and decided.verdict in REFUSED:
            message = f"its {asking}" if packet.sender == query.host else f"the {answering}"
            return f"{text}: {message} was {ended(packet, decided, seen.device)}; {remedy}"
    return f"{text}: no {answering} came"
