"""Processes during which the kernel calls no BPF program at a tracepoint, and does not count that.

A mainline kernel has none. Some providers' kernels have: while such a process runs, a packet that an interrupt brings
to that CPU is seen by no program (docs/reliability.md). They are found by sched_switch, which is called in the process
that a CPU switches from: any other process is switched from about as often as to::

    python -m tests.hidden --seconds 10     # as root

It prints those that were only switched to, and ends with status 1 if there are any.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from harness.cache import cache_dir
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.program import SOURCES

LEAST = 10
"""Fewer switches prove nothing: the time may begin or end in the middle."""

PROGRAM = """
BPF_HASH(to, u32, u64, 16384);
BPF_HASH(from, u32, u64, 16384);

int sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u32 current = bpf_get_current_pid_tgid() >> 32, next = 0;

	bpf_probe_read_kernel(&next, sizeof(next), (void *)(ctx->args[2] + TASK_TGID));
	from.increment(current);
	to.increment(next);
	return 0;
}
"""


class Switches(NamedTuple):
    """How often CPUs have switched to a process and from it."""

    to: int
    come_from: int

    @property
    def hidden(self) -> bool:
        """Whether programs are not called while it runs."""
        return self.to >= LEAST and not self.come_from


def switches(seconds: float) -> dict[int, Switches]:
    """Those of all processes in the next ``seconds``, by process ID (of the initial namespace)."""
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "shim")
    from bcc import BPF

    offset = KernelCache(cache_dir()).survey.layout().offset("task_struct", "tgid")
    with BPF(text=PROGRAM, cflags=[f"-DTASK_TGID={offset}"]) as program:
        program.attach_raw_tracepoint(tp=b"sched_switch", fn_name=b"sched_switch")
        time.sleep(seconds)
        program.detach_raw_tracepoint(tp=b"sched_switch")
        to, come_from = ({pid.value: count.value for pid, count in program[name].items()} for name in (b"to", b"from"))
    return {pid: Switches(to.get(pid, 0), come_from.get(pid, 0)) for pid in {*to, *come_from}}


def main() -> int:
    parser = argparse.ArgumentParser(description="Find processes during which no program at a tracepoint is called.")
    parser.add_argument("--seconds", type=float, default=10)
    hidden = {pid: seen for pid, seen in switches(parser.parse_args().seconds).items() if seen.hidden}
    for pid, seen in hidden.items():
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        print(f"process {pid} ({name}): switched to {seen.to} times, and never from it")
    return 1 if hidden else 0


if __name__ == "__main__":
    sys.exit(main())
