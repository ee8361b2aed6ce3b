"""Settings that a lab may change: those that each network namespace has of its own.

Some settings below ``/proc/sys/net`` belong to the whole kernel. Writing one would change the machine, or later
scenarios in the same guest, so only those verified to be per namespace are accepted. ``sysctls.txt`` beside this
file lists them and describes its format.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from harness.model.problem import Problem

_TEXT = Path(__file__).with_name("sysctls.txt")
_INTERFACE = re.compile(r"(net/ipv[46]/(?:conf|neigh))/([^/]+)/")


def path(name: str) -> str:
    """The path below ``/proc/sys`` of a setting named as by sysctl(8).

    With slashes between the parts, a dot belongs to an interface's name.
    """
    return name if "/" in name.split(".", 1)[0] else name.translate(str.maketrans("./", "/."))


def check(name: str, *keys: str) -> None:
    """Raise :class:`~harness.model.problem.Problem` below ``keys`` unless ``name`` is a namespace's own setting."""
    general = _INTERFACE.sub(r"\1/*/", path(name), count=1)
    parts = path(name).split("/")
    if general in own() and not {"", ".", ".."} & set(parts):
        return
    if parts[0] != "net":
        sentence, remedy = "is not a setting of a network namespace", "use one that begins with net."
    else:
        sentence = "is not known to be a network namespace's own setting: it may change the whole kernel"
        remedy = "harness/topology/sysctls.txt lists those that are"
    raise Problem(f"'{name}' {sentence}", *keys, name, remedy=remedy, about_key=True)


@cache
def own() -> frozenset[str]:
    """The settings, as paths below ``/proc/sys``; ``*`` stands for an interface."""
    found = set()
    folder = ""
    for line in _TEXT.read_text().splitlines():
        if line.startswith("  "):
            found |= {f"{folder}/{name}" for name in line.split()}
        elif not line.startswith("#"):
            folder = line
    return frozenset(found)
