"""Python with root's capabilities for a user who is not root, by sudo: what runs scenarios on the host's kernel.

::

    execnet, or BatchSession
      └ python -m harness.vm.privileged       the user; whoever started it can end it
          └ sudo -n -- setpriv …               root; no Python
              └ keeper.py                      the user, with root's capabilities
                  └ python …                   the same: the worker

The worker keeps the user's id, so every file that it writes is the user's, and the user may send it signals. Root's
capabilities let it do what root may: load rulesets and BPF programs, make namespaces. Other processes of the user
cannot trace it (ptrace(2)): they lack these capabilities. See capabilities(7), "ambient"; setpriv(1); sudo(8), "-n".
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.errors import Unsupported
from harness.linux import features
from harness.linux.features import Support
from harness.vm import keeper, machine

OTHERWISE = "leave out --nft-kernel host (--kernel host) and a microVM is used"

SETPRIV = "/usr/bin/setpriv"
"""What sudo runs, of util-linux, which Debian always has."""

KPROBES = Path("/sys/bus/event_source/devices/kprobe")
"""There where the kernel has kprobes, for anybody to see (CONFIG_KPROBE_EVENTS; kernel/events/core.c)."""


class Privileged(msgspec.Struct, frozen=True):
    """What the host's kernel can do for a process with root's capabilities."""

    able: bool
    reason: str
    """Why it cannot."""
    many: bool
    """Whether it has kprobe.multi."""


def wrapper() -> list[str]:
    """The command that is Python with root's capabilities, and ends when this process does; its arguments follow."""
    return [sys.executable, "-m", __name__, "--parent", str(os.getpid())]


def ask(tracer: str) -> Privileged:
    """What the host's kernel can do with root's capabilities, to trace by ``tracer``: found out by doing it.

    Raises :class:`Unsupported` where sudo does not run a program without a question.
    """
    _sudo()
    asked = subprocess.run(
        [*wrapper(), "-m", __name__, "--ask", tracer],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        return msgspec.json.decode(asked.stdout, type=Privileged)
    except msgspec.MsgspecError:
        raise _refused(asked.stderr) from None


def could() -> str:
    """What to add where ``auto`` did not take the host's kernel; "" where sudo would not help. Nothing is run."""
    if os.geteuid() == 0 or shutil.which("sudo") is None or not KPROBES.exists():
        return ""
    return ", which --nft-kernel host gets by sudo"


def _refused(said: str) -> Unsupported:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("a password is required" in line for line in lines):
        return Unsupported(
            "tracing the host's kernel needs root, and sudo asks for a password",
            remedy=f"run sudo -v in this terminal before; or {OTHERWISE}",
        )
    own = [line.removeprefix("sudo: ") for line in lines if line.startswith("sudo: ")]
    reason = (own[:1] or lines[-1:] or ["it printed nothing"])[0]
    return Unsupported(
        f"tracing the host's kernel needs root, and sudo cannot be used: {reason}",
        remedy=f"have your administrator allow it, or {OTHERWISE}",
    )


def _privileged(starter: int) -> list[str]:
    """The command for Python with root's capabilities and the environment of the process ``starter``."""
    # All that sudo can give: in a container that may be less than the kernel knows.
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    mask = int(status["CapBnd"], 16)
    given = ",".join(f"+cap_{number}" for number in range(mask.bit_length()) if mask >> number & 1) or "-all"
    groups = ",".join(map(str, os.getgroups()))
    return [
        *(_sudo(), "-n", "--", SETPRIV, "--reuid", str(os.getuid()), "--regid", str(os.getgid())),
        *(["--groups", groups] if groups else ["--clear-groups"]),
        *("--inh-caps", given, "--ambient-caps", given, "--"),
        *(sys.executable, "-I", "-S", keeper.__file__, str(starter), sys.executable),
    ]


def _sudo() -> str:
    """The path of sudo; raises :class:`Unsupported` when it is missing."""
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Unsupported(
            "tracing the host's kernel needs root, and there is no sudo",
            remedy=f"run as root, or install sudo; or {OTHERWISE}",
        )
    return sudo


def main(arguments: Sequence[str]) -> int:
    """Be Python with root's capabilities, or answer what the kernel can do for one."""
    option, value, *rest = arguments
    if option == "--ask":
        able, reason = _host(value)
        print(msgspec.json.encode(Privileged(able, reason, features.kprobe_multi().able)).decode())
        return 0
    machine.die_with(int(value))
    # In a process group of its own: Ctrl-C in the terminal is for whoever started this. In the same session: sudo may
    # remember a password for one terminal alone (sudoers(5), timestamp_type).
    os.setpgid(0, 0)
    command = _privileged(os.getpid())
    with subprocess.Popen([*command, *rest], env=os.environ | {"LC_ALL": "C"}) as running:
        for descriptor in (0, 1):  # their other ends see the end of the worker
            os.close(descriptor)
        return running.wait()


def _host(tracer: str) -> Support:
    return features.tracepoints() if tracer == features.TRACEPOINTS else features.function_probes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
