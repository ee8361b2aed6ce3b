"""What compares shuffled runs finds what is another, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from harness.model.observation import Flow, Step, Verdict
from harness.model.result import Result
from tests import isolation


def test_times_and_processors_are_no_difference(make_result: Callable[..., Result]) -> None:
    one = make_result()
    (sent,) = one.sent
    (packet,) = sent.observation.packets
    hops = tuple(msgspec.structs.replace(hop, time=hop.time + 7, cpu=1) for hop in packet.hops)
    packet = msgspec.structs.replace(packet, hops=hops, born=12)
    observation = msgspec.structs.replace(sent.observation, packets=(packet,))
    other = msgspec.structs.replace(one, sent=(msgspec.structs.replace(sent, observation=observation),), seconds=2.0)
    assert list(isolation.different([one], [other])) == []


def test_another_way_another_outcome_and_a_missing_scenario_are_named(make_result: Callable[..., Result]) -> None:
    one = make_result()
    (sent,) = one.sent
    (packet,) = sent.observation.packets
    shorter = msgspec.structs.replace(packet, hops=packet.hops[:-1])
    observation = msgspec.structs.replace(sent.observation, packets=(shorter,))
    other = msgspec.structs.replace(one, sent=(msgspec.structs.replace(sent, observation=observation),))
    (named,) = isolation.different([one], [other])
    assert named.startswith(f"{one.id}:\n  in order  (('{packet.hops[-1].host}'")
    assert list(isolation.different([one], [make_result(outcome="failed")])) == [
        f"{one.id}:\n  in order  passed\n  shuffled  failed"
    ]
    assert list(isolation.different([one], [])) == [f"{one.id}: only in the run in order"]


def with_functions(one: Result, *functions: str) -> Result:
    (sent,) = one.sent
    (packet,) = sent.observation.packets
    hops = tuple(msgspec.structs.replace(packet.hops[0], function=name) for name in functions)
    packet = msgspec.structs.replace(packet, hops=hops)
    observation = msgspec.structs.replace(sent.observation, packets=(packet,))
    return msgspec.structs.replace(one, sent=(msgspec.structs.replace(sent, observation=observation),))


@pytest.mark.parametrize(
    ("before", "after", "differ"),
    [
        (("a", "encrypt_packet", "b"), ("encrypt_packet", "b", "skb_free_head", "a"), False),
        (("a", "encrypt_packet", "b"), ("a", "encrypt_packet", "c"), True),
        (("a", "encrypt_packet"), ("a",), True),
        (("a", "b"), ("b", "a"), True),
        (("a", "b"), ("a", "skb_free_head", "b"), True),
        (("a", "fib_multipath_hash", "b"), ("a", "fib_multipath_hash", "c"), False),
        (("a", "fib_multipath_hash"), ("a",), True),
    ],
)
def test_only_threads_and_the_hash_of_next_hops_may_change_the_functions(
    make_result: Callable[..., Result], before: tuple[str, ...], after: tuple[str, ...], differ: bool
) -> None:
    one = make_result()
    found = list(isolation.different([with_functions(one, *before)], [with_functions(one, *after)]))
    assert bool(found) is differ


def test_a_path_chosen_by_a_hash_is_compared_by_its_outcome(make_result: Callable[..., Result]) -> None:
    one = with_functions(make_result(), "fib_multipath_hash")
    (failed,) = isolation.different([one], [msgspec.structs.replace(one, outcome="failed")])
    assert "failed" in failed


TCP, UDP = (bytes(12) + b"\x08\x00" + bytes((0x45, 0, 0, 40, 0, 1, 0, 0, 64, proto)) + bytes(30) for proto in (6, 17))


@pytest.mark.parametrize(
    ("frame", "flow", "differ"),
    [
        pytest.param(TCP, True, False, id="a-stream"),
        pytest.param(UDP, True, True, id="a-datagram"),
        pytest.param(TCP, False, True, id="a-packet"),
    ],
)
def test_only_a_stream_may_be_cut_into_more_segments(
    make_result: Callable[..., Result], frame: bytes, flow: bool, differ: bool
) -> None:
    def cut(*segments: int, more: tuple[Step, ...] = ()) -> Result:
        one = make_result()
        (sent,) = one.sent
        packet = msgspec.structs.replace(
            sent.seen,
            frame=frame,
            steps=(*sent.seen.steps * len(segments), *more),
            deliveries=tuple(
                msgspec.structs.replace(sent.seen.deliveries[0], frame=bytes(segment)) for segment in segments
            ),
        )
        observation = msgspec.structs.replace(
            sent.observation, packets=(packet,), flow=Flow(result="answered", host="client") if flow else None
        )
        sent = msgspec.structs.replace(sent, observation=observation, decided=packet.steps)
        return msgspec.structs.replace(one, sent=(sent,))

    assert bool(list(isolation.different([cut(1514, 722)], [cut(1514, 1514, 722)]))) is differ
    refused = msgspec.structs.replace(make_result().sent[0].decided[0], verdict=Verdict.DROP)
    assert list(isolation.different([cut(1514, 722)], [cut(1514, 722, more=(refused,))]))


def test_a_seed_gives_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for seed in ("", "1", "1", "2"):
        monkeypatch.setenv(isolation.VARIABLE, seed)
        items: list[Any] = [*range(30)]
        isolation.pytest_collection_modifyitems(items)
        orders.append(items)
    in_order, first, again, second = orders
    assert in_order == [*range(30)]
    assert first == again
    assert first not in (in_order, second)
    assert sorted(first) == in_order
