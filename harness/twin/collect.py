"""Reading of a machine: this one, one by ssh, or the output of the script from a file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from harness import ending, untrusted
from harness.bounds import TWIN_BYTES
from harness.errors import HarnessError
from harness.text import escape, last_sentence

COLLECT_S: Final = 300
"""Seconds that a machine may take."""
SSH_FAILED: Final = 255
"""The exit status of ssh(1) where it failed itself; others are those of what ran on the machine."""
_AS_ROOT: Final = 'if [ "$(id -u)" = 0 ]; then exec sh -s; else exec sudo -n sh -s; fi'
"""What runs on the machine; the script is its standard input, so nothing is written there."""


def script() -> str:
    """The program that reads a machine, in POSIX sh."""
    return Path(__file__).with_name("collect.sh").read_text()


def here() -> str:
    """What the script says of this machine, in the network namespace of this process."""
    return _run(["sh", "-c", _AS_ROOT], "this machine")


def by_ssh(destination: str) -> str:
    """What it says of the machine that ssh(1) reaches as ``destination``.

    Raises :class:`~harness.errors.HarnessError` where that does not work.
    """
    if destination.startswith("-"):
        raise HarnessError(f"'{escape(destination)}' is no destination of ssh", remedy="write user@host")
    return _run(["ssh", "-T", "--", destination, _AS_ROOT], escape(destination))


def from_file(path: Path) -> str:
    """What it has said, from a file."""
    try:
        return untrusted.read_text(path, TWIN_BYTES)
    except untrusted.Unreadable as reason:
        raise HarnessError(f"{path} {reason.sentence}") from None


def _run(command: list[str], named: str) -> str:
    ending.check()
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program:
            said, complaints = _talk(program)
    except FileNotFoundError:
        raise HarnessError(f"{command[0]} is missing", remedy="install openssh-client") from None
    if program.returncode or not said:
        why = last_sentence(complaints, f"it ended with {program.returncode}")
        remedy = "the script runs as root or by sudo -n; or print it with --script, run it there, and use --from"
        if command[0] == "ssh" and program.returncode == SSH_FAILED:
            remedy = (
                f"make ssh {named} true work first; or print the script with --script, run it there, and use --from"
            )
        raise HarnessError(f"{named} could not be read: {escape(why).rstrip('.')}", remedy=remedy)
    return said


def _talk(program: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Give ``program`` the script; what it has printed, and its complaints."""
    try:
        out, errors = program.communicate(script().encode(), timeout=COLLECT_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        raise HarnessError(f"timed out after {COLLECT_S} s waiting for the machine to be read") from None
    if len(out) > TWIN_BYTES:
        raise HarnessError(f"what the machine has is larger than {TWIN_BYTES >> 20} MiB")
    return out.decode(errors="surrogateescape"), errors.decode(errors="replace")
