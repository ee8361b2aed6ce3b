"""Kernel images, with kernels of a few bytes and an apt that hands them out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.errors import Unsupported
from harness.vm import debian, images, nft
from harness.wait import wait_until
from tests.vm.archive import RELEASE, Archive, install


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/nft-harness/kernels"


class TestFind:
    def test_the_cache_by_series_and_by_release(self, cache: Path) -> None:
        for release in ("6.1.0-50-amd64", "6.12.90+deb13-amd64", RELEASE):
            install(cache / release, release)
        assert [image.release for image in images.images()] == ["6.1.0-50-amd64", "6.12.90+deb13-amd64", RELEASE]
        for name in ("6.12", RELEASE):
            image = images.find(name)
            assert image is not None
            assert image.release == RELEASE
        assert images.find("7.2") is None

    def test_a_damaged_image_in_the_cache_is_named(self, cache: Path) -> None:
        (install(cache / RELEASE) / "vmlinuz").unlink()
        with pytest.raises(Unsupported, match=f"{cache}.* is damaged.*; delete that folder"):
            images.find("6.12")


class TestInstalled:
    def kernels(self, root: Path, *releases: str, place: str = "boot/vmlinuz-{}") -> None:
        for release in releases:
            install(root, release, place.format(release))

    def test_the_newest_one(self, tmp_path: Path) -> None:
        self.kernels(tmp_path, "6.9.3-amd64", "6.12.1-amd64")
        assert images.installed(tmp_path).release == "6.12.1-amd64"

    def test_the_one_that_runs_is_preferred(self, tmp_path: Path) -> None:
        running = os.uname().release
        self.kernels(tmp_path, "99.1-amd64", running)
        assert images.installed(tmp_path).release == running

    def test_beside_its_modules_as_other_distributions_have_it(self, tmp_path: Path) -> None:
        self.kernels(tmp_path, "6.12.1-200.fc41", place="lib/modules/{}/vmlinuz")
        image = images.installed(tmp_path)
        assert (image.release, image.modules) == ("6.12.1-200.fc41", tmp_path)

    def test_modules_without_a_kernel_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "lib/modules/6.12.1").mkdir(parents=True)
        with pytest.raises(Unsupported, match=r"no kernel is installed here: .*use one of 6\.1, .*kernels add"):
            images.installed(tmp_path)

    def test_one_for_root_only_names_the_way_around(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernels(tmp_path, "6.8.0-45-generic")
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root, everything may be read
        with pytest.raises(
            Unsupported, match=r"may be read by root only; run nft-harness kernels add linux-image-6.8.0-45"
        ):
            images.installed(tmp_path)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    for tool in ("dpkg-deb", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    (tmp_path / "archive").mkdir()
    archive = Archive(tmp_path / "archive")
    monkeypatch.setenv("PATH", f"{archive.folder}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "KEYRING", archive.log.with_name("keyring"))
    debian.KEYRING.touch()
    return archive


def left_over(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.name not in (RELEASE, ".6.12.lock")]


class TestFetch:
    def test_the_newest_ordinary_kernel_is_published_whole(self, archive: Archive, cache: Path) -> None:
        steps: list[str] = []
        image = images.fetch("6.12", lambda step, percent: steps.append(step))
        assert image == images.find("6.12")
        assert image.release == RELEASE
        assert (image.modules / "lib/modules" / RELEASE / "modules.dep").exists()
        assert f"downloading Linux {RELEASE}" in steps
        assert left_over(cache) == []
        assert images.fetch("6.12") == image
        assert archive.downloads() == 1

    def test_two_at_once_download_once(self, archive: Archive, cache: Path) -> None:
        with ThreadPoolExecutor() as both:
            first, second = both.map(images.fetch, ["6.12", "6.12"])
        assert first == second
        assert archive.downloads() == 1
        assert left_over(cache) == []

    def test_a_killed_fetch_publishes_nothing_and_the_next_one_cleans_up(self, archive: Archive, cache: Path) -> None:
        pid = archive.folder / "pid"
        archive.on_download(f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec cat {archive.folder}/never")
        os.mkfifo(archive.folder / "never")
        program = f"from harness.vm import debian, images; debian.KEYRING = {str(debian.KEYRING)!r}"
        program += "; from pathlib import Path; debian.KEYRING = Path(debian.KEYRING); images.fetch('6.12')"
        fetching = subprocess.Popen([sys.executable, "-c", program])
        wait_until(pid.exists, 20, "the download to begin")
        fetching.send_signal(signal.SIGKILL)
        fetching.wait()
        download = Path("/proc", pid.read_text().strip())
        wait_until(lambda: not download.exists() or "Z" in (download / "stat").read_text(), 5, "the download to end")
        assert images.find("6.12") is None
        assert left_over(cache) != []
        archive.on_download("")
        assert images.fetch("6.12").release == RELEASE
        assert left_over(cache) == []

    def test_a_failed_download_leaves_nothing(self, archive: Archive, cache: Path) -> None:
        archive.on_download("echo 'E: the mirror is gone' >&2; exit 100")
        with pytest.raises(Unsupported, match="apt-get failed: the mirror is gone; check the network"):
            images.fetch("6.12")
        assert images.images() == ()
        assert left_over(cache) == []

    def test_a_package_cut_short_leaves_nothing(self, archive: Archive, cache: Path) -> None:
        package = archive.folder / "linux.package"
        package.write_bytes(package.read_bytes()[:500])
        with pytest.raises(Unsupported, match="dpkg-deb failed: "):
            images.fetch("6.12")
        assert images.images() == ()
        assert left_over(cache) == []

    def test_a_suite_that_has_moved_on(self, archive: Archive) -> None:
        archive.program("apt-cache", "echo linux-image-6.13.1+deb13-amd64")
        with pytest.raises(Unsupported, match=r"Debian trixie has no Linux 6\.12 now"):
            images.fetch("6.12")

    def test_a_machine_without_a_debian_archive(self, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        archive.program("apt-get", "echo 'http://mirror.invalid/other/ Other Other'")
        with pytest.raises(Unsupported, match=f"name no Debian archive; set {debian.MIRROR_VARIABLE}"):
            images.fetch("6.12")
        archive.on_download("")
        monkeypatch.setenv(debian.MIRROR_VARIABLE, "http://mirror.invalid/mine")
        images.fetch("6.12")
        assert "indextargets" not in archive.log.read_text()

    def test_sources_whose_lists_were_removed(self, archive: Archive) -> None:
        # As in images of containers: apt lists no index then, and would still fetch from its sources.
        uris = """\
case "$*" in
*indextargets*) exit ;;
"update --print-uris")
	echo "'http://mirror.invalid/debian/dists/bookworm/InRelease' mirror.invalid_debian_dists_bookworm_InRelease 0 "
	echo "'http://mirror.invalid/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.invalid_Packages 0 "
	exit ;;
esac
"""
        archive.on_download("", before=uris)
        images.fetch("6.12")

    def test_what_nobody_signed_is_not_believed(
        self, archive: Archive, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (archive.folder / "bin/apt-get").unlink()
        if shutil.which("apt-get") is None:
            pytest.skip("apt-get is missing")
        suite = tmp_path / "unsigned/dists/trixie"
        suite.mkdir(parents=True)
        (suite / "Release").write_text("Suite: trixie\nCodename: trixie\nComponents: main\nArchitectures: amd64\n")
        monkeypatch.setenv(debian.MIRROR_VARIABLE, f"file:{tmp_path}/unsigned")
        with pytest.raises(Unsupported, match=r"apt-get failed: .*is not signed"):
            images.fetch("6.12")
        assert left_over(cache) == []

    @pytest.mark.parametrize("tool", ["apt-get", "dpkg-deb"])
    def test_a_missing_tool_is_named(self, archive: Archive, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == tool else which(name, **more))
        with pytest.raises(Unsupported, match=f"{tool} is missing"):
            images.fetch("6.12")


class TestNft:
    def test_it_is_fetched_with_the_kernel(self, archive: Archive, cache: Path) -> None:
        image = images.fetch("6.12")
        assert image.nft is not None
        assert (image.nft.version, image.nft.folder) == ("1.1.3", cache / RELEASE / "nft")
        assert {file.name for file in image.nft.files} == {
            *("about.json", "libnftables.so.1", "ld-linux-x86-64.so.2", "libc.so.6")
        }
        assert images.nft_called(nft.IMAGE, image) == images.nft_called("6.12", None) == image.nft
        assert images.nft_called(nft.HOST, image) is None

    def test_an_image_of_before_gets_it_when_it_is_used(self, archive: Archive, cache: Path) -> None:
        install(cache / RELEASE)
        (image,) = images.images()
        assert image.nft is None
        steps: list[str] = []
        image, why = images.with_nft(image, lambda step, percent: steps.append(step))
        assert (image.nft and image.nft.version, why) == ("1.1.3", "")
        assert "downloading nftables" in steps
        assert archive.downloads() == 0
        assert images.with_nft(image)[0] == image
        assert archive.downloads("nftables") == 1
        assert left_over(cache) == []

    def test_without_the_archive_the_machines_own_is_used_and_the_reason_is_kept(
        self, archive: Archive, cache: Path
    ) -> None:
        install(cache / RELEASE)
        (image,) = images.images()
        archive.on_download("", of_nft="echo 'E: the mirror is gone' >&2; exit 100")
        for _ in range(2):
            image, why = images.with_nft(image)
            assert image.nft is None
            assert why.startswith("that of Debian trixie cannot be fetched: apt-get failed: the mirror is gone")
            assert why.endswith("nft-harness kernels fetch 6.12 tries again")
        assert archive.downloads("nftables") == 1
        archive.on_download("")
        image = images.fetch("6.12")
        assert image.nft is not None
        assert left_over(cache) == []

    def test_a_kernel_is_fetched_also_where_its_nft_cannot_be(self, archive: Archive) -> None:
        archive.package("broken", "1", "usr/sbin/other")
        archive.on_download("", of_nft=f"cp {archive.folder}/broken.package nftables.deb; exit 0")
        steps: list[str] = []
        image = images.fetch("6.12", lambda step, percent: steps.append(step))
        assert (image.release, image.nft) == (RELEASE, None)
        assert "its packages lack program, libc/ld-linux-x86-64.so.2" in steps[-1]

    def test_a_kernel_of_ones_own_has_none(self, archive: Archive, tmp_path: Path) -> None:
        image = images.find(str(install(tmp_path / "mine")))
        assert image is not None
        assert images.with_nft(image) == (image, "the image has none")
        with pytest.raises(
            Unsupported, match=r"no nft of a kernel image '6\.12' is here; run nft-harness kernels fetch"
        ):
            images.nft_called("6.12", image)


def test_remove(cache: Path) -> None:
    install(cache / RELEASE)
    assert images.remove("6.12").release == RELEASE
    assert images.images() == ()
    assert left_over(cache) == []
    with pytest.raises(Unsupported, match=r"no kernel image '6\.12' is in the cache; there are: none"):
        images.remove("6.12")


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_dir() == Path.home() / ".cache/nft-harness"
