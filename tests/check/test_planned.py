"""Which nft reads the rulesets that ``nft-harness check`` checks."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from harness.check.planned import planned
from harness.linux import features
from harness.project import Project
from harness.vm import images, nft
from harness.vm.kernel_image import Image

PROJECT = Project(root=Path("/p"))


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without probes that has images of two kernels."""
    for name in ("NFT_KERNEL", "NFT_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(features, "function_probes", lambda: features.Support(False, "none here"))
    there = {
        series: Image(
            release=f"{series}.9",
            vmlinuz=Path("vmlinuz"),
            modules=Path("/"),
            config=None,
            nft=nft.ImageNft(folder=Path(series), version=version, libc="2.36"),
        )
        for series, version in (("6.12", "1.1.3"), ("7.2", "1.1.10"))
    }
    there[images.DEFAULT] = there[images.DEFAULT_SERIES]
    monkeypatch.setattr(images, "find", there.get)


def version(*kernels: str, program: str = "", project: Project = PROJECT) -> str:
    found = planned(project, kernels, program)
    return found.missing or (found.nft.version if found.nft else "own")


def test_that_of_the_image_which_would_boot() -> None:
    assert version() == version("auto") == version("6.12") == "1.1.3"
    assert version("7.2") == "1.1.10"


def test_of_several_the_newest() -> None:
    assert version("7.2", "6.12") == version("6.12", "7.2") == version("host", "7.2") == "1.1.10"


def test_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version("host") == version("6.12", program="host") == "own"
    monkeypatch.setattr(features, "function_probes", lambda: features.Support(True))
    assert version() == "own"
    assert planned(PROJECT).natively


def test_an_image_that_is_not_here() -> None:
    assert version("6.1") == "run nft-harness kernels fetch 6.1 to have its nft"
    assert "no nft of a kernel image '6.1' is here" in version("6.12", program="6.1")
    assert version("6.12", program="7.2") == "1.1.10"


def test_what_the_environment_and_the_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = msgspec.structs.replace(PROJECT, kernels=("7.2",), nft_program="")
    assert version(project=settings) == "1.1.10"
    assert version(project=msgspec.structs.replace(settings, nft_program="host")) == "own"
    monkeypatch.setenv("NFT_KERNEL", "6.12")
    assert version(project=settings) == "1.1.3"
    monkeypatch.setenv("NFT_PROGRAM", "7.2")
    assert version(project=settings) == "1.1.10"
    assert version("6.12", program="image", project=settings) == "1.1.3"
