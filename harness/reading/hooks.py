"""Which of netfilter's hooks of IP a packet passed on a host, as far as that can be proved.

A base chain that saw the packet proves that its hook was passed. That a hook was not passed follows from the way that
the packet took instead (NF_HOOK in net/ipv4/ip_input.c, ip_forward.c and ip_output.c): what is forwarded does not pass
input, what is for the host itself passes neither forward nor postrouting, what a host receives does not pass output,
what it sends to others does not pass prerouting, and nothing passes a hook behind the one that dropped it.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.observation import ObservedPacket
from harness.model.result import Policy
from harness.netfilter import IP_FAMILIES
from harness.reading.decision import FORWARDING, REFUSED, arrivals
from harness.reading.path import hops_on

_OUTPUT = frozenset(
    {"ip_output", "ip_finish_output", "ip_finish_output2", "ip6_output", "ip6_finish_output", "ip6_finish_output2"}
)
"""By these a host sends IP packets, its own and those that it forwards; what a bridge passes on does not meet them."""
_BEHIND = {
    "ingress": ("prerouting", "input", "forward", "postrouting"),
    "prerouting": ("input", "forward", "postrouting"),
    "forward": ("input", "postrouting"),
    "input": ("forward", "postrouting"),
    "output": ("postrouting",),
    "postrouting": (),
}
"""Hooks that a packet cannot pass after it was dropped at one."""


def missed(bases: Sequence[Policy], packet: ObservedPacket, device: str) -> str:
    """Return the hooks of the base chains ``bases``, joined by "or", when it is proved that ``packet`` passed none.

    "" when it passed one, when that cannot be proved, or for families other than those of IP.
    """
    if not bases or any(one.family not in IP_FAMILIES for one in bases):
        return ""
    names = dict.fromkeys(one.hook for one in bases)
    return " or ".join(names) if all(_is_missed(hook, packet, device) for hook in names) else ""


def passed(packet: ObservedPacket, device: str) -> set[str]:
    """Return the hooks at which a base chain of ``device``, of a family of IP, saw ``packet``."""
    return {step.hook for step in packet.steps if step.host == device and step.family in IP_FAMILIES}


def is_forwarded(packet: ObservedPacket, device: str) -> bool:
    """Whether ``device`` routed ``packet`` on to another host."""
    functions = {hop.function for hop in hops_on(packet, device)}
    if "forward" in passed(packet, device) or functions & set(FORWARDING):
        return True
    return packet.sender != device and bool(functions & _OUTPUT)


def is_taken(packet: ObservedPacket, device: str) -> bool:
    """Whether ``packet`` was for ``device`` itself."""
    return "input" in passed(packet, device) or device in arrivals(packet)


def is_behind(hook: str, other: str) -> bool:
    """Whether a packet that was dropped at hook ``other`` cannot pass ``hook`` any more."""
    return hook in _BEHIND.get(other, ())


def _is_missed(hook: str, packet: ObservedPacket, device: str) -> bool:
    if hook in passed(packet, device):
        return False
    steps = [step for step in packet.steps if step.host == device]
    if steps and steps[-1].verdict in REFUSED and is_behind(hook, steps[-1].hook):
        return True
    match hook:
        case "input":
            return is_forwarded(packet, device) and not is_taken(packet, device)
        case "forward":
            return is_taken(packet, device) and not is_forwarded(packet, device)
        case "output":
            return packet.sender != device and (is_forwarded(packet, device) or is_taken(packet, device))
        case "postrouting":
            return packet.sender != device and is_taken(packet, device) and not is_forwarded(packet, device)
        case "prerouting":
            return packet.sender == device and bool(arrivals(packet)) and not is_taken(packet, device)
    return False
