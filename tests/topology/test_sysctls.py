"""Which settings a lab may change, and that on a real kernel these change nothing but its namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.lab.namespace import Namespace
from harness.model.problem import Problem
from harness.topology import sysctls

ROOT = Path("/proc/sys")
WITH_SETTINGS = ("br_netfilter", "nf_conntrack", "nf_flow_table", "sctp", "mptcp", "vrf", "ipv6")
"""Modules that bring settings."""
WORDS = {"tcp_congestion_control": "reno", "ip_local_reserved_ports": "1-2"}


@pytest.mark.parametrize(
    "name",
    [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all.rp_filter",
        "net/ipv4/conf/eth0.100/rp_filter",
        "net.ipv6.conf.lan0.accept_ra",
        "net.ipv4.neigh.lan0.mcast_solicit",
        "net.netfilter.nf_conntrack_tcp_loose",
        "net.bridge.bridge-nf-call-iptables",
    ],
)
def test_what_is_a_namespaces_own_may_be_set(name: str) -> None:
    sysctls.check(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("kernel.modprobe", "is not a setting of a network namespace"),
        ("vm.swappiness", "is not a setting of a network namespace"),
        ("net.netfilter.nf_hooks_lwtunnel", "may change the whole kernel"),
        ("net/netfilter/nf_hooks_lwtunnel", "may change the whole kernel"),
        ("net.netfilter.nf_conntrack_buckets", "may change the whole kernel"),
        ("net.netfilter.nf_log_all_netns", "may change the whole kernel"),
        ("net.core.bpf_jit_enable", "may change the whole kernel"),
        ("net.core.default_qdisc", "may change the whole kernel"),
        ("net.ipv4.tcp_allowed_congestion_control", "may change the whole kernel"),
        ("net.ipv4.tcp_mem", "may change the whole kernel"),
        ("net/ipv4/conf/../ip_forward", "may change the whole kernel"),
        ("net/ipv4/../../kernel/modprobe", "may change the whole kernel"),
        ("net.ipv4.conf.all.", "may change the whole kernel"),
        ("", "is not a setting"),
    ],
)
def test_everything_else_is_refused(name: str, why: str) -> None:
    with pytest.raises(Problem, match=why):
        sysctls.check(name)


def read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def others(value: str, name: str) -> Iterator[str]:
    """Values to try instead of one."""
    if name in WORDS:
        yield WORDS[name]
        return
    numbers = value.split()
    if not all(number.lstrip("-").isdecimal() for number in numbers):
        yield from ("NONE", "nf_log_syslog", "none")
        return
    for change in (
        lambda n: n ^ 1,
        lambda n: n + 1,
        lambda n: n - 1,
        lambda n: 2 * n,
        lambda n: n + 1000,
        lambda _: 100,
    ):
        yield " ".join(str(change(int(number))) for number in numbers)


def change(path: Path) -> tuple[str, str] | None:
    """Write another value; the old and the new one, None when the kernel takes none of those tried."""
    before = read(path)
    for value in others(before, path.name) if before is not None else ():
        try:
            path.write_text(value)
        except OSError:
            continue
        if (after := read(path)) != before:
            return before or "", after or ""
    return None


def paths() -> list[Path]:
    """The settings that there are on this kernel, for interfaces those of ``all``, ``default`` and ``lo``."""
    found = [one.replace("*", name) for one in sysctls.own() for name in ("all", "default", "lo")]
    return sorted({ROOT / one for one in found if (ROOT / one).exists()})


@pytest.mark.kernel
def test_no_setting_changes_another_namespace() -> None:
    subprocess.run(["modprobe", "--quiet", "--all", *WITH_SETTINGS], check=False)
    changed = 0
    with Namespace("written") as written, Namespace("other") as other:
        for path in written.call(paths):
            before = read(path), other.call(read, path)
            if written.call(change, path):
                changed += 1
            assert (read(path), other.call(read, path)) == before, f"{path} is not a namespace's own"
    assert changed > 300
