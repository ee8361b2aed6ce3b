"""Which worker of pytest-xdist runs what when there are several kernels: every test once on each of them.

Each kernel has a scheduler of xdist's, as ``--dist`` says, which shares the tests among the workers of that kernel
and knows of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import WorkerController


class EachKernel:
    """A scheduler of xdist's (``xdist.scheduler.protocol.Scheduling``) made of one for each kernel."""

    def __init__(self, schedulers: Sequence[Scheduling], copies: int, place: Callable[[str], int]) -> None:
        """``copies`` are the workers of each kernel, ``place`` says the number of a worker's kernel by its name."""
        self._schedulers = schedulers
        self._place = place
        self._crashed: Scheduling | None = None
        for one in schedulers:
            one.numnodes = copies  # it has counted the workers of all kernels

    def _of(self, node: WorkerController) -> Scheduling:
        return self._schedulers[self._place(node.gateway.id)]

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers of all kernels."""
        return [node for one in self._schedulers for node in one.nodes]

    @property
    def collection_is_completed(self) -> bool:
        """Whether the workers of all kernels have collected."""
        return all(one.collection_is_completed for one in self._schedulers)

    @property
    def tests_finished(self) -> bool:
        """Whether no kernel has tests left that are not with a worker."""
        return all(one.tests_finished for one in self._schedulers)

    @property
    def has_pending(self) -> bool:
        """Whether any kernel has tests left."""
        return any(one.has_pending for one in self._schedulers)

    def add_node(self, node: WorkerController) -> None:
        """A worker is up."""
        self._of(node).add_node(node)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """A worker has collected."""
        self._of(node).add_node_collection(node, collection)

    def schedule(self) -> None:
        """All have collected: start."""
        for one in self._schedulers:
            one.schedule()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """A worker has ended a test."""
        self._of(node).mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        """Run a test again, on the kernel on which it crashed: xdist says that of no other."""
        if self._crashed:
            self._crashed.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """A worker has given tests back."""
        self._of(node).remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker has ended; the test that it crashed in, if any."""
        self._crashed = self._of(node)
        crashed: str | None = self._crashed.remove_node(node)
        return crashed
