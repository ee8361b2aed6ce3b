"""Engines are ways to the same events: each sees the same scenario in the same way."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cache import cache_dir
from harness.errors import Unsupported
from harness.experiment.run import Measurement, run
from harness.linux import bpf, features
from harness.reading.decision import outcome
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer import engines, program
from harness.tracer.base import BaseTracer
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.stacks import Stacks
from harness.tracer.tracer import Tracer
from harness.tracer.traits import NOTIFY

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
def kept() -> KernelCache:
    return KernelCache(cache_dir())


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case for case in load(EDGE) if isinstance(case, Case)]


def everywhere(kept: KernelCache) -> Iterator[BaseTracer]:
    """A tracer by each engine of this kernel."""
    for engine in engines.ENGINES:
        try:
            with Few(kept, engine=engine.name) as tracer:
                assert not tracer.refused
                yield tracer
        except Unsupported as refused:
            assert engine.name in str(refused)  # noqa: PT017
    with Stacks(kept) as stacks:
        yield stacks


@pytest.fixture(scope="module")
def measurements(kept: KernelCache, cases: list[Case]) -> dict[str, list[Measurement]]:
    """Packets that are accepted, dropped and rejected, as each engine saw them."""
    return {
        tracer.engine_name: [measurement for case in cases[:3] for measurement in run(case, tracer)]
        for tracer in everywhere(kept)
    }


def way(measurement: Measurement, among: Collection[str]) -> list[tuple[str, str]]:
    """Host and function of the hops whose function is ``among``."""
    return [(hop.host, hop.function) for hop in measurement.packet.hops if hop.function in among]


def in_order(wanted: list[tuple[str, str]], seen: list[tuple[str, str]]) -> bool:
    rest = iter(seen)
    return all(hop in rest for hop in wanted)


def test_all_come_to_the_same_decision(measurements: dict[str, list[Measurement]]) -> None:
    first, *others = (
        [
            (
                str(outcome(measurement.packet, "device")),
                [(step.chain_path, step.verdict, step.rule) for step in measurement.packet.steps],
                [(arrival.host, arrival.frame) for arrival in measurement.packet.deliveries],
                measurement.packet.drop,
                [reply.frame[26:] for reply in measurement.observation.replies],
            )
            for measurement in seen
        ]
        for seen in measurements.values()
    )
    assert [decision for decision, *_ in first] == ["accept", "drop", "reject with tcp reset"]
    assert all(other == first for other in others)


def test_all_tell_the_same_way(measurements: dict[str, list[Measurement]]) -> None:
    probes = [seen for engine, seen in measurements.items() if engine != engines.TRACEPOINTS]
    for one in zip(*probes, strict=True):
        armed = frozenset.intersection(*(measurement.observation.traced for measurement in one))
        first, *others = (way(measurement, armed) for measurement in one)
        assert {"ip_rcv", "nf_hook_slow", "nft_do_chain"} <= {function for _, function in first}
        assert all(other == first for other in others)


def test_stacks_tell_a_part_of_it(
    kept: KernelCache, cases: list[Case], measurements: dict[str, list[Measurement]]
) -> None:
    with Tracer(kept) as tracer:
        for case, partly in zip(cases, measurements[engines.TRACEPOINTS], strict=False):
            (whole,) = run(case, tracer)
            seen = way(partly, whole.observation.traced - {"consume_skb", "skb_copy_datagram_iter"})
            assert len(seen) > 5
            assert in_order([hop for hop in seen if hop[0]], way(whole, whole.observation.traced))
            assert not partly.observation.whole


def test_auto_takes_the_best(kept: KernelCache, measurements: dict[str, list[Measurement]]) -> None:
    with Tracer(kept) as tracer:
        assert tracer.engine.name == next(iter(measurements))


def test_a_program_that_the_kernel_refuses_ends_in_words(monkeypatch: pytest.MonkeyPatch, kept: KernelCache) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    with Tracer(kept) as tracer:  # what it starts with is loaded
        monkeypatch.setattr(bpf, "load_program", refuse)
        with pytest.raises(Unsupported, match=r"refuses the tracer's program: Argument list too long"):
            tracer.arm()
        assert tracer.half_armed
        monkeypatch.undo()
    with Tracer(kept) as tracer:
        tracer.arm()
        assert not tracer.half_armed


def enabled() -> list[str]:
    """The functions that something traces, each with the number of those who do: ``ip_rcv (1)``.

    Without those whose names others have as well, by which the kernel finds any of them.
    """
    names = Counter(line.split()[2] for line in Path("/proc/kallsyms").read_text().splitlines())
    lines = [line.split() for line in Path("/sys/kernel/tracing/enabled_functions").read_text().splitlines()]
    return sorted(" ".join(words[:2]) for words in lines if names[words[0]] == 1)


def wrong(addresses: list[int]) -> list[int]:
    """The last is no function's."""
    return [*addresses[:-1], addresses[-1] + 3]


@pytest.mark.parametrize("change", [lambda addresses: [0] * len(addresses), wrong], ids=["unknown", "wrong"])
def test_the_same_functions_are_traced_by_their_addresses_and_by_their_names(
    monkeypatch: pytest.MonkeyPatch, kept: KernelCache, change: Callable[[list[int]], list[int]]
) -> None:
    if not features.kprobe_multi():
        pytest.skip("this kernel has no kprobe.multi")
    before = enabled()
    linked = []
    link = bpf.link_functions

    def watched(program: int, functions: Sequence[str] | Sequence[int], *rest: Any, **options: Any) -> int:
        linked.extend(functions)
        return link(program, functions, *rest, **options)

    monkeypatch.setattr(bpf, "link_functions", watched)
    with Tracer(kept, engine="kprobe.multi") as tracer:
        tracer.arm()
        by_addresses = enabled()
        assert len(by_addresses) > 1000
        assert not tracer.refused
        assert not any(isinstance(one, str) for one in linked)
    assert enabled() == before
    find = program.LoadedProgram.addresses
    monkeypatch.setattr(program.LoadedProgram, "addresses", lambda self, names: change(find(self, names)))
    with Tracer(kept, engine="kprobe.multi") as tracer:
        tracer.arm()
        assert enabled() == by_addresses
        assert not tracer.refused
        assert any(isinstance(one, str) for one in linked)


def test_an_engine_that_the_kernel_lacks_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, kept: KernelCache
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(bpf, "link_functions", refuse)
    with pytest.raises(Unsupported, match=r"refuses .* by kprobe.multi \(Operation .*; leave out --nft-tracer"):
        Tracer(kept, engine="kprobe.multi")
