"""The virtual machine: QEMU's arguments and its process.

A machine is *booted* from a kernel and an initramfs, *saved* with its memory in a file, or *restored* from both files.
QEMU restores only into the machine that was saved, so the three share every argument that is not about that.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.vm import tsc
from harness.vm.accelerator import qemu

_COMMAND_LINE = " ".join(
    [
        # What the kernel prints is for one who looks for the cause of a failure: little, and at once.
        "console=ttyS0 quiet panic=-1 oops=panic reboot=t",
        # Nobody attacks this guest. Emulated, every guard costs time (boot: 4.8 s of CPU without this line, 3.4 with).
        "mitigations=off lsm= audit=0 init_on_alloc=0 nokaslr norandmaps cryptomgr.notests",
        # The test of the timer gives up, and panics, when the host is busy for its 10 ticks.
        "no_timer_check",
        # It is the host's TSC; a busy host makes the kernel doubt it, and any other clock is an exit to QEMU.
        "tsc=reliable",
        # Removing a namespace or detaching a probe waits for several grace periods.
        "rcupdate.rcu_expedited=1",
        # What a timer or a device sends is then sent by a thread, never on top of a BPF program that it interrupted,
        # where the kernel skips programs (kprobe_multi_link_prog_run in kernel/trace/bpf_trace.c).
        "threadirqs",
    ]
)

# Not the smaller "microvm": its only clock is a TSC that Linux has to calibrate by the timer interrupt, and on
# a busy host it hangs there. Both take the same time to boot.
MACHINE = "q35,sata=off,smbus=off,usb=off,vmport=off"

# Emulated, a string instruction works byte by byte, and each level of the page tables is walked in software.
CPU = {"kvm": "host", "tcg": "max,la57=off,erms=off,fsrm=off"}

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def kernel_command_line(accelerator: str) -> str:
    """The kernel's parameters. Source: Linux Documentation/admin-guide/kernel-parameters.txt."""
    rate = tsc.frequency() if accelerator == "tcg" else None
    return f"{_COMMAND_LINE} tsc_early_khz={rate}" if rate else _COMMAND_LINE


def machine(accelerator: str, memory: int, cpus: int, *, ram: Path | None = None, share: bool = False) -> list[str]:
    """QEMU and the arguments that make its CPU and memory, of ``memory`` MiB.

    The memory is in the file ``ram``, if given: with ``share`` what the guest writes goes into the file, otherwise
    into a private copy.
    """
    options = MACHINE if ram is None else f"{MACHINE},memory-backend=ram"
    backend = f"memory-backend-file,id=ram,size={memory}M,mem-path={ram},share={'on' if share else 'off'}"
    return [
        *(qemu(), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", options, "-accel", accelerator, "-cpu", CPU[accelerator], "-smp", str(cpus), "-m", str(memory)),
        *(("-object", backend) if ram else ()),
    ]


def devices(console: int, ports: Mapping[str, int | None], monitor: int | None = None) -> list[str]:
    """The host's files, a serial console, and ports with their names.

    The console is a file, each port a connected socket that QEMU inherits; what is written to one that is None is
    lost. QEMU takes commands from the socket ``monitor``.
    """
    share = "local,id=host,path=/,readonly=on,security_model=none,multidevs=remap"
    words = ["-chardev", f"file,id=console,append=on,path=/dev/fd/{console}", "-serial", "chardev:console"]
    words += ["-fsdev", share, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "virtio-serial-pci"]
    for name, fd in ports.items():
        words += ["-chardev", f"null,id={name}" if fd is None else f"socket,id={name},fd={fd}"]
        words += ["-device", f"virtserialport,chardev={name},name={name}"]
    if monitor is not None:
        words += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
    return words


@contextmanager
def running(command: Sequence[str], *, inherit: Sequence[int], output: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, or with us."""
    process = subprocess.Popen(
        command,
        pass_fds=[output, *inherit],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # the terminal's Ctrl-C is for us
        preexec_fn=functools.partial(die_with, os.getpid()),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which started it, ends or has already ended.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def memory_file(name: str, content: bytes = b"") -> int:
    """A descriptor of a file without a name in any folder."""
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd


def text(fd: int) -> str:
    """What a console's file holds."""
    content = os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
    return content.replace("\r", "").replace("\0", "")


def panic(fd: int) -> str:
    """Why the kernel panicked, from a console's file; "" where it did not (panic() in kernel/panic.c)."""
    found = re.search(r"Kernel panic - not syncing: (.*)", text(fd))
    return f"kernel panic, {found[1]}" if found else ""
