"""How a packet must look where it arrived, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from harness.model.fields import Keys, alternatives
from harness.packets import icmp
from harness.packets.spec import Sees

PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6", "arp")


class WantedField(NamedTuple):
    """One field that must hold."""

    field: str
    """Its name in :func:`harness.packets.headers.fields`."""
    value: str | int
    """As it is written in the scenario."""
    found: str | int
    """As it is found in a packet."""

    def fits(self, found: Mapping[str, str | int]) -> bool:
        """Whether a packet with the fields ``found`` has it; flags in any order, addresses however written."""
        seen = found.get(self.field)
        return any(self._is(seen, one) for one in alternatives(self.found))

    def _is(self, seen: str | int | None, wanted: str | int) -> bool:
        if self.field == "vlan":
            return wanted == (seen or 0)
        if seen == wanted or not isinstance(wanted, str) or not isinstance(seen, str):
            return seen == wanted
        if self.field == "flags":
            return set(seen) == set(wanted)
        return self.field in ("src", "dst") and ip_address(seen) == ip_address(wanted)


def wanted_fields(sees: Sees) -> dict[Keys, WantedField]:
    """All that ``sees`` asks for, by its keys in the scenario."""
    wanted: dict[Keys, WantedField] = {}
    for name in sees.__struct_fields__:
        if (value := getattr(sees, name)) is not None and name not in PROTOCOLS:
            wanted[(name,)] = WantedField(name, value, value)
    for protocol in PROTOCOLS:
        if (header := getattr(sees, protocol)) is None:
            continue
        wanted[(protocol,)] = WantedField("protocol", protocol, protocol)
        given = {name: value for name in header.__struct_fields__ if (value := getattr(header, name)) is not None}
        found = given
        if protocol in ("icmp", "icmpv6"):
            kind, code = icmp.numbers(header, protocol)
            found = {"type": kind, "code": code}
        wanted |= {(protocol, name): WantedField(name, value, found[name]) for name, value in given.items()}
    return wanted


def describe_sees(sees: Sees) -> str:
    """``sees`` in a few words: ``tcp, flags RA``."""
    wanted = wanted_fields(sees)
    return ", ".join(
        str(key[0]) if one.field == "protocol" else f"{key[-1]} {one.value}" for key, one in wanted.items()
    )
