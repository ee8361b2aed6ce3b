"""An archive of kernels, made by hand: an apt-get and an apt-cache that know a few."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.vm.builders import kernel

RELEASE = "6.12.107+deb13-amd64"

APT_GET = """\
echo "$*" >>{log}
case "$*" in
*indextargets*) echo 'http://mirror.invalid/debian/ Debian Debian' ;;
*print-uris*)
	echo "'http://mirror.invalid/libc6_2.41-12_amd64.deb' libc6_2.41-12_amd64.deb 1 SHA256:0"
	echo "'http://mirror.invalid/nftables_1.1.3-1_amd64.deb' nftables_1.1.3-1_amd64.deb 1 SHA256:0" ;;
*download*nftables*)
	{on_nft}
	cp {folder}/nftables.package nftables.deb
	cp {folder}/libc6.package libc6.deb ;;
*download*)
	case "$*" in *cloud*|*rt*|*6.12.9+*) exit 1 ;; esac
	{on_download}
	cp {package} linux.deb ;;
esac
"""
APT_CACHE = """\
case "$*" in
*pkgnames*)
	for kernel in 107+deb13 9+deb13 107+deb13-cloud 107+deb13-rt; do
		echo linux-image-6.12.$kernel-amd64
	done ;;
esac
"""


def install(folder: Path, release: str = RELEASE, vmlinuz: str = "vmlinuz", modules: str = "lib/modules") -> Path:
    (folder / vmlinuz).parent.mkdir(parents=True, exist_ok=True)
    (folder / vmlinuz).write_bytes(kernel(release))
    (folder / modules / release).mkdir(parents=True, exist_ok=True)
    (folder / modules / release / "modules.dep").touch()
    return folder


class Archive:
    """An apt-get and an apt-cache that know a few kernels, and a record of what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        tree = install(folder / "tree", vmlinuz=f"boot/vmlinuz-{RELEASE}")
        (tree / "lib/modules" / RELEASE / "modules.dep").unlink()
        (tree / "lib/modules" / RELEASE / "modules.order").touch()
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            "Package: linux\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\nDescription: a test\n"
        )
        subprocess.run(["dpkg-deb", "--build", tree, folder / "linux.package"], check=True, capture_output=True)
        self.package("nftables", "1.1.3-1", "usr/sbin/nft", "usr/lib/x86_64-linux-gnu/libnftables.so.1")
        self.package(
            "libc6", "2.41-12", *(f"usr/lib/x86_64-linux-gnu/{name}" for name in ("ld-linux-x86-64.so.2", "libc.so.6"))
        )
        self.program("apt-cache", APT_CACHE)
        self.on_download("")

    def package(self, name: str, version: str, *files: str) -> None:
        tree = self.folder / name
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_text(f"{name} {version}")
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\nDescription: a test\n"
        )
        subprocess.run(["dpkg-deb", "--build", tree, self.folder / f"{name}.package"], check=True, capture_output=True)

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)

    def on_download(self, script: str, of_nft: str = "", before: str = "") -> None:
        package = self.folder / "linux.package"
        script = APT_GET.format(
            log=self.log, folder=self.folder, package=package, on_download=script or ":", on_nft=of_nft or ":"
        )
        self.program("apt-get", before + script)

    def downloads(self, what: str = "linux-image") -> int:
        return self.log.read_text().count(f"download {what}")
