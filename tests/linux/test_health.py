"""What the kernel complains of in its log, and by its taint."""

from __future__ import annotations

import os
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


@pytest.mark.kernel
def test_what_the_log_says_while_a_lab_is_up_breaks_the_measurement(tmp_path: Path) -> None:
    if not in_guest():
        pytest.skip("the log of this machine's own kernel may be another's")
    (tmp_path / "pytest.ini").touch()
    file = tmp_path / "t.nft"
    file.write_text("table inet t {\n}\n")
    lab = Network.of(LABS["host"]), {"device": Files((file,), find((file,)))}
    complaint = "the guest's kernel complained: INFO: task .* blocked for more than"
    with pytest.raises(BrokenMeasurement, match=complaint), built(*lab):
        block_a_task()
    with built(*lab):
        pass
