"""What the tests of microVMs share."""

from __future__ import annotations

import shutil

import pytest

from harness.vm import images
from harness.vm.kernel_image import Image


@pytest.fixture(scope="module")
def image() -> Image:
    """The kernel image that is booted by default; tests that need it are skipped where it is missing."""
    for program in ("qemu-system-x86_64", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    found = images.find(images.DEFAULT)
    if found is None:
        pytest.skip("no kernel image is here; run nft-harness kernels fetch")
    return found
