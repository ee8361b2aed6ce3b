"""Kernels of packages: real ones by dpkg-deb, found by an apt that knows three."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import Unsupported
from harness.vm import debian, images, packages, placement
from tests.vm import builders
from tests.vm.archive import install

RELEASE = "6.8.0-45-generic"
Build = Callable[..., Path]

APT = """
case $1 in depends | --no-all-versions) ;; *) shift $(($# - 1)) ;; esac
case $0-$* in
*apt-cache-*linux-image-generic) echo 'linux-image-generic
  Depends: linux-image-6.8.0-45-generic
  Depends: linux-firmware
 |Depends: initramfs-tools' ;;
*apt-cache-*linux-image-6.8.0-45-generic) echo 'x
  Depends: linux-modules-6.8.0-45-generic' ;;
*apt-cache-*linux-modules-6.8.0-45-generic) ;;
*apt-cache-*show*linux-image-generic) echo 'Package: linux-image-generic' ;;
*apt-cache-*) echo 'E: No packages found' >&2; exit 100 ;;
esac
"""
APT_GET = """
case "$*" in *indextargets*) echo 'http://mirror.invalid/ubuntu/ Ubuntu Ubuntu'; exit ;; esac
while [ "$1" != download ]; do shift; done
shift
for name; do case $name in -o) break ;; esac; echo "$name" >>FOLDER/log; cp "FOLDER/$name.deb" .; done
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for tool in ("dpkg-deb", "depmod", "setpriv"):
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is missing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/nft-harness/kernels"


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def package(name: str, **files: bytes) -> Path:
        tree = tmp_path / "packages" / name
        for file, content in files.items():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_bytes(content)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\nDescription: a test\n"
        )
        whole = tree.with_name(f"{name}.deb")
        subprocess.run(["dpkg-deb", "--build", tree, whole], check=True, capture_output=True)
        return whole

    return package


def kernel(release: str = RELEASE) -> dict[str, bytes]:
    return {f"boot/vmlinuz-{release}": builders.kernel(release)}


def modules(release: str = RELEASE, base: str = "lib") -> dict[str, bytes]:
    return {f"{base}/modules/{release}/{name}": b"" for name in ("modules.order", "modules.builtin")}


@pytest.mark.parametrize("base", ["lib", "usr/lib"])
def test_files_of_one_kernel_become_an_image(build: Build, cache: Path, base: str) -> None:
    parts = [build("linux-image", **kernel()), build("linux-modules", **modules(base=base))]
    image = packages.add([str(part) for part in parts])
    assert (image.release, image.is_added) == (RELEASE, True)
    assert images.find(RELEASE) == image
    assert (image.modules / "lib/modules" / RELEASE / "modules.dep").exists()
    assert sorted(path.name for path in cache.iterdir()) == [".added.lock", RELEASE]


@pytest.fixture
def ubuntu(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packages that this machine's apt has: a distribution's own kernel, and no Debian archive."""
    build("linux-image-generic")
    build(f"linux-image-{RELEASE}", **kernel())
    folder = build(f"linux-modules-{RELEASE}", **modules()).parent
    for program, script in (("apt-cache", APT), ("apt-get", APT_GET.replace("FOLDER", str(folder)))):
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return folder


def test_a_name_brings_the_parts_that_it_depends_on(ubuntu: Path) -> None:
    folder = ubuntu
    assert packages.add(["linux-image-generic"]).release == RELEASE
    assert sorted((folder / "log").read_text().split()) == [
        f"linux-image-{RELEASE}", "linux-image-generic", f"linux-modules-{RELEASE}",
    ]  # fmt: skip
    with pytest.raises(Unsupported, match="apt knows no package 'linux-image-nope'; run apt-get update"):
        packages.add(["linux-image-nope"])


class TestDefault:
    """The kernel that is booted where none is asked for."""

    def test_without_a_debian_archive_it_is_the_distributions_own(self, ubuntu: Path) -> None:
        assert images.find(images.DEFAULT) is None
        assert images.fetched_by_default() == "the distribution's own kernel (linux-image-generic)"
        steps: list[str] = []
        (place,) = placement.choose([images.DEFAULT], lambda step, percent: steps.append(step))
        image = place.image
        assert image is not None
        assert (image.release, place.nft) == (RELEASE, None)
        assert steps[0] == "the apt sources of this machine name no Debian archive: its own kernel is used"
        assert images.find(images.DEFAULT) == images.fetch(images.DEFAULT) == image
        assert (ubuntu / "log").read_text().split().count("linux-image-generic") == 1
        with pytest.raises(Unsupported, match="name no Debian archive"):
            images.fetch("6.12")  # what is asked for by its version is never another

    def test_a_fetched_one_is_preferred(self, ubuntu: Path, cache: Path) -> None:
        packages.add_own()
        fetched = install(cache / "6.12.1-amd64", "6.12.1-amd64").name
        assert [image and image.release for image in (images.find("default"), images.get("default"))] == [fetched] * 2

    def test_other_kernels_of_packages_are_not_taken(self, build: Build, ubuntu: Path) -> None:
        mine = f"{RELEASE}-mine"
        packages.add([str(build("linux-image-mine", **kernel(mine), **modules(mine)))])
        assert images.find(images.DEFAULT) is None

    def test_apt_has_none_either(self, ubuntu: Path, tmp_path: Path) -> None:
        (tmp_path / "bin/apt-cache").write_text("#!/bin/sh\nexit 100\n")
        for ask in (images.fetched_by_default, lambda: images.fetch(images.DEFAULT)):
            with pytest.raises(Unsupported, match=f"name no Debian archive; set {debian.MIRROR_VARIABLE}"):
                ask()

    def test_it_is_listed_and_foretold(self, ubuntu: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(["doctor"])
        assert "none here; the distribution's own kernel (linux-image-generic) is fetched at the first run" in (
            capsys.readouterr().out
        )
        assert main(["kernels", "fetch"]) == 0
        main(["kernels", "list"])
        assert re.search(rf"^6\.8 +default +{RELEASE} ", capsys.readouterr().out, re.MULTILINE)


def test_the_version_of_a_series_stays_the_fetched_one(build: Build, cache: Path) -> None:
    fetched = cache / "6.8.0-1-amd64"
    for name, content in (kernel(fetched.name) | modules(fetched.name)).items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        (fetched / name).write_bytes(content)
    (fetched / "lib/modules" / fetched.name / "modules.dep").touch()
    packages.add([str(build("linux", **kernel(), **modules()))])
    assert [image.release for image in images.images()] == [fetched.name, RELEASE]
    found = images.find("6.8")
    assert found is not None
    assert found.release == fetched.name
    with pytest.raises(Unsupported, match="is there already, as it was fetched"):
        packages.add([str(build("again", **kernel(fetched.name), **modules(fetched.name)))])


def test_what_is_added_again_is_replaced_and_can_be_removed(build: Build, cache: Path) -> None:
    for number in range(2):
        packages.add([str(build(f"linux-{number}", **kernel(), **modules(), **{f"boot/{number}": b""}))])
    assert [path.name for path in (cache / RELEASE / "boot").glob("?")] == ["1"]
    images.remove(RELEASE)
    assert images.images() == ()


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ([{}], "there is no kernel in it; give the package with /boot/vmlinuz-RELEASE as well"),
        (
            [kernel()],
            f"the modules of Linux {RELEASE} are not in it; give their package as well, for example linux-mod",
        ),
        ([kernel() | modules("6.9.0")], f"the modules of Linux {RELEASE} are not in it"),
        ([kernel() | modules(), kernel("6.9.0")], rf"there are several kernels in it \({RELEASE}, 6.9.0\)"),
        ([{"boot/vmlinuz-1": b"x"}], "is not a kernel image"),
    ],
)
def test_what_is_no_whole_kernel_leaves_nothing(
    build: Build, cache: Path, contents: list[dict[str, bytes]], sentence: str
) -> None:
    parts = [build(f"part-{number}", **files) for number, files in enumerate(contents)]
    with pytest.raises(Unsupported, match=sentence):
        packages.add([str(part) for part in parts])
    assert [path.name for path in cache.iterdir()] == [".added.lock"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nothing.deb", "nothing.deb is no file"),
        ("linux;reboot", "'linux;reboot' is no name of a package; give linux-image-RELEASE, or a file NAME.deb"),
        ("-o=x", "'-o=x' is no name of a package"),
        ("/etc/hostname", "is not a Debian format archive"),
    ],
)
def test_what_is_no_package(cache: Path, name: str, sentence: str) -> None:
    with pytest.raises(Unsupported, match=sentence):
        packages.add([name])
    assert images.images() == ()
