"""Engines are ways to the same events: each sees the same scenario in the same way."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.judge import outcome
from harness.kernel import bpf
from harness.kernel.cache import cache_dir
from harness.run import Sight, run
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer import attach
from harness.tracer.kept import Kept
from harness.tracer.stacks import Stacks
from harness.tracer.tracer import NOTIFY, Recorder, Tracer

pytestmark = pytest.mark.kernel

EDGE = Path(__file__).parents[2] / "scenarios/edge.yaml"
FEW = frozenset(
    {NOTIFY, "packet_rcv", "skb_clone", "skb_release_head_state", "kfree_skbmem", "__dev_queue_xmit", "ip_rcv"}
    | {"nf_hook_slow", "nft_do_chain", "nft_do_chain_inet", "ip_forward", "ip_output", "__netif_receive_skb_core"}
)
"""What a scenario cannot be seen without, and some of the way: to detach a kprobe takes a tenth of a second in an
emulated CPU."""


class Few(Tracer):
    """A tracer that arms few functions."""

    def arm(self, named: Collection[str] = ()) -> None:
        if not self.functions:
            self.arm_only(self.known().named(FEW))


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept(cache_dir())


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case for case in load(EDGE) if isinstance(case, Case)]


def everywhere(kept: Kept) -> Iterator[Recorder]:
    """A tracer by each engine of this kernel."""
    for engine in attach.ENGINES:
        try:
            with Few(kept, engine=engine.name) as tracer:
                assert not tracer.refused
                yield tracer
        except Unsupported as refused:
            assert engine.name in str(refused)  # noqa: PT017
    with Stacks(kept) as stacks:
        yield stacks


@pytest.fixture(scope="module")
def sights(kept: Kept, cases: list[Case]) -> dict[str, list[Sight]]:
    """Packets that are accepted, dropped and rejected, as each engine saw them."""
    return {
        tracer.engine_name: [sight for case in cases[:3] for sight in run(case, tracer)] for tracer in everywhere(kept)
    }


def way(sight: Sight, among: Collection[str]) -> list[tuple[str, str]]:
    """Host and function of the hops whose function is ``among``."""
    return [(hop.host, hop.function) for hop in sight.packet.hops if hop.function in among]


def in_order(wanted: list[tuple[str, str]], seen: list[tuple[str, str]]) -> bool:
    rest = iter(seen)
    return all(hop in rest for hop in wanted)


def test_all_come_to_the_same_decision(sights: dict[str, list[Sight]]) -> None:
    first, *others = (
        [
            (
                str(outcome(sight.packet, "device")),
                [(step.chain_path, step.verdict, step.rule) for step in sight.packet.steps],
                [(arrival.host, arrival.frame) for arrival in sight.packet.deliveries],
                sight.packet.drop,
                [reply.frame[26:] for reply in sight.observation.replies],
            )
            for sight in seen
        ]
        for seen in sights.values()
    )
    assert [decision for decision, *_ in first] == ["accept", "drop", "reject with tcp reset"]
    assert all(other == first for other in others)


def test_all_tell_the_same_way(sights: dict[str, list[Sight]]) -> None:
    probes = [seen for engine, seen in sights.items() if engine != attach.TRACEPOINTS]
    for one in zip(*probes, strict=True):
        armed = frozenset.intersection(*(sight.observation.traced for sight in one))
        first, *others = (way(sight, armed) for sight in one)
        assert {"ip_rcv", "nf_hook_slow", "nft_do_chain"} <= {function for _, function in first}
        assert all(other == first for other in others)


def test_stacks_tell_a_part_of_it(kept: Kept, cases: list[Case], sights: dict[str, list[Sight]]) -> None:
    with Tracer(kept) as tracer:
        for case, partly in zip(cases, sights[attach.TRACEPOINTS], strict=False):
            (whole,) = run(case, tracer)
            seen = way(partly, whole.observation.traced - {"consume_skb", "skb_copy_datagram_iter"})
            assert len(seen) > 5
            assert in_order([hop for hop in seen if hop[0]], way(whole, whole.observation.traced))
            assert not partly.observation.whole


def test_auto_takes_the_best(kept: Kept, sights: dict[str, list[Sight]]) -> None:
    with Tracer(kept) as tracer:
        assert tracer.engine.name == next(iter(sights))


def test_an_engine_that_the_kernel_lacks_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, kept: Kept) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(bpf, "link_functions", refuse)
    with pytest.raises(Unsupported, match=r"refuses .* by kprobe.multi \(Operation .*; leave out --nft-tracer"):
        Tracer(kept, engine="kprobe.multi")
