"""What neighbour entries that were given hide: a ruleset that drops ARP or Neighbour Discovery.

Packets to a neighbour with a permanent entry arrive although nobody could have asked for its Ethernet address. So when
everything of a scenario has been measured and read, the question and the answer of each hop with such an entry are sent
once, by the kernels that have addresses and as frames for those that have none. Only a drop that nf_tables' trace shows
counts; the result is kept by content, for most scenarios share their lab and ruleset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Final, NamedTuple

from harness.errors import BrokenMeasurement, HarnessError
from harness.experiment.resolution import MESSAGES
from harness.lab import neighbours
from harness.lab.capture import Capture
from harness.lab.inject import Wire
from harness.lab.lab import Lab
from harness.lab.neighbours import Query
from harness.model.observation import Observation, ObservedPacket, Step
from harness.packets import resolving
from harness.packets.headers import fields
from harness.reading.decision import REFUSED, arrivals, outcome
from harness.reading.words import describe_decision
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace_chains import TraceChains
from harness.topology.network import Network
from harness.topology.parts import Interface, Neighbour
from harness.wait import wait_until

_STATEFUL: Final = re.compile(r"\b(?:limit|quota|ct count|numgen)\b")
"""Statements that decide by what came before."""


class Transit(NamedTuple):
    """A packet's way from one host to the next, by a neighbour entry that was given."""

    asking: Interface
    neighbour: Neighbour
    answering: Interface
    own: bool
    """Whether the packet is the asking host's own, whose address is then the source of a solicitation."""


_KNOWN: Final[dict[tuple[object, ...], dict[Transit, list[tuple[Network, str]]]]] = {}
"""By what is loaded and hop, for each lab: the sentence, or "" where nothing was dropped."""


class Unasked:
    """Finds what the loaded ``rulesets`` would drop of the resolution of neighbours that have entries in ``lab``."""

    def __init__(
        self, lab: Lab, rulesets: Mapping[str, Ruleset], tracing: Sequence[TraceChains], capture: Capture
    ) -> None:
        self._lab = lab
        self._rulesets = rulesets
        self._tracing = tracing
        self._capture = capture
        self.changed = False
        """Whether a step has changed a ruleset, which then differs from its files."""
        self.spoiled = False
        """Whether a host of the lab has other neighbour entries or addresses than planned, because it was asked."""

    def notes(self, observation: Observation, packet: ObservedPacket) -> Iterator[str]:
        """A sentence for each hop of ``packet`` that it could not have made without a neighbour entry.

        To be called when nothing more is measured in the lab: it leaves traces in counters and sets.
        """
        hops = [hop for hop in dict.fromkeys(_hops(packet, self._lab.network)) if self._may_see(hop)]
        if hops and _arrived(observation, packet):
            for hop in hops:
                with suppress(HarnessError):
                    if sentence := self._of(hop):
                        yield sentence

    def _may_see(self, hop: Transit) -> bool:
        return any(_may_see(ruleset, hop.neighbour.address.version) for ruleset in self._rulesets.values())

    @cached_property
    def _results(self) -> dict[Transit, list[tuple[Network, str]]]:
        """What is known so far of the rulesets, which no step changes any more."""
        if self.changed:
            return {}
        loaded = ((name, one.chains, one.rules, tuple(one.sets.items())) for name, one in self._rulesets.items())
        return _KNOWN.setdefault(tuple(loaded), {})

    def _of(self, hop: Transit) -> str:
        results = self._results.setdefault(hop, [])
        for network, sentence in results:
            if network == self._lab.network:
                return sentence
        sentence = self._sentence(hop)
        results.append((self._lab.network, sentence))
        return sentence

    def _sentence(self, hop: Transit) -> str:
        found = self._dropped(hop)
        if found is None or (found[0].rule and _STATEFUL.search(found[0].rule.text)):
            return ""
        step, answer = found
        question, reply, remedy = MESSAGES[hop.neighbour.address.version]
        message = f"the {reply} of {hop.answering.host}" if answer else f"the {question} of {hop.asking.host}"
        return (
            f"{message} for {hop.neighbour.address} is dropped on {step.host} by {describe_decision(step)}; packets "
            f"arrived only because the lab gives {hop.asking.host} a permanent neighbour entry; {remedy}"
        )

    def _dropped(self, hop: Transit) -> tuple[Step, bool] | None:
        """The step that drops the question, or (True) the answer; None where neither is dropped, or that is unclear."""
        asking, answering = (self._lab.hosts[one.host] for one in (hop.asking, hop.answering))
        asks = hop.asking.name in asking.plan.speaking
        answers = hop.answering.name in answering.plan.speaking
        source = neighbours.source(hop.asking, hop.neighbour.address, hop.own)
        query = Query(asking.name, hop.asking.name, hop.neighbour.address, source)
        question, answer = resolving.pair(hop.asking, hop.answering.mac, hop.neighbour.address, source)
        # A bridge floods questions: one copy may be dropped where another arrives.
        flooded = any(host.plan.bridges for host in self._lab.hosts.values())
        refused: list[tuple[Step, bool]] = []
        resolved = False
        about: dict[int, bool] = {}

        def ended() -> bool:
            nonlocal resolved
            for frame in self._capture.read():
                kind = resolving.kind(frame.frame, hop.neighbour.address)
                if frame.outgoing or kind is None:
                    continue
                if kind is resolving.Kind.ANSWER:
                    resolved = resolved or (frame.host == asking.name and not asks)
                elif frame.host == answering.name and frame.device == hop.answering.name and not answers:
                    Wire(answering, hop.answering.name).send(answer)
            resolved = resolved or (asks and neighbours.resolved(asking, query))
            refused.extend(self._refusals(about))
            return resolved or (bool(refused) and not flooded)

        ended()  # what was left unread
        refused.clear()
        resolved = False
        if asks:
            self.spoiled = True
            neighbours.ask_anew(asking, query)
        else:
            Wire(asking, hop.asking.name).send(question)
        with suppress(BrokenMeasurement):
            wait_until(ended, neighbours.DEADLINE_S, "neighbours to answer")
        return None if resolved or not refused else refused[0]

    def _refusals(self, about: dict[int, bool]) -> Iterator[tuple[Step, bool]]:
        """Yield each step of the trace that refused a message of resolution, and whether that was the answer.

        ``about`` has that of the packets traced so far, by the id in the trace.
        """
        for message, step in (one for tracing in self._tracing for one in tracing.read()):
            if message.network:
                seen = resolving.kind_of_headers(message.network, message.transport)
                about.pop(message.id, None)
                if seen is not None:
                    about[message.id] = seen is resolving.Kind.ANSWER
            if step is not None and step.verdict in REFUSED and message.id in about:
                yield step, about[message.id]


def _arrived(observation: Observation, packet: ObservedPacket) -> bool:
    try:
        return outcome(packet, observation.device).verdict not in REFUSED and bool(arrivals(packet))
    except HarnessError:
        return False


def _hops(packet: ObservedPacket, network: Network) -> Iterator[Transit]:
    interfaces = {one.mac: one for one in network.interfaces}
    for frame in (packet.frame, *(delivery.frame for delivery in packet.deliveries)):
        target, source = (frame[start : start + 6].hex(":") for start in (0, 6))
        if source not in interfaces or target not in interfaces:
            continue
        version, asking = fields(frame).get("family"), interfaces[source]
        for one in network.hosts[asking.host].neighbours:
            if one.known and (one.interface, one.mac, one.address.version) == (asking.name, target, version):
                yield Transit(asking, one, interfaces[target], asking.host == packet.sender)
                break


def _may_see(ruleset: Ruleset, version: int) -> bool:
    """Whether a chain sees ARP requests (4), or solicitations (6), at all."""
    families = {"bridge", "netdev", *(("arp",) if version == 4 else ("inet", "ip6"))}
    return any(
        chain.is_base and (chain.family in families or chain.hook in ("ingress", "egress")) for chain in ruleset.chains
    )
