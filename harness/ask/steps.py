"""What is asked, as the steps of a scenario: a packet on one line, a ``send``, scapy's words, or a capture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.errors import Position, ScenarioError
from harness.model.node import LineColumn, Node
from harness.model.problem import Problem
from harness.packets import line
from harness.topology.network import Network

LINE, SEND, PACKET, PCAP = "packet", "--send", "--packet", "--pcap"
"""What positions call the text that they are in."""
_START: Final = LineColumn(1, 1)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A packet, or several, in one of the forms in which it can be asked."""

    line: str = ""
    """``client > server tcp dport 22``; beside ``packet`` and ``pcap`` only the ends."""
    send: str = ""
    """YAML: a ``send`` of the scenario language."""
    packet: str = ""
    """Layers in scapy's words."""
    pcap: Path | None = None

    @property
    def source(self) -> str:
        """The text that positions are in."""
        given = {SEND: self.send, PACKET: self.packet, PCAP: self.pcap}
        return next((name for name, value in given.items() if value), LINE)

    @property
    def words(self) -> str:
        """The question in one line."""
        about = {LINE: self.line, SEND: self.send, PACKET: f"{self.line} {self.packet}", PCAP: str(self.pcap)}
        return " ".join(about[self.source].split())

    def steps(self, network: Network) -> list[Node]:
        """The steps, each a mapping with ``send``. Raises :class:`~harness.errors.ScenarioError`."""
        return [_step(send) for send in self._sends(network)]

    def _sends(self, network: Network) -> Iterator[Node]:
        if self.source == SEND:
            yield _send(self.send)
            return
        ends = line.parse(self.line, LINE) if self.line else Node({}, _START)
        if self.source == LINE:
            yield ends
            return
        if more := [key for key in ends.children if key not in ("from", "to")]:
            place = ends.children[more[0]].key
            raise ScenarioError(
                f"{self.source} gives the headers already",
                Position(LINE, *place),
                remedy="name only the sender and the destination",
            )
        if self.source == PACKET:
            from harness.packets import replay

            if "from" not in ends.children:
                ends.put("from", _START, Node(replay.outside(network), _START))
            words = Node(self.packet, _START)
            words.text = _START
            ends.put("packet", _START, words)
            yield ends
        elif self.pcap is not None:
            yield from _captured(self.pcap, ends, network)


def _step(send: Node) -> Node:
    step = Node({}, send.place)
    step.put("send", send.place, send)
    return step


def _send(text: str) -> Node:
    """A ``send`` as YAML has it."""
    from harness.scenario.document import parse

    node = parse(text, SEND)
    if not isinstance(node.value, dict):
        remedy = "write it as in a scenario: {from: client, to: server, tcp: {dport: 22}}"
        raise ScenarioError("is not a mapping", Position(SEND, *node.place), remedy=remedy)
    return node


def _captured(file: Path, ends: Node, network: Network) -> Iterator[Node]:
    """A ``send`` for each run of packets that start at the same host: the one named, or that of their source."""
    from harness.packets import replay
    from harness.packets.spec import Pcap

    try:
        recorded = replay.packets(Pcap(file=str(file)))
    except Problem as problem:
        raise ScenarioError(problem.sentence, Position(str(file)), remedy=problem.remedy) from None
    named = str(ends.value.get("from", ""))
    senders = [named or replay.sender(one, network) for one in recorded]
    for sender, run in groupby(enumerate(senders, 1), key=lambda pair: pair[1]):
        numbers = [number for number, _ in run]
        which = f"{numbers[0]}-{numbers[-1]}"
        yield Node.of({"from": sender, "pcap": {"file": str(file), "packets": which}}, _START)


def flow(step: Node, at: tuple[str, int] | None, network: Network, *, exchange: bool) -> list[Node]:
    """The steps of a real exchange in place of the packet of ``step``.

    A program listens ``at`` a host and port, where there is one; another connects to it or, by UDP, asks. With
    ``exchange`` a request and its answer go over the TCP connection.

    Raises :class:`~harness.errors.ScenarioError` where the packet is neither TCP nor UDP.
    """
    send = step.children["send"]
    protocol = next((name for name in ("tcp", "udp") if name in send.children), "")
    header: Mapping[str, Any] = send.value.get(protocol) or {}
    if not protocol or "dport" not in header or "to" not in send.value:
        place = Position(LINE, *send.place)
        remedy = "ask about tcp or udp with a destination and a dport, or leave out --flow"
        raise ScenarioError("--flow works with TCP and UDP only", place, remedy=remedy)
    called = {"from": send.value["from"], "to": send.value["to"], protocol: header["dport"]}
    if "sport" in header:
        called["sport"] = header["sport"]
    if "ip6" in send.children and str(called["to"]) in network.hosts:
        called["family"] = "ip6"
    found: list[dict[str, Any]] = [{"listen": {"on": at[0], protocol: at[1]}}] if at else []
    if protocol == "tcp":
        found.append({"connect": called})
    if protocol == "udp" or exchange:
        found.append({"exchange": called})
    return [Node.of(one, send.place) for one in found]
