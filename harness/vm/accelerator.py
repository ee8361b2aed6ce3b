"""What a guest's CPU is made of: KVM where that has been seen to work, else QEMU's emulator (TCG).

That ``/dev/kvm`` exists and opens says little: on some paravirtual hosts every guest then hangs. So
one is booted, with a deadline, and the answer is kept until the machine boots again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.cache import cache_dir, keep
from harness.errors import Unsupported
from harness.vm.kernel_image import Image

TRIAL_DEADLINE = 5.0
"""Seconds for a guest to come up by KVM; it takes less than one."""

_KVM = Path("/dev/kvm")


class Accelerator(NamedTuple):
    """How QEMU runs a guest."""

    name: str
    """``kvm`` or ``tcg``, as QEMU's option ``-accel`` has it."""
    reason: str
    """Why this one; part of a sentence."""


def qemu() -> str:
    """The path of QEMU. Raises :class:`Unsupported` when it is missing."""
    found = shutil.which("qemu-system-x86_64")
    if found is None:
        raise Unsupported("qemu-system-x86_64 is missing", remedy="run apt-get install qemu-system-x86")
    return found


def accelerator(image: Image) -> Accelerator:
    """The fastest accelerator that works here; the first call after a boot tries it with ``image``.

    Raises :class:`Unsupported` when QEMU is missing.
    """
    qemu()
    if not _KVM.exists():
        return Accelerator("tcg", f"there is no {_KVM}")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"{_KVM} is not open to this user")
    place = cache_dir() / "accelerator.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        # Not decoded as an Accelerator: where Ctrl-C comes while msgspec 0.22.0 looks at a type, it crashes.
        name, reason = msgspec.json.decode(place.read_bytes())[boot]
        return Accelerator(str(name), str(reason))
    except (OSError, msgspec.DecodeError, LookupError, TypeError, ValueError):
        found = _try_kvm(image)
    keep(place, msgspec.json.encode({boot: found}))
    return found


def _try_kvm(image: Image) -> Accelerator:
    from harness.vm.microvm import wrapper  # which asks us for an accelerator

    command = [*wrapper(), "--kernel", str(image.vmlinuz)]
    command += ["--accelerator", "kvm", "--deadline", str(TRIAL_DEADLINE), "--exec", "true"]
    start = time.monotonic()
    try:
        # The wrapper kills its QEMU at the deadline; should even that hang, we go on without it.
        trial = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=3 * TRIAL_DEADLINE)
    except subprocess.TimeoutExpired:
        return Accelerator("tcg", f"{_KVM} is there, but QEMU hangs with it")
    if trial.returncode == 0:
        return Accelerator("kvm", f"a trial guest ran within {time.monotonic() - start:.1f} s")
    return Accelerator("tcg", f"{_KVM} is there, but a trial guest did not come up with it in {TRIAL_DEADLINE:g} s")
