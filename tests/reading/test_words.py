"""Steps, hops, path entries and loss in words."""

from __future__ import annotations

import pytest

from harness.model.observation import Counted, Hop, Loss, Step
from harness.reading import words
from harness.scenario.models.expect import HopDetail, PathEntry
from tests.builders import at, hop, rule, step


def test_a_chain_of_another_host_is_named_with_it() -> None:
    here = step("accept")
    assert words.describe_chain(here, "device") == "inet filter forward"
    assert words.describe_chain(at(here, host="edge"), "device") == "edge: inet filter forward"


@pytest.mark.parametrize(
    ("one", "decided"),
    [
        (step("drop"), "inet filter forward, policy drop"),
        (step("drop", rule("drop", line=4)), "inet filter forward, rulesets/edge.nft:4"),
        (step("drop", at(rule("drop"), position=None)), "inet filter forward, drop"),
        (at(step("drop"), kind="rule"), "inet filter forward, drop"),
    ],
)
def test_who_decided(one: Step, decided: str) -> None:
    assert words.describe_decision(one) == decided


def test_an_errno_has_its_meaning_where_there_is_one() -> None:
    assert words.describe_errno("ENETUNREACH") == "ENETUNREACH (Network is unreachable)"
    assert words.describe_errno("ENOSUCHTHING") == "ENOSUCHTHING"
    assert words.describe_errno("errorcode") == "errorcode"


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (hop("ip_rcv"), "ip_rcv"),
        (hop("nft_do_chain", chain="inet f c", hook="forward", verdict="drop"), "nft_do_chain inet f c → drop"),
        (hop("nf_hook_slow", hook="forward"), "nf_hook_slow forward"),
        (hop("kfree_skb", reason="NO_SOCKET"), "kfree_skb NO_SOCKET"),
    ],
)
def test_a_hop(one: Hop, said: str) -> None:
    assert words.describe_hop(one) == said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("ip_rcv|ipv6_rcv", "ip_rcv | ipv6_rcv"),
        ({"nft_do_chain": HopDetail(chain="inet f c", verdict="drop")}, "nft_do_chain inet f c → drop"),
        ({"ip_rcv": HopDetail(device="eth0", host="server")}, "ip_rcv device eth0 on server"),
    ],
)
def test_an_expected_function(entry: PathEntry, said: str) -> None:
    assert words.describe_entry(entry) == said


def test_losses_are_listed_by_cpu_where_there_are_several() -> None:
    cpus = {0: Counted(entered=5, refused=2, untracked=0), 1: Counted(entered=9, refused=0, untracked=1)}
    line = "3 of 14 events (refused 2, missed 0, trace 0, not followed 1"
    assert words.describe_loss(Loss(entered=14, received=12, refused=2, untracked=1, cpus=cpus)) == (
        f"{line}, CPU 0: 2 of 5, CPU 1: 1 of 9)"
    )
    assert words.describe_loss(Loss(entered=14, received=12, refused=2, untracked=1, cpus={0: cpus[0]})) == f"{line})"
    assert words.describe_loss(Loss(entered=14, received=14, cpus=cpus)) == (
        "0 of 14 events (refused 0, missed 0, trace 0)"
    )


MICROVM = "run it on Linux 6.12 in a microVM (--nft-kernel 6.12), where no softirq interrupts a probe"
FEWER = "send fewer packets at once"


def test_one_event_is_no_events() -> None:
    assert words.describe_loss(Loss(entered=1, missed=1, received=1)) == "1 of 1 event (refused 0, missed 1, trace 0)"
    assert words.describe_loss(Loss(entered=2, received=2)) == "0 of 2 events (refused 0, missed 0, trace 0)"


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (Loss(entered=5, received=4, refused=1), ("enlarge it", "trace less")),
        (Loss(entered=5, received=4), ("enlarge it", "trace less")),  # unaccounted
        (Loss(missed=2), (MICROVM,)),
        (Loss(untracked=1), (FEWER,)),
        (Loss(trace=1), (FEWER,)),
        (Loss(entered=5, received=4, refused=1, trace=1), ("enlarge it", "trace less", FEWER)),
        (Loss(entered=5, received=5), ()),
    ],
)
def test_each_channel_of_loss_has_its_remedy(loss: Loss, named: tuple[str, ...]) -> None:
    assert words.loss_remedy(loss, ("enlarge it", "trace less")) == ", or ".join(named)


def test_the_remedy_for_a_full_buffer_is_the_engines() -> None:
    loss = Loss(entered=5, received=4, refused=1)
    assert "--nft-buffer" in words.loss_remedy(loss, words.against_full("kprobe.multi"))
    assert "--nft-tracer kprobe" in words.loss_remedy(loss, words.against_full("kprobe.multi"))
    for engine in ("kprobe", "fentry", "tracepoints"):  # those trace few functions already, or none
        assert "--nft-tracer" not in words.loss_remedy(loss, words.against_full(engine))
