"""Ports of the microVM by name, as the guest has them: what is written there arrives at the host."""

from __future__ import annotations

from pathlib import Path

PORTS = Path("/sys/class/virtio-ports")


def port(name: str) -> Path:
    """The device of the port that :func:`harness.kernel.microvm.run` was given as an output called ``name``.

    Raises :class:`FileNotFoundError` when it was given none.
    """
    for entry in PORTS.iterdir():
        if (entry / "name").read_text().strip() == name:
            return Path("/dev", entry.name)
    raise FileNotFoundError(f"the host has opened no port {name}")
