"""What a guest learned reaches the cache folder, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cache import GUESTS
from harness.errors import HarnessError
from harness.vm import learned, machine


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """The file behind the port, which this process finds as one in a guest does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    descriptor = machine.memory_file(learned.PORT)
    monkeypatch.setattr(learned, "port", lambda _: Path(f"/proc/self/fd/{descriptor}"))
    return descriptor


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_kept_for_guests_of_that_kernel_alone(sent: int, tmp_path: Path) -> None:
    own, other = (f"{GUESTS}/{release}/survey.json" for release in ("6.12.1", "6.1.1"))
    learned.send({own: b"{}", other: b"{}", "../../evil": b"x", "kernels/vmlinuz": b"x"})
    learned.keep(sent, "6.12.1")
    assert files(tmp_path) == {f"nft-harness/{own}": b"{}"}


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91\x01"])
def test_of_a_guest_that_sent_none_there_is_a_sentence(sent: int, content: bytes, tmp_path: Path) -> None:
    os.write(sent, content)
    with pytest.raises(HarnessError, match="the guest sent unreadable data"):
        learned.keep(sent, "6.12.1")
    assert files(tmp_path) == {}
