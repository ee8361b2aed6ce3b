"""What the kernel complains of in its log, and by its taint."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from harness.errors import BrokenMeasurement
from harness.linux import health
from harness.project import find
from harness.ruleset.hosts import built
from harness.scenario.case import Files
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.vm.port import in_guest
from harness.wait import wait_until

COMPLAINTS = [
    "WARNING: CPU: 0 PID: 1 at net/core/dev.c:3010 skb_warn_bad_offload+0x5d/0x70",
    "WARNING: net/netfilter/core.c:512 at nf_hook_slow+0x10/0x20, CPU#0: python3/210",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "BUG: KASAN: slab-use-after-free in nft_do_chain+0x10/0x20",
    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1]",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "INFO: task kworker/u2:1:42 blocked for more than 120 seconds.",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [python3:210]",
    "unregister_netdevice: waiting for wan0 to become free. Usage count = 2",
    "UBSAN: array-index-out-of-bounds in net/netfilter/nft_set_rbtree.c:1:2",
]
QUIET = [
    "IPv6: ADDRCONF(NETDEV_CHANGE): wan0: link becomes ready",
    "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:",
    "hrtimer: interrupt took 12345678 ns",
    "nf_conntrack: default automatic helper assignment has been turned off for security reasons",
]


@pytest.mark.parametrize("line", COMPLAINTS)
def test_a_complaint_and_what_follows_are_shown(line: str) -> None:
    assert list(health._from_first([*QUIET, line, "Call Trace:"])) == [line, "Call Trace:"]


def test_other_messages_are_no_complaints() -> None:
    assert not list(health._from_first(QUIET))


def test_what_programs_write_into_the_log_is_not_the_kernels() -> None:
    assert health.line_of(b"4,1000,5000000,-;WARNING: CPU: 0\n SUBSYSTEM=net\n") == "WARNING: CPU: 0"
    assert health.line_of(b"12,1000,5000000,-;WARNING: CPU: 0\n") == ""


@pytest.mark.kernel
def test_new_taint_breaks_the_measurement_and_what_was_there_does_not(tmp_path: Path) -> None:
    if not in_guest():
        pytest.skip("the taint of this machine's own kernel is not touched")
    (tmp_path / "pytest.ini").touch()
    file = tmp_path / "t.nft"
    file.write_text("table inet t {\n}\n")
    lab = Network.of(LABS["host"]), {"device": Files((file,), find((file,)))}
    with (
        pytest.raises(BrokenMeasurement, match="the guest's kernel complained: the kernel is tainted by a warning"),
        built(*lab),
    ):
        Path("/proc/sys/kernel/tainted").write_text("512")
    with built(*lab):
        pass


def block_a_task() -> None:
    """Have a thread wait, uninterruptibly, for another that reads the same file, until the kernel complains of that.

    Reading /proc/kmsg waits for the next message with the position of the file locked (fdget_pos() in fs/file.c).
    """

    def read() -> None:
        while not ended.is_set():
            os.read(kmsg, health.RECORD)

    ended = Event()
    log = health.KernelLog()
    kmsg = os.open("/proc/kmsg", os.O_RDONLY)
    seconds = Path("/proc/sys/kernel/hung_task_timeout_secs")
    before = seconds.read_text()
    readers = [Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        seconds.write_text("1")
        wait_until(log.complaints, 20, "the kernel to notice a task that is blocked")
    finally:
        seconds.write_text(before)
        ended.set()
        for reader in readers:
            while reader.is_alive():
                Path(health.LOG).write_text("the next message\n")
                reader.join(0.1)
        os.close(kmsg)


def allocate_too_much() -> None:
    """Have the kernel allocate more at once than it can, of which it warns once: 16 MiB of ancillary data.

    sock_kmalloc() in net/core/sock.c looks at net.core.optmem_max only, and __alloc_pages() in mm/page_alloc.c has a
    WARN_ON_ONCE for what is larger than the largest block.
    """
    with (
        written({"/proc/sys/net/core/optmem_max": str(64 << 20)}),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
        pytest.raises(OSError, match="No buffer space available"),
    ):
        sending.sendmsg([b""], [(socket.SOL_SOCKET, 1, bytes(16 << 20))], 0, ("127.0.0.1", 9))


STALL = {
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout": "3",
    "/proc/sys/kernel/sched_rt_runtime_us": "-1",
    "/sys/kernel/debug/sched/fair_server/cpu0/runtime": "0",  # from Linux 6.12 on
}


def starve_rcu() -> None:
    """Have no thread of the kernel run for six seconds, so that RCU's grace period does not end.

    See Documentation/RCU/stallwarn.rst: "A CPU-bound real-time task".
    """
    if not os.path.ismount("/sys/kernel/debug"):
        subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], check=True)
    log = health.KernelLog()
    with written(STALL):
        if not (child := os.fork()):
            while True:  # grace periods are wanted all the time
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        try:
            time.sleep(0.3)
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
            end = time.monotonic() + 6
            while time.monotonic() < end:
                pass
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if not log.complaints():
        pytest.skip("this kernel's RCU was not starved by a real-time task")


@contextmanager
def written(settings: dict[str, str]) -> Iterator[None]:
    """Within, the files of the kernel that are there have this content."""
    there = {Path(name): text for name, text in settings.items() if Path(name).exists()}
    before = {path: path.read_text() for path in there}
    try:
        for path, text in there.items():
            path.write_text(text)
        yield
    finally:
        for path, text in reversed(before.items()):  # real-time tasks may have all only without the fair server
            path.write_text(text)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("provoke", "complaint"),
    [
        (block_a_task, "INFO: task .* blocked for more than"),
        (allocate_too_much, r"WARNING: .*mm/page_alloc\.c"),
        (starve_rcu, r"rcu: INFO: rcu_\w+ (?:self-)?detected"),
    ],
)
def test_what_the_log_says_while_a_lab_is_up_breaks_the_measurement(
    provoke: Callable[[], None], complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not in_guest():
        pytest.skip("the log of this machine's own kernel may be another's")
    (tmp_path / "pytest.ini").touch()
    file = tmp_path / "t.nft"
    file.write_text("table inet t {\n}\n")
    lab = Network.of(LABS["host"]), {"device": Files((file,), find((file,)))}
    with pytest.raises(BrokenMeasurement, match=f"the guest's kernel complained: {complaint}"), built(*lab):
        provoke()
    assert "the kernel's log:" in capfd.readouterr().err
    with built(*lab):
        pass
