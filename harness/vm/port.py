"""What a process in the microVM knows of it: that it is there, and ports by name, by which it writes to the host."""

from __future__ import annotations

from pathlib import Path

GUEST = Path("/run/guest")
"""Made by init.sh of the microVM."""

PORTS = Path("/sys/class/virtio-ports")


def in_guest() -> bool:
    """Whether this process runs in a microVM that this project booted."""
    return GUEST.exists()


def port(name: str) -> Path:
    """The device of the port that :func:`harness.vm.microvm.run` was given as an output called ``name``.

    Raises :class:`FileNotFoundError` when it was given none.
    """
    if (restored := Path("/run/guest", name)).exists():
        return restored
    for entry in PORTS.iterdir():
        if (entry / "name").read_text().strip() == name:
            return Path("/dev", entry.name)
    raise FileNotFoundError(f"the host has opened no port {name}")
