"""Values made by hand for tests of this room."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from harness.topology.network import Network
from harness.topology.spec import LabSpec
from harness.twin import machine, project
from harness.twin.project import Twin


def link(name: str, kind: str = "", *, up: bool = True, **more: Any) -> dict[str, Any]:
    """An interface as ip(8) shows it."""
    data = more.pop("data", {})
    info = {"linkinfo": {"info_kind": kind, "info_data": data}} if kind else {}
    return {"ifname": name, "flags": ["UP"] if up else [], "mtu": 1500, **info, **more}


def output(**sections: Any) -> str:
    """What the script prints; sections are text, or values of which it prints JSON."""
    lines = [machine.FORMAT]
    for name, content in ({"host": "fw1.example.org 6.12.0", "links": [link("eth0")]} | sections).items():
        text = content if isinstance(content, str) else json.dumps(content)
        lines += [f"[{name}]", *(f"|{line}" for line in text.splitlines()), "|", "|=0"]
    return "\n".join(lines) + "\n"


def twin(**sections: Any) -> Twin:
    return project.of(machine.read(output(**sections)))


def addresses(**of: list[str]) -> list[dict[str, Any]]:
    """Addresses of interfaces as ip(8) shows them."""
    found = []
    for name, texts in of.items():
        parts = [text.split("/") for text in texts]
        own = [{"family": "inet6" if ":" in a else "inet", "local": a, "prefixlen": int(n)} for a, n in parts]
        found.append({"ifname": name, "addr_info": own})
    return found


def network(made: Twin) -> Network:
    return Network.of(msgspec.convert(made.lab, LabSpec))
