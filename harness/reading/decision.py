"""What the ruleset decided about a packet, as far as all oracles agree."""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.errors import BrokenMeasurement
from harness.model.observation import Observation, ObservedPacket, Step, Value, Verdict
from harness.packets import icmp
from harness.packets.headers import fields
from harness.reading import drops
from harness.reading.path import hops_on, located
from harness.reading.rules import bare
from harness.reading.words import PAST, describe_decision, describe_errno, describe_hop

FINAL = frozenset({Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT, Verdict.QUEUE, Verdict.STOLEN})
"""Verdicts that end the evaluation of a base chain."""
REFUSED = frozenset({Verdict.DROP, Verdict.REJECT})
"""Verdicts that end a packet."""
CALL = "connect"
"""In a :class:`~harness.model.observation.Drop`: the kernel refused a program's call before it made a packet. The
reason is then the name of the errno."""
UNDECIDED = "undecided"
"""What is said for the verdict where no base chain saw a packet."""


class Outcome(Value, frozen=True, kw_only=True):
    """What the ruleset of the device decided about one packet."""

    verdict: Verdict | None = None
    """None when no base chain saw the packet."""
    with_: str = ""
    """For a reject: with what, in nft(8)'s words and for this packet's protocol, e.g.
    ``icmp port-unreachable`` (never icmpx, where the packet's family is known)."""
    decided: tuple[Step, ...] = ()
    """The step, rule or policy, that ended each evaluation of a base chain, in order. The last
    one decided a drop or reject; for an accept each had its part."""

    def __str__(self) -> str:
        if self.verdict is None:
            return UNDECIDED
        return f"{self.verdict} with {self.with_}" if self.with_ else str(self.verdict)

    @property
    def deciding(self) -> tuple[Step, ...]:
        """The steps that an expected ``rule`` may mean: all for an accept, else the last."""
        return self.decided if self.verdict is Verdict.ACCEPT else self.decided[-1:]


def unsent(packet: ObservedPacket) -> bool:
    """Whether this stands for the packet of a program's call that the kernel refused, so that it was never made."""
    return packet.drop is not None and packet.drop.function == CALL


def outcome(packet: ObservedPacket, device: str) -> Outcome:
    """Return what the ruleset on the host ``device`` decided about ``packet``.

    A packet that the kernel itself gave up (reverse path filter, no route, TTL, checksum) is not
    the ruleset's drop: the verdict is then that of the chains that saw it, or None.

    Raises :class:`~harness.errors.BrokenMeasurement` when nothing at all was seen of the packet, or when its nf_tables
    trace, its functions and its arrivals contradict each other.
    """
    if not (packet.hops or packet.steps or packet.deliveries or unsent(packet)):
        raise BrokenMeasurement(
            f"packet {packet.number} from {packet.sender} was seen by no function, no nf_tables trace and no host",
            remedy="check that its interface is up and part of the lab",
        )
    runs = evaluations(step for step in packet.steps if step.host == device)
    _compare_with_functions(runs, packet, device)
    decided = tuple(steps[-1] for steps in runs)
    if not decided:
        return Outcome()
    last = decided[-1]
    if last.verdict not in REFUSED:
        return Outcome(verdict=last.verdict, decided=decided)
    _compare_with_arrivals(last, packet, device)
    answer = _rejected_with(last, packet, device)
    return Outcome(verdict=Verdict.REJECT if answer else Verdict.DROP, with_=answer, decided=decided)


def decisive(observation: Observation) -> ObservedPacket:
    """The packet that an ``expect`` is about: the injected one.

    Of a flow, which has several, the first that the ruleset refused, on its way or on the way back;
    when it let all pass, the first that was sent. Where its host sent that in segments or fragments, it is that of
    them which arrived and met most different rules: chains behind the defragmentation see one for all, and what TCP
    sends at once may be cut into segments, each of which meets the same.
    """
    first = observation.injected[0]
    if observation.flow is not None:
        for packet in observation.packets:
            if _refused(packet, observation.device):
                return packet
        if _in_pieces(first.frame):
            arrived = [one for one in observation.injected if arrivals(one)]
            return max(arrived, key=_kinds_of_steps, default=first)
    return first


def _kinds_of_steps(packet: ObservedPacket) -> int:
    return len({(step.host, step.chain_path, step.kind, step.rule and step.rule.place) for step in packet.steps})


def _in_pieces(frame: bytes) -> bool:
    """Whether a packet left its host in segments, so that the whole was never seen on a link, or as a fragment."""
    if frame[12:14] == b"\x86\xdd":
        return frame[20:21] == b"\x2c"
    return not frame or (frame[12:14] == b"\x08\x00" and bool(int.from_bytes(frame[20:22], "big") & 0x3FFF))


def _refused(packet: ObservedPacket, device: str) -> bool:
    return any(step.host == device and step.verdict in REFUSED for step in packet.steps)


def evaluations(steps: Iterable[Step]) -> list[list[Step]]:
    """Cut a packet's steps into runs of base chains: each ends with the step that decided."""
    runs: list[list[Step]] = [[]]
    for step in steps:
        runs[-1].append(step)
        if step.verdict in FINAL:
            runs.append([])
    if unfinished := runs.pop():
        raise BrokenMeasurement(
            f"the nf_tables trace breaks off in chain {unfinished[-1].chain_path}: no rule and no policy ended it"
        )
    return runs


def _compare_with_functions(runs: list[list[Step]], packet: ObservedPacket, device: str) -> None:
    """Check the trace against the answers of ``nft_do_chain``, where those were traced.

    The first step of an evaluation is always the base chain's: a packet gets into another chain
    only by a jump, and that is a step. Reject is DROP to the hook (net/ipv4/netfilter/nft_reject_ipv4.c).
    """
    ran: dict[str, list[str]] = {}
    for hop in hops_on(packet, device):
        if hop.function == "nft_do_chain" and (chain := hop.detail.get("chain")):
            ran.setdefault(chain, []).append(hop.detail.get("verdict", ""))
    if not ran:
        return
    by_trace: dict[str, list[str]] = {}
    for steps in runs:
        verdict = Verdict.DROP if steps[-1].verdict in REFUSED else steps[-1].verdict
        by_trace.setdefault(steps[0].chain_path, []).append(str(verdict))
    for chain in {**ran, **by_trace}:
        functions, trace = ran.get(chain, []), by_trace.get(chain, [])
        if len(functions) != len(trace):
            raise BrokenMeasurement(
                f"nft_do_chain ran {_times(len(functions))} for chain {chain}, "
                f"but the nf_tables trace reports it {_times(len(trace))}"
            )
        for answer, said in zip(functions, trace, strict=True):
            if answer and answer != said:
                raise BrokenMeasurement(
                    f"nft_do_chain returned {answer} for chain {chain}, but the nf_tables trace says {said}"
                )


_COPIES = re.compile(r"\bdup to\b|\bTEE\b")
"""A copy goes its own way, whatever becomes of the packet."""


def _compare_with_arrivals(last: Step, packet: ObservedPacket, device: str) -> None:
    if any(step.rule and _COPIES.search(bare(step.rule.text)) for step in packet.steps):
        return
    for delivery in packet.deliveries:
        if delivery.host != packet.sender and delivery.time >= last.time:
            raise BrokenMeasurement(
                f"the nf_tables trace says that {device} dropped the packet ({describe_decision(last)}), "
                f"but it arrived at {delivery.host} {delivery.device}"
            )


# The statement stands at the end of its rule; `jump reject` names a chain.
_REJECT = re.compile(r"(?<!\S)(?<!jump )(?<!goto )reject(?: with (?P<answer>[\w -]+?))?\s*$")
# net/ipv4/netfilter/nf_reject_ipv4.c, net/ipv6/netfilter/nf_reject_ipv6.c; the nf_reject_skb ones
# serve the netdev and bridge families.
REJECTING = {
    "nf_send_reset": "tcp reset",
    "nf_send_reset6": "tcp reset",
    "nf_reject_skb_v4_tcp_reset": "tcp reset",
    "nf_reject_skb_v6_tcp_reset": "tcp reset",
    "nf_send_unreach": "icmp",
    "nf_send_unreach6": "icmpv6",
    "nf_reject_skb_v4_unreach": "icmp",
    "nf_reject_skb_v6_unreach": "icmpv6",
}
"""Functions by which the kernel rejects, and with what."""


def _rejected_with(last: Step, packet: ObservedPacket, device: str) -> str:
    """Return the answer that the deciding step sends, "" if it drops in silence.

    The rule's text knows best; the functions help out for rules without a native text, such as
    iptables' REJECT, and then the code of an ICMP answer is not known.
    """
    if last.rule and (found := _REJECT.search(bare(last.rule.text))):
        return _concrete(found["answer"] or "", last.family, fields(packet.frame).get("family"))
    for hop in hops_on(packet, device):
        if hop.function in REJECTING:
            return REJECTING[hop.function]
    return ""


def _concrete(answer: str, family: str, version: str | int | None) -> str:
    """Return an answer of a reject statement in full: nft leaves the default out, and icmpx is either ICMP."""
    default = {"ip": "icmp", "ip6": "icmpv6"}.get(family, "icmpx")
    kind, _, code = (answer or f"{default} port-unreachable").replace(" type ", " ").partition(" ")
    if kind == "icmpx" and code in icmp.CODES_X and version in (4, 6):
        kind, code = ("icmp", icmp.CODES_X[code][0]) if version == 4 else ("icmpv6", icmp.CODES_X[code][1])
    return f"{kind} {code}"


FORWARDING = frozenset({"ip_forward", "ip6_forward"})
"""By these a router passes a packet on (net/ipv4/ip_forward.c, net/ipv6/ip6_output.c)."""


def arrivals(packet: ObservedPacket) -> tuple[str, ...]:
    """Return the hosts where ``packet`` arrived, in order, each once; not the routers that passed it on."""
    routers = {hop.host for hop in located(packet) if hop.function in FORWARDING}
    return tuple(dict.fromkeys(delivery.host for delivery in packet.deliveries if delivery.host not in routers))


def ended(packet: ObservedPacket, seen: Outcome, device: str) -> str:
    """Return where and why the packet's way ended, as a part of a sentence."""
    drop = packet.drop
    if seen.verdict in REFUSED:
        did = f"{PAST[Verdict.REJECT]} with {seen.with_}" if seen.with_ else PAST[Verdict.DROP]
        why = f" ({drop.function}: {drop.reason})" if drop else ""
        return f"{did} on {device} by {describe_decision(seen.decided[-1])}{why}"
    if drop and unsent(packet):
        return f"not sent: the call of the program on {drop.host} failed at once with {describe_errno(drop.reason)}"
    parts = [f"received by {host}" if host == device else f"delivered to {host}" for host in arrivals(packet)]
    if drop:
        words = drops.explain(drop.function, drop.reason).words
        why = f" ({words})" if words else ""
        parts.append(f"dropped by the kernel on {drop.host} in {drop.function}: {drop.reason}{why}")
    if parts:
        return ", then ".join(parts)
    if seen.verdict in (Verdict.QUEUE, Verdict.STOLEN):
        return f"{PAST[seen.verdict]} on {device} by {describe_decision(seen.decided[-1])}"
    if hops := located(packet):
        return f"last seen on {hops[-1].host} in {describe_hop(hops[-1])}"
    return "not observed after that"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
