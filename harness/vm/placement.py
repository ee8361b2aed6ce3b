"""Where scenarios run: on the host's kernel, or on another one in a microVM.

A choice is made from what was asked for (``auto``, ``host``, a kernel version, a path) and from
what the host's kernel turns out to be able to do. It always comes with its reason, and never ends
in less being checked than was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from harness.linux import features
from harness.vm import images
from harness.vm.images import Image
from harness.vm.progress import Progress

AUTO = "auto"
HOST = "host"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel to run scenarios on."""

    image: Image | None
    """What a microVM is to boot; None for the host's own kernel."""
    reason: str
    tracer: str = AUTO
    """The engine that was asked for."""

    def engine(self) -> str:
        """How functions will be traced there, as far as is known beforehand; "" when it is not."""
        if self.tracer == features.TRACEPOINTS:
            return "functions on the stacks at tracepoints, not all of them"
        if self.image is None:
            many = features.kprobe_multi().able
        elif self.image.config:
            many = "\nCONFIG_FPROBE=y\n" in self.image.config.read_text()
        else:
            return ""
        return "functions by kprobe.multi" if many else "functions by kprobe, only critical ones and those named"

    def __str__(self) -> str:
        return f"the host's kernel {os.uname().release}" if self.image is None else f"kernel {self.image.release}"


def choose(requests: Sequence[str], progress: Progress, tracer: str = AUTO) -> list[Placement]:
    """A place for each of ``requests``, to trace by ``tracer``; kernel images that are missing are fetched.

    Raises :class:`~harness.errors.Unsupported` when one cannot be had here.
    """
    return [_choose(request, progress, tracer) for request in dict.fromkeys(requests)]


def _choose(request: str, progress: Progress, tracer: str) -> Placement:
    stacks = tracer == features.TRACEPOINTS
    able, reason = host = features.tracepoints() if stacks else features.function_probes()
    if request == HOST:
        host.require("leave out --nft-kernel host and a microVM is used, or run as root on a kernel with kprobes")
        return Placement(image=None, reason="asked for", tracer=tracer)
    if request == AUTO and able:
        return Placement(image=None, reason=f"it has {'tracepoints' if stacks else 'function probes'}", tracer=tracer)
    if request == AUTO:
        return Placement(image=images.get(images.DEFAULT, progress), reason=reason, tracer=tracer)
    return Placement(image=images.get(request, progress), reason="asked for", tracer=tracer)
