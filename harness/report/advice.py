"""What to do about it, where the cause of a failure is known."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.judge import Outcome, drops, hops_on
from harness.observation import Observation, PacketSeen, Verdict
from harness.scenario.models import Delivered, Expect

_INTERFACE = re.compile(r"""\biif(?:name)?\s+"?(?P<name>[^\s"{!=@]+)"?""")


def advise(expect: Expect, seen: Outcome, observation: Observation, packet: PacketSeen) -> Iterator[str]:
    """Yield one sentence for each known cause that fits; none when the ruleset simply says otherwise."""
    last = seen.decided[-1] if seen.decided else None
    if last and seen.verdict in (Verdict.DROP, Verdict.REJECT) and _should_pass(expect):
        if last.kind == "policy":
            yield f"no rule of {last.chain_path} decided, so its policy did: add a rule that accepts this packet"
        elif last.rule and re.search(r"\bct state\b.*\binvalid\b", last.rule.text):
            yield (
                "conntrack holds the packet for invalid: a TCP packet other than SYN needs its connection first; "
                "send that in an earlier step"
            )
    if isinstance(expect.rule, str) and (asked := _INTERFACE.search(expect.rule)):
        entered = next((hop.device for hop in hops_on(packet, observation.device) if hop.device), "")
        if entered and entered != asked["name"] and packet.sender != observation.device:
            yield f"the expected rule asks for the interface {asked['name']}, and the packet came in by {entered}"
    if packet.drop and (advice := drops.explain(packet.drop.function, packet.drop.reason).advice):
        yield advice


def _should_pass(expect: Expect) -> bool:
    to = expect.delivered.to if isinstance(expect.delivered, Delivered) else expect.delivered
    return expect.verdict == "accept" or (to is not None and to != "nowhere")
