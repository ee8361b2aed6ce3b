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
from harness.linux.features import Support
from harness.vm import images, nft, privileged
from harness.vm.kernel_image import Image
from harness.vm.nft import ImageNft
from harness.vm.privileged import Privileged
from harness.vm.progress import Progress

AUTO = "auto"
HOST = "host"
KERNELS = "NFT_KERNEL"
"""Environment variable: as the option --nft-kernel, several separated by spaces."""
NFT_PROGRAM = "NFT_PROGRAM"
"""Environment variable: as the option --nft-program."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel to run scenarios on."""

    image: Image | None
    """What a microVM is to boot; None for the host's own kernel."""
    reason: str
    tracer: str = AUTO
    """The engine that was asked for."""
    nft: ImageNft | None = None
    """What reads rulesets there; None is this machine's own."""
    sudo: Privileged | None = None
    """Where the host's kernel is to be used by a process that gets root's capabilities from sudo: what it can do."""
    why_own: str = ""
    """Why it is this machine's own where that of the image was asked for."""

    def engine(self) -> str:
        """How functions will be traced there, as far as is known beforehand; "" when it is not."""
        if self.tracer == features.TRACEPOINTS:
            return "functions on the stacks at tracepoints, not all of them"
        if self.image is None:
            many = self.sudo.many if self.sudo else features.kprobe_multi().able
        elif self.image.config:
            many = "\nCONFIG_FPROBE=y\n" in self.image.config.read_text()
        else:
            return ""
        return "functions by kprobe.multi" if many else "functions by kprobe, only critical ones and those named"

    def nft_described(self, own: str) -> str:
        """For example ``nft 1.1.3 of kernel image 6.12.117``; ``own`` is the version of this machine's."""
        if self.nft is not None:
            return self.nft.described
        return f"nft {own} of this machine" + (f": {self.why_own}" if self.why_own else "")

    def __str__(self) -> str:
        if self.image is not None:
            return f"kernel {self.image.release}"
        return f"the host's kernel {os.uname().release}" + (", with root's capabilities by sudo" if self.sudo else "")


def choose(
    requests: Sequence[str], progress: Progress, tracer: str = AUTO, nft_program: str | None = None
) -> list[Placement]:
    """A place for each of ``requests``, to trace by ``tracer``, with rulesets read by ``nft_program``
    (:func:`harness.vm.images.nft_called`; default: :func:`asked_nft`). What is missing is fetched.

    Raises :class:`~harness.errors.Unsupported` when one cannot be had here.
    """
    asked = asked_nft() if nft_program is None else nft_program
    places = (_choose(request, progress, tracer) for request in dict.fromkeys(requests))
    return [_with_nft(place, asked, progress) for place in places]


def asked_kernels(given: Sequence[str] = (), settings: Sequence[str] = ()) -> tuple[str, ...]:
    """The kernels that are ``given`` on the command line, else by the environment, else by the project's settings."""
    return tuple(given or os.environ.get(KERNELS, "").split() or settings or (AUTO,))


def asked_nft(given: str | None = None, settings: str = "") -> str:
    """The nft that is asked for in the same order, see :func:`harness.vm.images.nft_called`."""
    return given or os.environ.get(NFT_PROGRAM) or settings or nft.IMAGE


def use_nft(asked: str) -> None:
    """Have rulesets on this machine's own kernel read by the nft called ``asked``.

    Raises :class:`~harness.errors.Unsupported` when it is not here.
    """
    nft.use(images.nft_called(asked, None))


def _with_nft(place: Placement, asked: str, progress: Progress) -> Placement:
    why, image = "", place.image
    if image and asked == nft.IMAGE:
        image, why = images.with_nft(image, progress)
    if asked not in (nft.IMAGE, nft.HOST):
        images.with_nft(images.get(asked, progress), progress)
    reader = images.nft_called(asked, image)
    image = msgspec.structs.replace(image, nft=reader) if image else None
    return msgspec.structs.replace(place, image=image, nft=reader, why_own=why)


def _choose(request: str, progress: Progress, tracer: str) -> Placement:
    stacks = tracer == features.TRACEPOINTS
    able, reason = host = features.tracepoints() if stacks else features.function_probes()
    if request == HOST:
        sudo = privileged.ask(tracer) if not able and os.geteuid() != 0 else None
        answer = Support(sudo.able, sudo.reason) if sudo else host
        without = "" if stacks else ", or have --nft-tracer tracepoints show a part of the path"
        answer.require(f"{privileged.OTHERWISE}{without}, or run as root on a kernel with kprobes")
        return Placement(image=None, reason="asked for", tracer=tracer, sudo=sudo)
    if request == AUTO and able:
        return Placement(image=None, reason=f"it has {'tracepoints' if stacks else 'function probes'}", tracer=tracer)
    if request == AUTO:
        image = images.get(images.DEFAULT, progress)
        return Placement(image=image, reason=f"{reason}{privileged.could()}", tracer=tracer)
    return Placement(image=images.get(request, progress), reason="asked for", tracer=tracer)
