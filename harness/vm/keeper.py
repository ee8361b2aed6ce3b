"""The program between sudo and a privileged worker; :mod:`harness.vm.privileged` starts it.

It runs as the user, with root's capabilities, and is given by its path with ``-I -S``: nothing but the standard library
is imported, and no variable of the environment counts. Its arguments are the process whose environment and umask the
worker gets, since sudo replaces both, and which the worker ends with; and the worker's command. See capabilities(7),
pidfd_open(2), proc(5).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main(starter: int, command: list[str]) -> int:
    """Run ``command`` until it or the process ``starter`` ends; its exit status, as a shell gives it."""
    starting = os.pidfd_open(starter)
    about = Path("/proc", str(starter))
    variables = (about / "environ").read_bytes().split(b"\0")
    umask = next(line for line in (about / "status").read_text().splitlines() if line.startswith("Umask:"))
    os.umask(int(umask.split()[1], 8))
    environment = dict(one.split(b"=", 1) for one in variables if b"=" in one[1:])
    me = os.getpid()
    worker = os.fork()
    if worker == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != me:
            os._exit(1)
        os.execve(command[0], command, environment)
    for descriptor in (0, 1):  # their other ends see the end of the worker
        os.close(descriptor)
    working = os.pidfd_open(worker)
    ended, _, _ = select.select([starting, working], [], [])
    if working not in ended:
        os.kill(worker, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
