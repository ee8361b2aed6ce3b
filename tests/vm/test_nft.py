"""nft beside a kernel image; how it is fetched is in test_images.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.vm import nft

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def package(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return folder


@pytest.fixture
def packages(tmp_path: Path) -> list[tuple[str, str, Path]]:
    return [
        (
            "nftables",
            "1.1.3-1",
            package(tmp_path / "a", "usr/sbin/nft", f"{LIBRARIES}/libnftables.so.1", f"{LIBRARIES}/notes.so.txt"),
        ),
        (
            "libc6",
            "2:2.41-12+deb13u1",
            package(
                tmp_path / "b",
                f"{LIBRARIES}/ld-linux-x86-64.so.2",
                f"{LIBRARIES}/libc.so.6",
                f"{LIBRARIES}/libnss_dns.so.2",
                "usr/lib/other/libc.so.6",
            ),
        ),
        ("iptables", "1.8.11-2", package(tmp_path / "c", f"{LIBRARIES}/xtables/libxt_tcp.so")),
    ]


def test_what_is_needed_is_put_together(packages: list[tuple[str, str, Path]], tmp_path: Path) -> None:
    folder = tmp_path / "6.12/nft"
    nft.put_together(packages, folder)
    found = nft.read(folder)
    assert found is not None
    assert (found.version, found.libc, found.described) == ("1.1.3", "2.41", "nft 1.1.3 of kernel image 6.12")
    assert [file.name for file in found.files] == [
        *("about.json", "libnftables.so.1", "ld-linux-x86-64.so.2", "libc.so.6")
    ]
    assert (folder / "xtables/libxt_tcp.so").exists()
    assert os.access(found.programs / "nft", os.X_OK)
    assert os.access(folder / nft.LOADER, os.X_OK)


def test_what_the_packages_lack_is_named(packages: list[tuple[str, str, Path]], tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"its packages lack libc/ld-linux-x86-64\.so\.2"):
        nft.put_together([packages[0], packages[2]], tmp_path / "nft")


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"version": 1}'])
def test_a_folder_without_one(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "about.json").write_bytes(content)
    assert nft.read(tmp_path) is None


@pytest.mark.parametrize(("libc", "by_loader"), [("999.0", True), ("2.0", False)])
def test_python_runs_on_the_newer_c_library(libc: str, by_loader: bool, tmp_path: Path) -> None:
    one = nft.ImageNft(folder=tmp_path, version="1.1.3", libc=libc)
    command, variables = one.python("/usr/bin/python3")
    assert command[-1] == "/usr/bin/python3"
    assert (command[0] == str(tmp_path / nft.LOADER)) is by_loader
    assert ("LD_LIBRARY_PATH" in variables) is not by_loader
    assert variables["XTABLES_LIBDIR"] == str(tmp_path / "xtables")


def test_the_one_in_use_is_known_to_processes_that_are_started(
    packages: list[tuple[str, str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(nft.VARIABLE, "")
    assert nft.current() is None
    nft.put_together(packages, tmp_path / "6.12/nft")
    one = nft.read(tmp_path / "6.12/nft")
    nft.use(one)
    assert os.environ[nft.VARIABLE] == str(tmp_path / "6.12/nft")
    assert nft.current() == one
    nft.use(None)
    assert nft.current() is None
