"""The hooks that a packet passed and did not pass, as far as that is proved."""

from __future__ import annotations

import pytest

from harness.model.observation import ObservedPacket, Step
from harness.reading import hooks
from tests.builders import arrival, at, base, changed, dropped, hop, step


def saw(hook: str, verdict: str = "accept", family: str = "inet") -> Step:
    return step(verdict, chain=f"{family} f {hook}", hook=hook)


def forwarded(*steps: Step) -> ObservedPacket:
    return changed(steps=steps, hops=(hop("ip_rcv"), hop("ip_forward")))


def taken(*steps: Step) -> ObservedPacket:
    return changed(steps=steps, hops=(hop("ip_rcv"),), deliveries=(arrival("device"),))


NOWHERE = dropped()
"""Whether it was forwarded or taken is not known."""


def test_hooks_that_a_chain_of_this_host_proves() -> None:
    steps = (saw("prerouting"), saw("ingress", family="netdev"), at(saw("input"), host="edge"))
    assert hooks.passed(changed(steps=steps), "device") == {"prerouting"}


@pytest.mark.parametrize(
    ("packet", "is_forwarded", "is_taken"),
    [
        (forwarded(), True, False),
        (changed(hops=(), steps=(saw("forward"),)), True, False),
        (changed(steps=(), hops=(hop("ip_rcv"), hop("ip_forward", host="edge", device="eth0"))), False, False),
        (taken(), False, True),
        (dropped(saw("input")), False, True),
        (NOWHERE, False, False),
    ],
)
def test_a_packet_is_forwarded_or_taken(packet: ObservedPacket, is_forwarded: bool, is_taken: bool) -> None:
    assert hooks.is_forwarded(packet, "device") is is_forwarded
    assert hooks.is_taken(packet, "device") is is_taken


def test_behind_a_hook() -> None:
    assert hooks.is_behind("input", "prerouting")
    assert not hooks.is_behind("prerouting", "input")
    assert not hooks.is_behind("input", "egress")


@pytest.mark.parametrize(
    ("hook", "packet", "is_missed"),
    [
        ("input", forwarded(), True),
        ("input", taken(), False),
        ("input", NOWHERE, False),
        ("input", forwarded(saw("input")), False),
        ("input", taken(saw("forward")), False),
        ("forward", taken(), True),
        ("forward", forwarded(), False),
        ("forward", NOWHERE, False),
        ("forward", taken(saw("forward")), False),
        ("forward", forwarded(saw("input")), False),
        ("output", forwarded(saw("output")), False),
        ("output", forwarded(), True),
        ("output", taken(), True),
        ("output", NOWHERE, False),
        ("output", changed(forwarded(), sender="device"), False),
        ("output", changed(NOWHERE, sender="device"), False),
        ("postrouting", taken(), True),
        ("postrouting", taken(saw("forward")), False),
        ("postrouting", changed(taken(), sender="device"), False),
        ("prerouting", changed(forwarded(), sender="device"), True),
        ("prerouting", changed(taken(), sender="device"), False),
        ("prerouting", changed(NOWHERE, sender="device"), False),
        ("ingress", forwarded(), False),
        ("ingress", taken(), False),
        ("prerouting", forwarded(), False),
        ("postrouting", forwarded(), False),
        ("postrouting", dropped(saw("forward", "drop")), True),
        ("postrouting", dropped(at(saw("forward", "drop"), host="edge")), False),
        ("prerouting", dropped(saw("forward", "drop")), False),
    ],
)
def test_a_hook_is_missed(hook: str, packet: ObservedPacket, is_missed: bool) -> None:
    assert hooks.missed([base(f"inet f {hook}", hook)], packet, "device") == (hook if is_missed else "")


def test_all_of_several_hooks_are_missed() -> None:
    bases = [base("inet f input"), base("ip g input"), base("inet f output")]
    assert hooks.missed(bases, forwarded(), "device") == "input or output"
    assert hooks.missed([*bases, base("inet f forward")], forwarded(), "device") == ""
    assert hooks.missed([*bases, base("bridge f input")], forwarded(), "device") == ""
    assert hooks.missed([], forwarded(), "device") == ""
