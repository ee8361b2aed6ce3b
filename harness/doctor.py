"""What this machine can do, found out by doing it: one finding a line, each with reason and remedy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from harness.errors import Unsupported
from harness.kernel import debian, features, images, initramfs
from harness.kernel.accelerator import accelerator
from harness.kernel.cache import cache_dir
from harness.kernel.features import Answer
from harness.kernel.microvm import Guest
from harness.ruleset.nft import nft_version
from harness.ruleset.process import BINDINGS
from harness.tracer.btf import FOLDER as BTF

PROGRAMS = (
    ("iptables-nft-restore", "iptables", "rulesets of iptables-save"),
    ("ip", "iproute2", "nft-harness lab enter, --nft-shell, --nft-keep"),
    ("tshark", "tshark", "a look at the captures of --nft-pcapng"),
)
"""Program, its Debian package, and what it is good for: nothing else misses it."""

UNSHARE = ("unshare", "--map-root-user", "--net", "true")


class Finding(NamedTuple):
    """One capability of this machine."""

    what: str
    able: bool
    words: str
    """What was found, or why it is not there."""
    remedy: str = ""
    needed: bool = False
    """Whether scenarios cannot run here without it."""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy and not self.able else ""
        return f"{'yes' if self.able else 'NO' if self.needed else 'no':4}{self.what:17}{self.words}{remedy}"


def examine() -> Iterator[Finding]:
    """Every finding, as soon as it is made; asking for KVM may boot a guest."""
    vm = not features.function_probes().able
    yield Finding("root", os.geteuid() == 0, f"user id {os.geteuid()}", "not needed: a microVM has a root of its own")
    yield _of("kprobe.multi", features.kprobe_multi(), "all functions at once")
    yield _of("kprobe", features.kprobe(), "one function each")
    types = BTF / "vmlinux"
    yield Finding("BTF", types.exists(), f"{types} is {'' if types.exists() else 'not '}there", needed=not vm)
    yield _bcc()
    yield _nftables()
    yield _namespaces()
    yield _qemu(vm)
    yield _busybox(vm)
    yield from _images(vm)
    yield _cache()
    yield from (_program(*one) for one in PROGRAMS)


def place() -> str:
    """Where scenarios would run and why; asked when nothing that they need is missing."""
    probes = features.function_probes()
    if probes.able:
        return f"scenarios run on the host's kernel {os.uname().release}: it has function probes"
    image = images.find(images.DEFAULT)
    where = Guest.plan(image).describe() if image else f"Linux {images.DEFAULT} in a microVM, fetched at the first run"
    return f"scenarios run on {where}: {probes.reason}"


def _of(what: str, answer: Answer, words: str) -> Finding:
    return Finding(what, answer.able, answer.reason or words, "not needed: a microVM's kernel has it")


def _bcc() -> Finding:
    remedy = "run apt-get install python3-bpfcc, and use the system's Python"
    try:
        from bcc import __version__ as version
    except (ImportError, OSError) as missing:
        return Finding("BCC", False, str(missing), remedy, needed=True)
    return Finding("BCC", True, version)


def _nftables() -> Finding:
    try:
        import nftables

        nftables.Nftables()
    except (ImportError, OSError) as missing:
        return Finding("nftables", False, f"libnftables can't be used: {missing}", BINDINGS, needed=True)
    version = nft_version()
    words = (
        f"nft {version} and its Python bindings" if version else "the Python bindings are there, the program nft not"
    )
    return Finding("nftables", bool(version), words, "run apt-get install nftables")


def _namespaces() -> Finding:
    """Without root, user namespaces have to be allowed as well."""
    try:
        tried = subprocess.run(UNSHARE, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        return Finding("namespaces", False, f"{UNSHARE[0]}: {error.strerror}")
    said = tried.stderr.strip() or "network namespaces can be made"
    return Finding("namespaces", tried.returncode == 0, said, "not needed: a microVM makes its own")


def _qemu(vm: bool) -> Finding:
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        return Finding("QEMU", False, "qemu-system-x86_64 is missing", "run apt-get install qemu-system-x86", needed=vm)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    version = re.search(r"version (\S+)", said.stdout)
    words = version[1] if version else f"{program} does not run: {said.stderr.strip()}"
    return Finding("QEMU", bool(version), words, "run apt-get install --reinstall qemu-system-x86", needed=vm)


def _busybox(vm: bool) -> Finding:
    try:
        return Finding("busybox", True, str(initramfs.busybox()))
    except Unsupported as missing:
        return Finding("busybox", False, missing.sentence, missing.remedy, needed=vm)


def _images(vm: bool) -> Iterator[Finding]:
    try:
        here = images.images()
        default = images.find(images.DEFAULT)
    except Unsupported as damaged:
        yield Finding("kernel images", False, damaged.sentence, damaged.remedy, needed=vm)
        return
    names = ", ".join(image.release for image in here) or "none here"
    if default:
        yield Finding("kernel images", True, names)
        name, reason = accelerator(default)
        yield Finding("KVM", name == "kvm", reason, "not needed: QEMU emulates (TCG), which is slower")
        return
    try:
        debian.require()
    except Unsupported as lacking:
        yield Finding("kernel images", False, f"{names}; {lacking.sentence}", lacking.remedy, needed=vm)
    else:
        yield Finding("kernel images", True, f"{names}; Linux {images.DEFAULT} is fetched at the first run")


def _program(name: str, package: str, use: str) -> Finding:
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    words = f"{found}, for {use}" if found else f"{name} is missing; it is for {use}"
    return Finding(package, found is not None, words, f"run apt-get install {package}")


def _cache() -> Finding:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Finding("cache folder", True, f"{folder} can be written to")
    except OSError as error:
        remedy = "set XDG_CACHE_HOME to a folder of yours; without it every run is slow"
        return Finding("cache folder", False, f"{folder}: {error.strerror}", remedy)
