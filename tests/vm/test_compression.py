from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess

import pytest

from harness.untrusted import Malformed, boundary
from harness.vm.compression import unpacked

CONTENT = b"\x7fELF" + bytes(range(256)) * 40


def zstd(content: bytes, *options: str) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is missing")
    return subprocess.run(["zstd", "-q", *options], input=content, check=True, capture_output=True).stdout


PACKERS = {
    "xz": lzma.compress,
    "xz for the kernel": lambda content: lzma.compress(content, check=lzma.CHECK_CRC32),
    "gzip": gzip.compress,
    "zstd": lambda content: zstd(content, f"--stream-size={len(content)}"),
}


@pytest.mark.parametrize("name", PACKERS)
def test_what_was_packed_comes_out(name: str) -> None:
    packed = PACKERS[name](CONTENT)
    assert unpacked(packed, 1 << 20) == CONTENT
    assert unpacked(packed + b"what follows", 1 << 20) == CONTENT


def test_a_frame_of_zstd_that_does_not_state_its_size_needs_it() -> None:
    packed = zstd(CONTENT)  # of a pipe: nobody knows the size at its beginning
    assert unpacked(packed, 1 << 20, size=len(CONTENT)) == CONTENT
    with boundary("it is damaged"), pytest.raises(ValueError, match="damaged"):
        unpacked(packed, 1 << 20, size=len(CONTENT) - 1)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("damage", ["cut off", "too large"])
def test_damaged_content_is_an_error(name: str, damage: str) -> None:
    packed = PACKERS[name](CONTENT)
    with pytest.raises(Malformed, match=r"^no module$"), boundary("no module"):
        unpacked(packed[: len(packed) // 2], 1 << 20) if damage == "cut off" else unpacked(packed, 1000)


def test_other_content_is_not_taken_for_packed() -> None:
    assert unpacked(CONTENT, 1 << 20) is None
    assert unpacked(b"", 1 << 20) is None
