"""The kernel that scenarios are planned to run on, and the nft that reads rulesets there, as far as both are here.

Nothing is fetched and nothing is booted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.errors import Unsupported
from harness.linux import features
from harness.project import Project
from harness.text import numbers_in
from harness.vm import images, nft
from harness.vm.kernel_image import Image
from harness.vm.nft import ImageNft
from harness.vm.placement import AUTO, asked_kernels, asked_nft
from harness.vm.placement import HOST as HOST_KERNEL


class Planned(NamedTuple):
    """Where scenarios would run."""

    images: tuple[Image, ...]
    """Those that would be booted; the ones that are not here are left out."""
    natively: bool
    """Whether some would run on the machine's own kernel."""
    nft: ImageNft | None = None
    """What reads rulesets; None is this machine's own. Of several the newest, which refuses least."""
    missing: str = ""
    """Why no ruleset can be read as it would be there; "" where it can."""


def planned(project: Project, kernels: Sequence[str] = (), nft_program: str = "") -> Planned:
    """Where scenarios of ``project`` would run: on ``kernels`` if given, else on those that the environment or the
    project's settings name, else where ``auto`` has them run.

    Raises :class:`~harness.errors.Unsupported` for a kernel image that is damaged, and where nothing is called so.
    """
    asked = asked_kernels(kernels, project.kernels)
    program = asked_nft(nft_program, project.nft_program)
    for name in asked:
        if name not in (AUTO, HOST_KERNEL):
            images.refuse_unknown(name, (AUTO, HOST_KERNEL))
    if program not in (nft.IMAGE, nft.HOST):
        images.refuse_unknown(program, (nft.IMAGE, nft.HOST))
    natively = HOST_KERNEL in asked or (AUTO in asked and features.function_probes().able)
    found = _images(asked, natively=natively)
    there = tuple(filter(None, found.values()))
    if program == nft.HOST or (not found and program == nft.IMAGE):
        return Planned(there, natively)
    if program == nft.IMAGE:
        absent = [name for name, image in found.items() if image is None]
        missing = f"run nft-harness kernels fetch {' '.join(absent)} to have its nft" if absent else ""
        return Planned(there, natively, _newest(there), missing)
    try:
        return Planned(there, natively, images.nft_called(program, None))
    except Unsupported as error:
        return Planned(there, natively, missing=str(error))


def _images(asked: Iterable[str], *, natively: bool) -> dict[str, Image | None]:
    """The images that would be booted, by their names; None for one that is not here."""
    booted = {one for one in asked if one not in (HOST_KERNEL, AUTO)}
    if AUTO in asked and not natively:
        booted.add(images.DEFAULT)
    return {one: images.find(one) for one in sorted(booted)}


def _newest(there: Iterable[Image]) -> ImageNft | None:
    readers = (image.nft for image in there if image.nft)
    return max(readers, key=lambda one: numbers_in(one.version), default=None)
