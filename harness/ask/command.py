"""The command ``nft-harness ask``, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.ask import answer
from harness.ask.steps import Question, flow
from harness.batch import drafts, saving
from harness.batch.messages import Seen
from harness.batch.session import BatchSession
from harness.errors import BrokenMeasurement, HarnessError
from harness.generate import lab
from harness.generate.facts import Facts
from harness.generate.lab import ChosenLab
from harness.model.node import Node
from harness.model.result import PacketResult
from harness.packets.headers import fields, framed
from harness.pytest_plugin import kept_frames
from harness.reading.decision import arrivals
from harness.scenario.case import Case
from harness.scenario.files import shortened
from harness.topology.network import Network
from harness.vm import placement

Print = Callable[[str], None]


class AskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    rulesets: tuple[Path, ...]
    """Files, in the order of loading."""
    question: Question
    lab: str = ""
    """A built-in lab, or the file of one; "" for the one that ``init`` would choose."""
    flow: bool = False
    """Whether programs exchange data in place of the one packet."""
    json: bool = False
    save: Path | None = None
    kernel: str = placement.AUTO
    tracer: str = placement.AUTO
    colour: bool = False


def run(request: AskRequest, show: Print, note: Print) -> None:
    """Answer ``request``: what there is to say goes to ``show``, and what happens meanwhile to ``note``.

    Raises :class:`~harness.errors.HarnessError` where there is no answer, of the class
    :class:`~harness.errors.BrokenMeasurement` where something could not be observed.
    """
    if request.save:
        saving.existing(request.save)
    given = lab.given(request.lab) if request.lab else None
    with BatchSession.open(request.kernel, request.tracer) as session:
        chosen = given or lab.choose(_looked(session, request.rulesets, note))
        asked = _Asked(request, chosen, session)
        steps = request.question.steps(chosen.network)
        case, seen = asked.run(steps)
        if request.flow:
            case, seen = asked.flow(steps, seen)
    if request.save:
        words = f"{request.question.words}: {', '.join(dict.fromkeys(answer.verdicts(seen.sent)))}"
        note(saving.save(request.save, words, case, seen, chosen))
    title = f"{', '.join(str(shortened(one)) for one in request.rulesets)}: {request.question.words}"
    about = f"kernel {seen.kernel}; {chosen.described}"
    if request.json:
        show(answer.as_json(answer.result(title, shortened(request.rulesets[0]), seen, case.network)))
    else:
        show(answer.text(title, about, seen, case.network, colour=request.colour))


def _looked(session: BatchSession, rulesets: Sequence[Path], note: Print) -> Facts:
    facts = session.look(rulesets)
    if not facts.chains:
        note(f"{rulesets[0]} has no chain: every packet passes it")
    return facts


class _Asked(NamedTuple):
    """What questions about one ruleset have in common."""

    request: AskRequest
    lab: ChosenLab
    session: BatchSession

    def run(self, steps: Sequence[Node]) -> tuple[Case, Seen]:
        """Run ``steps``, and what became of them."""
        case = self._case(steps)
        frames = kept_frames.prepare(case.sends)
        (seen,) = self.session.run([case], frames)
        if seen.error:
            raise (BrokenMeasurement if seen.is_broken else HarnessError)(seen.error)
        return case, seen

    def flow(self, steps: Sequence[Node], seen: Seen) -> tuple[Case, Seen]:
        """A real exchange in place of a packet that was ``seen``: the program listens where that has arrived."""
        if len(steps) != 1 or len(seen.sent) != 1:
            raise HarnessError("--flow takes one packet", remedy="ask about one, or leave out --flow")
        at = _listener(seen.sent[0], steps[0], self.lab.network)
        network = self.lab.network
        case, found = self.run(flow(steps[0], at, network, exchange=False))
        flows = [one.observation.flow for one in found.sent]
        if flows and flows[-1] and flows[-1].result == "connected":
            return self.run(flow(steps[0], at, network, exchange=True))
        return case, found

    def _case(self, steps: Sequence[Node]) -> Case:
        question = self.request.question
        files = [question.pcap] if question.pcap else []
        return drafts.case(self.lab, self.request.rulesets, question.source, steps, files)


def _listener(sent: PacketResult, step: Node, network: Network) -> tuple[str, int] | None:
    """The host and port at which a packet has arrived, else that of its destination; None for an address of nobody."""
    device = sent.observation.device
    for one in sent.seen.deliveries:
        if one.frame and one.host in arrivals(sent.seen):
            return one.host, int(fields(one.frame).get("dport", 0))
    if device in arrivals(sent.seen):
        headers = [one.headers for one in sent.seen.steps if one.headers]
        last = fields(framed(headers[-1])) if headers else fields(sent.seen.frame)
        return device, int(last.get("dport", 0))
    send = step.value["send"]
    port = next((send[name]["dport"] for name in ("tcp", "udp") if "dport" in (send.get(name) or {})), 0)
    return (send["to"], port) if send.get("to") in network.hosts and send["to"] != send["from"] else None
