"""What this machine can do, found out by doing it: one finding a line, each with reason and remedy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from harness.cache import cache_dir
from harness.errors import Unsupported
from harness.linux import features
from harness.linux.btf import FOLDER as BTF
from harness.linux.features import Support
from harness.ruleset.nft import nft_version
from harness.ruleset.process import BINDINGS
from harness.vm import images, initramfs, privileged
from harness.vm.accelerator import accelerator
from harness.vm.guest import Guest

PROGRAMS = (
    ("iptables-nft-restore", "iptables", "rulesets of iptables-save"),
    ("ipset", "ipset", "the sets of rulesets of iptables-save"),
    ("ip", "iproute2", "nft-harness lab enter, --nft-shell, --nft-keep"),
    ("tshark", "tshark", "viewing the captures of --nft-pcapng"),
)
"""Program, its Debian package, and what it is good for: nothing else misses it."""

UNSHARE = ("unshare", "--map-root-user", "--net", "true")


class Capability(NamedTuple):
    """One capability of this machine."""

    what: str
    able: bool
    words: str
    """What was found, or why it is not there."""
    remedy: str = ""
    needed: bool = False
    """Whether scenarios cannot run here without it."""

    @property
    def colour(self) -> str:
        """Green for what is there, red where scenarios cannot run without it."""
        return "green" if self.able else "red" if self.needed else "yellow"

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy and not self.able else ""
        return f"{'yes' if self.able else 'NO' if self.needed else 'no':4}{self.what:17}{self.words}{remedy}"


def examine() -> Iterator[Capability]:
    """Every finding, as soon as it is made; asking for KVM may boot a guest."""
    vm = not features.function_probes().able
    yield Capability(
        "root", os.geteuid() == 0, f"user id {os.geteuid()}", "not needed: a microVM has a root of its own"
    )
    if os.geteuid() != 0:
        yield _sudo()
    yield _of("kprobe.multi", features.kprobe_multi(), "all functions at once")
    yield _of("kprobe", features.kprobe(), "one function each")
    types = BTF / "vmlinux"
    yield Capability("BTF", types.exists(), f"{types} is {'' if types.exists() else 'not '}there", needed=not vm)
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
    where = (
        Guest.plan(image).describe()
        if image
        else f"{images.fetched_by_default()} in a microVM, fetched at the first run"
    )
    return f"scenarios run on {where}: {probes.reason}"


def missing(found: Iterable[Capability]) -> list[str]:
    """What scenarios cannot run without, and is not there."""
    return [one.what for one in found if one.needed and not one.able]


def as_json(found: Iterable[Capability]) -> str:
    """All findings, and where scenarios would run, as an object in JSON; docs/reports.md lists its members."""
    found = list(found)
    lacking = missing(found)
    members = {
        "able": not lacking,
        "place": "" if lacking else place(),
        "findings": [
            {
                "what": one.what,
                "able": one.able,
                "needed": one.needed,
                "found": one.words,
                "remedy": "" if one.able else one.remedy,
            }
            for one in found
        ],
    }
    return json.dumps(members, indent=2)


def _of(what: str, answer: Support, words: str) -> Capability:
    return Capability(what, answer.able, answer.reason or words, "not needed: a microVM's kernel has it")


def _bcc() -> Capability:
    remedy = "run apt-get install python3-bpfcc, and use the system's Python"
    try:
        from bcc import __version__ as version
    except (ImportError, OSError) as missing:
        return Capability("BCC", False, str(missing), remedy, needed=True)
    return Capability("BCC", True, version)


def _nftables() -> Capability:
    try:
        import nftables

        nftables.Nftables()
    except (ImportError, OSError) as missing:
        return Capability("nftables", False, f"libnftables can't be used: {missing}", BINDINGS, needed=True)
    version = nft_version()
    words = (
        f"nft {version} and its Python bindings" if version else "the Python bindings are there, the program nft not"
    )
    return Capability("nftables", bool(version), words, "run apt-get install nftables")


def _namespaces() -> Capability:
    """Without root, user namespaces have to be allowed as well."""
    try:
        tried = subprocess.run(UNSHARE, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        return Capability("namespaces", False, f"{UNSHARE[0]}: {error.strerror}")
    said = tried.stderr.strip() or "network namespaces can be made"
    return Capability("namespaces", tried.returncode == 0, said, "not needed: a microVM makes its own")


def _qemu(vm: bool) -> Capability:
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        return Capability(
            "QEMU", False, "qemu-system-x86_64 is missing", "run apt-get install qemu-system-x86", needed=vm
        )
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    version = re.search(r"version (\S+)", said.stdout)
    words = version[1] if version else f"{program} does not run: {said.stderr.strip()}"
    return Capability("QEMU", bool(version), words, "run apt-get install --reinstall qemu-system-x86", needed=vm)


def _sudo() -> Capability:
    """Whether sudo would run a worker as root; it is asked (sudo(8), ``-l``), and runs nothing."""
    remedy = "not needed; for --nft-kernel host run as root, or have sudo allow it"
    program = shutil.which("sudo")
    if program is None:
        return Capability("sudo", False, "sudo is missing", remedy)
    asked = subprocess.run(
        [program, "-n", "-l", privileged.SETPRIV], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    able = asked.returncode == 0
    words = f"{program} {'runs' if able else 'does not run'} {privileged.SETPRIV} as root without a password"
    return Capability("sudo", able, f"{words}{', for --nft-kernel host' if able else ''}", remedy)


def _busybox(vm: bool) -> Capability:
    try:
        return Capability("busybox", True, str(initramfs.busybox()))
    except Unsupported as missing:
        return Capability("busybox", False, missing.sentence, missing.remedy, needed=vm)


def _images(vm: bool) -> Iterator[Capability]:
    try:
        here = images.images()
        default = images.find(images.DEFAULT)
    except Unsupported as damaged:
        yield Capability("kernel images", False, damaged.sentence, damaged.remedy, needed=vm)
        return
    names = ", ".join(image.release for image in here) or "none here"
    if default:
        yield Capability("kernel images", True, names)
        name, reason = accelerator(default)
        yield Capability("KVM", name == "kvm", reason, "not needed: QEMU emulates (TCG), which is slower")
        return
    try:
        fetched = images.fetched_by_default()
    except Unsupported as lacking:
        yield Capability("kernel images", False, f"{names}; {lacking.sentence}", lacking.remedy, needed=vm)
    else:
        yield Capability("kernel images", True, f"{names}; {fetched} is fetched at the first run")


def _program(name: str, package: str, use: str) -> Capability:
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    words = f"{found}, for {use}" if found else f"{name} is missing; it is for {use}"
    return Capability(package, found is not None, words, f"run apt-get install {package}")


def _cache() -> Capability:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Capability("cache folder", True, f"{folder} can be written to")
    except OSError as error:
        remedy = "set XDG_CACHE_HOME to a folder that you may write to; without it every run is slow"
        return Capability("cache folder", False, f"{folder}: {error.strerror}", remedy)
