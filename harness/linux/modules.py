"""Kernel modules that scenarios need: which would be loaded, whether that is permitted, and which were loaded.

A kernel loads a module when a ruleset, an interface or a setting first names it, for the whole machine and until it
is unloaded. On the machine's own kernel that is its owner's decision: :func:`permit` (``--nft-modules``). Netfilter's
own modules act only where a rule uses them, and every ruleset needs some; they need no permission.

Needs are expressed as aliases, as in the kernel's own request_module(); modprobe(8), which the kernel would call,
lists what an alias loads.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from harness.errors import KILLED, MORE_MEMORY, BrokenMeasurement, HarnessError, Unsupported
from harness.wait import wait_until

USUAL = (
    *("veth", "nf_tables", "nft_ct", "nft_chain_nat", "nft_fib_inet", "nft_limit", "nft_log", "nft_masq"),
    *("nft_redir", "nft_reject_inet", "nf_log_syslog"),
)
"""What labs and most rulesets use; loaded together, which takes a quarter of the time."""

COMMON: Final = (
    *("nft_nat", "nft_numgen", "nft_hash", "nft_quota", "nft_connlimit", "nft_queue", "nft_socket", "nft_tproxy"),
    *("nft_reject_ipv4", "nft_reject_ipv6", "nft_dup_ipv4", "nft_dup_ipv6", "nft_dup_netdev", "nft_fwd_netdev"),
    *("nft_synproxy", "nft_osf", "nft_xfrm", "nft_flow_offload", "nf_flow_table_inet"),
    *("nft_meta_bridge", "nft_reject_bridge", "nfnetlink_log", "nfnetlink_queue", "nf_conntrack_netlink"),
    *("8021q", "bridge", "sch_netem"),
)
"""What many rulesets and labs use besides, and a template has loaded: modules that act only where something uses them.

Not among them, as other scenarios would notice: br_netfilter, which has all bridges pass the hooks of IP; protocols
above IP, such as esp4, without which their packets are answered by an ICMP error; and modules that add interfaces to
each namespace, such as ip_gre.
"""

ALL: Final = "all"
ENVIRONMENT: Final = "NFT_MODULES"
"""Environment variable: names of modules that may be loaded, or :data:`ALL`, as in a microVM."""

_NETFILTER: Final = re.compile(r"(?:nf|nft|nfnetlink)(?:_\w+)?|x_tables|veth|lib\w+|crc\w+")
"""Modules that need no permission, and the libraries that they use."""
_OF_NETWORKS: Final = re.compile(r"kernel/(?:drivers/)?net/")
"""Paths of modules that a lab or a ruleset can load; others that appear were loaded by something else."""
_PATH: Final = f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"

_SYS_DELETE_MODULE: Final = 176
_UNLOADED_S: Final = 20.0

passing: Final[set[str]] = set()
"""Modules that will be unloaded: then nothing may hold them, as a probe on one of their functions does."""

_permitted: set[str] = set()


class Need(NamedTuple):
    """Something that the kernel would load a module for."""

    alias: str
    """As in request_module(): ``rtnl-link-vxlan``, ``tcp_htcp``; a module's name is an alias as well."""
    because: str
    """What needs it, with its place: ``rules.v4:7: -m physdev``."""


def load(names: Iterable[str] = USUAL) -> None:
    """Load modules by ``names``; those that are built in or missing are skipped."""
    missing = [name for name in names if not Path("/sys/module", name).exists()]
    modprobe = shutil.which("modprobe", path=_PATH)
    if missing and modprobe:
        subprocess.run([modprobe, "--quiet", "--all", *missing], check=False)


def permit(names: Iterable[str]) -> None:
    """Permit the modules ``names``, or with :data:`ALL` any, to be loaded into this kernel from now on."""
    _permitted.update(name.replace("-", "_") for name in names)


def refuse(needs: Iterable[Need]) -> None:
    """Refuse needs that would load a module without permission.

    Raises :class:`~harness.errors.Unsupported`, which names the first such module and what would load it.
    """
    if _everything():
        return
    present = loaded()
    for need in needs:
        new = [name for name in brings(need.alias) if name not in present and not _may(name)]
        if new:
            raise Unsupported(
                f"{need.because} would load the kernel module {', '.join(new)} into the machine's own kernel",
                remedy=f"run it in a microVM, e.g. --nft-kernel 6.12, or permit it: --nft-modules {','.join(new)}",
            )


@contextmanager
def provided(needs: Iterable[Need], *, unload: bool) -> Iterator[None]:
    """Load the modules that are needed, by their names; with ``unload``, those that it has loaded are gone afterwards.

    Raises :class:`Unsupported` for one that this kernel does not have, and :class:`HarnessError` for one that is none
    of networks, or stays in use.
    """
    needed = {need.alias: need for need in needs}
    if not needed:
        yield
        return
    missing = [name for name in needed if not Path("/sys/module", name).exists()]
    before = loaded()
    for name in missing:
        _load(needed[name])
    here = loaded() - before if unload else set()
    passing.update(here)
    try:
        yield
    finally:
        passing.difference_update(here)
        if here:
            _unload(here, [name for name in missing if name in here])


def _load(need: Need) -> None:
    file = _read_files().get(need.alias)  # a template has been without them
    if file is None and _is_built_in(need.alias):
        return
    if file is None:
        raise Unsupported(
            f"Linux {os.uname().release} has no module {need.alias} that could be loaded, for {need.because}",
            remedy="leave it out, or use another kernel: --nft-kernel",
        )
    if not _OF_NETWORKS.match(file):
        raise HarnessError(f"{need.because}: {file} is not a networking module", remedy="leave it out")
    modprobe = shutil.which("modprobe", path=_PATH)
    command = [modprobe or "modprobe", "--", need.alias]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError as error:
        raise Unsupported(f"modprobe does not run: {error.strerror}", remedy="run apt-get install kmod") from None
    if done.returncode == -signal.SIGKILL:
        raise BrokenMeasurement(f"modprobe was killed, {KILLED}", remedy=MORE_MEMORY)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
        raise Unsupported(f"the module {need.alias} cannot be loaded, for {need.because}: {said}")


def _unload(new: set[str], asked: Sequence[str]) -> None:
    """Unload ``new`` modules; those that were ``asked`` for are waited for, as namespaces that use them end later."""

    def gone() -> bool:
        # Those that need others are listed before them.
        for name in [one.name for one in listed() if one.name in new]:
            _libc().syscall(_SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK)
        return not loaded() & new & set(asked)

    wait_until(gone, _UNLOADED_S, f"the kernel modules {', '.join(asked)} to be unloaded")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@contextmanager
def watched() -> Iterator[None]:
    """Check whether modules are loaded within the block without permission.

    Raises :class:`~harness.errors.HarnessError` at the end, which names them: no module is loaded unnoticed.
    """
    if _everything():
        yield
        return
    before = loaded()
    try:
        yield
    finally:
        new = sorted(
            name for name in loaded() - before if not _may(name) and _OF_NETWORKS.match(_files().get(name, ""))
        )
        if new:
            raise HarnessError(
                f"the kernel module {', '.join(new)} was loaded into the machine's own kernel without permission",
                remedy=f"run it in a microVM, or permit it: --nft-modules {','.join(new)}",
            )


def loaded() -> set[str]:
    """Names of the loaded modules; empty where the kernel has no module support."""
    return {module.name for module in listed()}


class Module(NamedTuple):
    """A loaded module."""

    name: str
    address: int
    """Of its code; 0 for one who may not know (kptr_restrict)."""


def listed() -> tuple[Module, ...]:
    """The loaded modules, each before those that it needs; none where the kernel has no module support."""
    try:
        return _parsed(Path("/proc/modules").read_bytes())
    except FileNotFoundError:
        return ()


@functools.lru_cache(1)
def _parsed(text: bytes) -> tuple[Module, ...]:
    # "nf_tables 385024 12 nft_ct,nft_limit, Live 0xffffffffc0a1d000 (E)"; see m_show() in kernel/module/procfs.c
    words = (line.split() for line in text.decode().splitlines())
    return tuple(Module(one[0], int(one[5], 16)) for one in words)


def is_there(name: str) -> bool:
    """Whether asking for the module ``name`` loads nothing: it is loaded, built in, or the kernel has no modules."""
    if Path("/sys/module", name).exists() or not Path("/proc/modules").exists():
        return True
    return _is_built_in(name)


@functools.cache
def brings(alias: str) -> tuple[str, ...]:
    """The modules that ``alias`` loads on a kernel without any; empty if it is built in or unknown."""
    modprobe = shutil.which("modprobe", path=_PATH)
    if modprobe is None or not Path("/proc/modules").exists():
        return ()
    command = [modprobe, "--quiet", "--show-depends", "--", alias]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    files = (line.split()[1] for line in said.splitlines() if line.startswith("insmod "))
    return tuple(dict.fromkeys(name_of(file) for file in files))


def _everything() -> bool:
    return ALL in _permitted or ALL in _by_environment()


def _may(name: str) -> bool:
    return bool(_NETFILTER.fullmatch(name)) or name in _permitted or name in _by_environment()


def _by_environment() -> list[str]:
    return os.environ.get(ENVIRONMENT, "").replace(",", " ").replace("-", "_").split()


@functools.cache
def _files() -> dict[str, str]:
    return _read_files()


def _read_files() -> dict[str, str]:
    """Paths of this kernel's modules, relative to its folder, by name."""
    try:
        lines = Path("/lib/modules", os.uname().release, "modules.dep").read_text().splitlines()
    except OSError:
        return {}
    return {name_of(file): file for file in (line.partition(":")[0] for line in lines)}


def _is_built_in(name: str) -> bool:
    """Whether the kernel has it in itself: by its list, or, of a kernel without modules, by its symbols."""
    try:
        lines = Path("/lib/modules", os.uname().release, "modules.builtin").read_text().splitlines()
        return name in {name_of(file) for file in lines}
    except OSError:
        return re.search(rf" {re.escape(name)}(?:_\w+)?$", Path("/proc/kallsyms").read_text(), re.MULTILINE) is not None


def name_of(file: str) -> str:
    """The name of the module in ``file``, as the kernel calls it."""
    # Names of all modules are asked for at each start, and Path takes ten times as long.
    return file.rpartition("/")[2].partition(".")[0].replace("-", "_")
