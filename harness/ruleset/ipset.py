"""Sets as ``ipset save`` writes them, loaded by ipset; rules of iptables-save match on them (``-m set``).

See ipset(8), and xt_set in net/netfilter/xt_set.c of the kernel.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.errors import Position, ScenarioError, Unsupported
from harness.lab.namespace import Namespace
from harness.linux.modules import Need
from harness.ruleset.process import PROGRAMS, Child, LostError

_CREATE = re.compile(r"^create\s+\S+\s+(?P<type>(?:bitmap|hash|list):\S+)")
_COMPLAINT = re.compile(r"^ipset v[^:]*: (?:Error in line (?P<line>\d+): )?(?P<text>.*)$", re.MULTILINE)
_NO_KERNEL = re.compile(r"Cannot open session to kernel|set type not supported|Kernel and userspace incompatible")
NETLINK = "nfnetlink-subsys-6"
"""The alias of the module ip_set: NFNL_SUBSYS_IPSET in linux/netfilter/nfnetlink.h."""


def is_save(text: str) -> bool:
    """Whether this is what ``ipset save`` writes: its first statement creates a set of one of ipset's types."""
    statements = (line for line in io.StringIO(text) if line.strip() and not line.startswith("#"))
    return bool(_CREATE.match(next(statements, "")))


def needs(text: str, shown: Path) -> Iterator[Need]:
    """The kernel modules that a file needs, which is called ``shown`` (find_set_type in net/netfilter/ipset)."""
    yield Need(NETLINK, f"{shown}: sets of ipset")
    for number, line in enumerate(io.StringIO(text), 1):
        if found := _CREATE.match(line):
            yield Need(f"ip_set_{found['type']}", f"{shown}:{number}: {found['type']}")


def restore(namespace: Namespace, text: str, shown: Path, *, again: bool = False) -> None:
    """Make the sets of a file in ``namespace``; errors call it ``shown``. With ``again`` they may be there already.

    Raises :class:`~harness.errors.ScenarioError` at the line that ipset complains of, and
    :class:`~harness.errors.Unsupported` without ipset, in user space or in the kernel.
    """
    program = shutil.which("ipset", path="/usr/sbin:/usr/bin")
    if program is None:
        raise Unsupported(f"{shown} is a file of ipset save, and ipset is missing", remedy="install ipset")
    command = [program, *(["-exist"] if again else []), "restore"]
    try:
        with Child(namespace.fd, PROGRAMS, command, os.fsencode(text)) as child:
            code, said = child.wait()
    except LostError as lost:
        raise ScenarioError(f"ipset {lost.sentence} while it read {shown}", Position(str(shown))) from None
    if code == 0:
        return
    found = _COMPLAINT.search(said)
    words = found["text"].strip() if found else (said.strip().splitlines() or [f"it failed with {code}"])[0]
    place = Position(str(shown), int(found["line"]) if found and found["line"] else 0)
    if _NO_KERNEL.search(said):
        raise Unsupported(
            f"{place}: ipset: {words}", remedy="the kernel needs the modules ip_set, and ip_set_TYPE of the set's type"
        )
    raise ScenarioError(f"ipset: {words}", place)
