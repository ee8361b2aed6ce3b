"""Settings that a lab may change change nothing but its namespace: each is written, and others are looked at."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.lab.namespace import Namespace
from harness.topology import sysctls

pytestmark = pytest.mark.kernel

ROOT = Path("/proc/sys")
WITH_SETTINGS = ("br_netfilter", "nf_conntrack", "nf_flow_table", "sctp", "mptcp", "vrf", "ipv6")
"""Modules that bring settings."""
WORDS = {"tcp_congestion_control": "reno", "ip_local_reserved_ports": "1-2"}


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
