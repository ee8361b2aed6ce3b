from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from harness.errors import Unsupported
from harness.linux import features
from harness.linux.features import Support
from harness.vm import images, nft, placement
from harness.vm.kernel_image import Image
from harness.vm.nft import ImageNft
from harness.vm.progress import silent

BLIND = "the host's kernel has no function probes"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """The only image there is; asking for another one is an error as in life."""
    config = tmp_path / "config"
    config.write_text("CONFIG_KPROBES=y\n# CONFIG_FPROBE is not set\n")
    image = Image(release="6.12.107+deb13-amd64", vmlinuz=tmp_path / "vmlinuz", modules=tmp_path, config=config)

    def get(request: str, progress: object) -> Image:
        if request not in (images.DEFAULT, images.DEFAULT_SERIES):
            raise Unsupported(f"there is no kernel image {request!r}")
        return image

    monkeypatch.setattr(images, "get", get)
    return image


def host(monkeypatch: pytest.MonkeyPatch, answer: Support) -> None:
    monkeypatch.setattr(features, "function_probes", lambda: answer)


def test_auto_takes_the_host_where_it_can_trace(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, Support(True))
    (place,) = placement.choose(["auto"], silent)
    assert place.image is None
    assert str(place) == f"the host's kernel {os.uname().release}"
    assert place.reason == "it has function probes"


def test_auto_takes_a_microvm_where_the_host_cannot_and_says_why(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, Support(False, BLIND))
    (place,) = placement.choose(["auto"], silent)
    assert (place.image, place.reason) == (image, BLIND)


def test_the_host_is_never_replaced_in_silence(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, Support(False, BLIND))
    with pytest.raises(
        Unsupported, match=f"{BLIND}; leave out --nft-kernel host .--kernel host..*--nft-tracer tracepoints"
    ):
        placement.choose(["host"], silent)


def test_each_kernel_once_in_the_order_asked_for(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, Support(True))
    places = placement.choose(["6.12", "host", "6.12"], silent)
    assert [place.image for place in places] == [image, None]


def test_which_nft_reads_rulesets(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, Support(True))
    of_image = ImageNft(folder=tmp_path / "6.12.107/nft", version="1.1.3", libc="2.41")
    with_one = msgspec.structs.replace(image, nft=of_image)
    monkeypatch.setattr(images, "with_nft", lambda image, progress: (with_one, ""))
    monkeypatch.setattr(images, "find", lambda name: with_one)
    monkeypatch.delenv(placement.NFT_PROGRAM, raising=False)

    def described(asked: str | None) -> list[str]:
        places = placement.choose(["6.12", "host"], silent, nft_program=asked)
        assert [place.nft for place in places if place.image] == [place.image.nft for place in places if place.image]
        return [place.nft_described("1.0.6") for place in places]

    its, own = "nft 1.1.3 of kernel image 6.12.107", "nft 1.0.6 of this machine"
    assert described(None) == described(nft.IMAGE) == [its, own]
    assert described(nft.HOST) == [own, own]
    assert described("6.12") == [its, its]
    monkeypatch.setenv(placement.NFT_PROGRAM, "host")
    assert described(None) == [own, own]


def test_why_it_is_this_machines_nft_is_said(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "with_nft", lambda image, progress: (image, "the image has none"))
    (place,) = placement.choose(["6.12"], silent, nft_program=nft.IMAGE)
    assert place.nft_described("1.0.6") == "nft 1.0.6 of this machine: the image has none"


def test_a_kernel_that_cannot_be_had(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, Support(False, BLIND))
    with pytest.raises(Unsupported, match=r"'5\.0'"):
        placement.choose(["6.12", "5.0"], silent)


def test_how_functions_will_be_traced(image: Image) -> None:
    place = placement.Placement(image=image, reason="asked for")
    assert place.engine() == "functions by kprobe, only critical ones and those named"
    assert image.config
    image.config.write_text("CONFIG_X=y\nCONFIG_FPROBE=y\nCONFIG_Z=y\n")
    assert place.engine() == "functions by kprobe.multi"
