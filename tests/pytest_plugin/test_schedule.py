"""Sharing tests among the workers of several kernels: xdist's schedulers are real, its workers are not."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from xdist import scheduler
from xdist.remote import Producer

from harness.pytest_plugin.schedule import EachKernel

TESTS = [f"scenarios/{file}.yaml::{number}" for file in "ab" for number in range(7)]


class Worker:
    """What a scheduler sees of a worker: it keeps the tests that it was sent until :meth:`work`."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.queue: list[int] = []
        self.ran: list[int] = []
        self.steal: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.queue += indices

    def send_steal(self, indices: list[int]) -> None:
        self.steal = indices

    def shutdown(self) -> None:
        self.shutting_down = True

    def work(self, sched: Any) -> bool:
        """Do what one turn of xdist's worker does: the last test is run only when another follows or no more comes."""
        if self.steal:
            given, self.steal = [one for one in self.steal if one in self.queue[1:]], []
            self.queue = [one for one in self.queue if one not in given]
            sched.remove_pending_tests_from_node(self, given)
            return True
        if len(self.queue) > 1 or (self.queue and self.shutting_down):
            self.ran.append(self.queue.pop(0))
            sched.mark_test_complete(self, self.ran[-1], 0.2)
            return True
        return False


def config(workers: int) -> Any:
    values = {"tx": ["popen"] * workers, "maxschedchunk": None}
    option = SimpleNamespace(loadscopereorder=True)
    return SimpleNamespace(getvalue=values.get, getoption=values.get, option=option)


def start(kind: str, kernels: int, copies: int) -> tuple[EachKernel, list[Worker]]:
    made = [getattr(scheduler, kind)(config(kernels * copies), Producer("", enabled=False)) for _ in range(kernels)]
    sched = EachKernel(made, copies, lambda name: int(name.partition("-")[0]))
    workers = [Worker(f"{kernel}-{copy}") for kernel in range(kernels) for copy in range(copies)]
    for worker in workers:
        sched.add_node(worker)  # type: ignore[arg-type]
    for worker in workers:
        assert not sched.collection_is_completed
        sched.add_node_collection(worker, TESTS)  # type: ignore[arg-type]
    assert sched.collection_is_completed
    sched.schedule()
    return sched, workers


KINDS = [
    *("LoadScheduling", "LoadFileScheduling", "LoadScopeScheduling", "LoadGroupScheduling", "WorkStealingScheduling")
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kernels", "copies"), [(2, 1), (2, 3), (3, 2), (2, 20)])
@pytest.mark.parametrize("slow", [0, -1], ids=["the first is slow", "the last is slow"])
def test_each_kernel_runs_every_test_once(kind: str, kernels: int, copies: int, slow: int) -> None:
    sched, workers = start(kind, kernels, copies)
    for turn in range(2000):
        moved = [worker.work(sched) for worker in workers if worker is not workers[slow] or turn % 7 == 0]
        if not any(moved) and turn % 7 == 0:
            break
    assert sched.tests_finished
    assert not sched.has_pending
    for kernel in range(kernels):
        mine = [worker for worker in workers if worker.gateway.id.startswith(f"{kernel}-")]
        assert Counter(one for worker in mine for one in worker.ran) == Counter(range(len(TESTS)))
        if kind == "LoadFileScheduling":
            assert all(len({one // 7 for one in worker.ran}) <= 1 for worker in mine) or copies == 1


def test_a_fast_kernel_does_not_wait_for_a_slow_one() -> None:
    sched, (fast, slow) = start("LoadScheduling", 2, 1)
    while fast.work(sched):
        pass
    assert len(fast.ran) == len(TESTS)
    assert fast.shutting_down
    assert not slow.ran
    assert not sched.tests_finished


def test_a_crash_concerns_its_own_kernel() -> None:
    sched, workers = start("LoadScheduling", 2, 2)
    assert sched.remove_node(workers[3]) == TESTS[workers[3].queue[0]]  # type: ignore[arg-type]
    assert workers[3] not in sched.nodes
    sched.mark_test_pending(TESTS[workers[3].queue[0]])
    others = workers[:3]
    while sum(worker.work(sched) for worker in others):
        pass
    assert sorted(workers[0].ran + workers[1].ran) == list(range(len(TESTS)))
    assert sorted(workers[2].ran) == list(range(len(TESTS)))
