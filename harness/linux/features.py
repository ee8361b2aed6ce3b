"""What the running kernel can do, determined by trying it.

Each answer comes with its reason and is determined once per process. Lists and configuration files are not
consulted: a kernel may list a program type and still refuse it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from harness.errors import Unsupported
from harness.linux import bpf

SOME_FUNCTION = "ip_rcv"
"""Every kernel with IPv4 has it, so a probe on it must work if any does."""


class Support(NamedTuple):
    """Whether the kernel can do something, and why not."""

    able: bool
    reason: str = ""

    def require(self, remedy: str) -> None:
        """Raise :class:`Unsupported` with the reason and ``remedy`` unless the kernel can."""
        if not self.able:
            raise Unsupported(self.reason, remedy=remedy)


def _attach(
    attach_type: int, attach: Callable[[int], tuple[int, ...]], what: str, *, kind: int = bpf.PROG_TYPE_KPROBE
) -> Support:
    try:
        program = bpf.load_nothing(attach_type, kind=kind)
    except OSError as error:
        return Support(False, f"BPF programs cannot be loaded ({error.strerror})")
    try:
        descriptors = attach(program)
    except FileNotFoundError:
        return Support(False, f"the kernel has no {what}")
    except OSError as error:
        return Support(False, f"the kernel refuses {what} ({error.strerror})")
    finally:
        os.close(program)
    for descriptor in descriptors:
        os.close(descriptor)
    return Support(True)


@functools.cache
def kprobe_multi() -> Support:
    """Many functions by one link (CONFIG_FPROBE, from v5.18)."""
    return _attach(
        bpf.TRACE_KPROBE_MULTI,
        lambda program: (bpf.link_functions(program, [SOME_FUNCTION], [0]),),
        "probes on many functions (kprobe.multi)",
    )


@functools.cache
def kprobe() -> Support:
    """One function by a probe of its own (CONFIG_KPROBES)."""
    return _attach(0, lambda program: bpf.link_function(program, SOME_FUNCTION, 0), "kprobes")


TRACEPOINTS = "tracepoints"
"""Name of the engine without probes on functions, for ``--nft-tracer``."""


@functools.cache
def tracepoints() -> Support:
    """The stack at tracepoints with a packet can be read."""
    return _attach(
        0,
        lambda program: (bpf.open_raw_tracepoint(program, "consume_skb"),),
        "tracepoints of packets",
        kind=bpf.PROG_TYPE_RAW_TRACEPOINT,
    )


@functools.cache
def function_probes() -> Support:
    """Functions can be traced in one of the ways above."""
    if kprobe_multi().able or kprobe().able:
        return Support(True)
    if os.geteuid() != 0 and not effective() >> CAP_SYS_ADMIN & 1:
        return Support(False, "tracing the host's kernel needs root")
    if mode := lockdown():
        return Support(False, f"the host's kernel is locked down ({mode}) and cannot be traced")
    return Support(False, "the host's kernel has no function probes")


CAP_SYS_ADMIN = 21


def effective() -> int:
    """The effective capabilities of this process, a bit for each (proc(5), "CapEff")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)


LOCKDOWN = Path("/sys/kernel/security/lockdown")


def lockdown() -> str:
    """The lockdown mode of the kernel, if it forbids tracing; otherwise "".

    In "confidentiality" mode kprobes and reads of kernel memory by BPF are refused (kernel_lockdown(7)).
    """
    with suppress(OSError):
        if "[confidentiality]" in LOCKDOWN.read_text():
            return "confidentiality"
    return ""
