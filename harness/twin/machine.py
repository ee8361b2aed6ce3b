"""What ``collect.sh`` has read of a machine, checked: plain values.

The text is untrusted: it has a size, a shape and names that can be written into a lab, or it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from harness.bounds import INTERFACES
from harness.errors import HarnessError
from harness.text import escape

FORMAT: Final = "nft-harness twin 1"
"""The first line of the output."""
LISTED: Final = 200_000
"""Entries of one section."""
_SECTION = re.compile(r"\[([a-z0-9]{1,16})\]")
_INTERFACE = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")

_T = TypeVar("_T")


class LinkInfo(msgspec.Struct, frozen=True):
    """What kind of interface one is, as iproute2 says it."""

    info_kind: str = ""
    info_data: dict[str, Any] = {}
    info_slave_kind: str = ""


class Link(msgspec.Struct, frozen=True):
    """An interface, as ``ip -d link`` shows it."""

    ifname: str = ""
    flags: list[str] = []
    mtu: int = 1500
    master: str = ""
    link: str | None = None
    """The interface below it, or the other end of a veth."""
    link_index: int | None = None
    address: str = ""
    linkinfo: LinkInfo = LinkInfo()

    @property
    def kind(self) -> str:
        """Such as ``vlan``; "" for hardware."""
        return self.linkinfo.info_kind

    @property
    def is_up(self) -> bool:
        """Whether it is set up."""
        return "UP" in self.flags


class OwnAddress(msgspec.Struct, frozen=True):
    """An address of an interface."""

    family: str = ""
    local: str = ""
    address: str = ""
    """The other end's, of a point-to-point link."""
    prefixlen: int = 0
    scope: str = "global"
    dadfailed: bool = False


class _Addressed(msgspec.Struct, frozen=True):
    ifname: str = ""
    addr_info: list[OwnAddress] = []


class Via(msgspec.Struct, frozen=True):
    """A next hop of the other IP version."""

    family: str = ""
    host: str = ""


class Hop(msgspec.Struct, frozen=True):
    """One of several next hops."""

    gateway: str = ""
    via: Via | None = None
    dev: str = ""
    weight: int = 1


class KernelRoute(msgspec.Struct, frozen=True):
    """A route, as ``ip -N -d route`` shows it."""

    dst: str = "default"
    """A network; in a :class:`Machine` never a word."""
    type: str = "1"
    gateway: str = ""
    via: Via | None = None
    dev: str = ""
    table: str | int = "254"
    protocol: str = ""
    metric: int = 0
    flags: list[str] = []
    nexthops: list[Hop] = []
    encap: str = ""
    src: str = ""
    """The sources that it is for (``from``)."""

    @property
    def hops(self) -> list[Hop]:
        """Where it leads."""
        if self.nexthops:
            return self.nexthops
        return [Hop(self.gateway, self.via, self.dev)] if self.dev or self.gateway else []


class Met(msgspec.Struct, frozen=True):
    """A neighbour that the machine knows."""

    dst: str = ""
    dev: str = ""
    lladdr: str = ""
    state: list[str] = []


class VlanEntry(msgspec.Struct, frozen=True, rename={"end": "vlanEnd"}):
    """VLANs of a port of a bridge."""

    vlan: int = 0
    end: int = 0
    flags: list[str] = []


class PortVlans(msgspec.Struct, frozen=True):
    """The VLANs of a port, or of a bridge's own interface."""

    ifname: str = ""
    vlans: list[VlanEntry] = []


class KnownStation(msgspec.Struct, frozen=True):
    """An Ethernet address that a bridge has learned."""

    mac: str = ""
    ifname: str = ""
    master: str = ""
    state: str = ""


class Peer(NamedTuple):
    """What a WireGuard interface has of one of its peers."""

    interface: str
    networks: tuple[str, ...]
    """``AllowedIPs``."""
    endpoint: str = ""
    """"" where it is not known."""
    port: int = 51820


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine."""

    name: str
    kernel: str
    links: Mapping[str, Link]
    """By name, in the kernel's order, without the loopback interface."""
    addresses: Mapping[str, list[OwnAddress]]
    routes: Mapping[int, list[KernelRoute]]
    """By IP version."""
    rules: Mapping[int, list[dict[str, Any]]]
    """Of the routing policy, by IP version."""
    neighbours: list[Met]
    vlans: list[PortVlans]
    stations: list[KnownStation]
    sysctls: Mapping[str, str]
    """By their paths below /proc/sys."""
    modules: frozenset[str]
    peers: list[Peer]
    listening: Mapping[str, tuple[int, int]]
    """By WireGuard interface, its port and the mark of its packets; 0 for none."""
    policies: int
    """Of IPsec."""
    nft: str
    """The listing of nf_tables."""
    compat: str
    """nft's warnings of tables that iptables-nft manages."""
    saves: Mapping[str, str]
    """What iptables-nft-save, the same of ip6tables, iptables-legacy-save, its IPv6 twin and ipset save have written:
    by section."""
    failed: tuple[str, ...] = ()
    """The sections whose command failed."""

    def kind(self, interface: str) -> str:
        """Of an interface; "" for hardware and for none."""
        return self.links[interface].kind if interface in self.links else ""


class _Section(NamedTuple):
    text: str
    status: int


def read(text: str) -> Machine:
    """The machine that the output ``text`` of ``collect.sh`` describes.

    Raises :class:`~harness.errors.HarnessError` for anything else.
    """
    sections = _sections(text)
    links = {one.ifname: one for one in _listed(sections, "links", Link) if _is_name(one.ifname)}
    links.pop("lo", None)
    if not links:
        raise HarnessError("no interface is in it beside lo", remedy="run the script on the machine itself, as root")
    if len(links) > INTERFACES:
        raise HarnessError(f"has {len(links):,} interfaces, and {INTERFACES:,} is the limit")
    listed = partial(_listed, sections)
    name, kernel, *_ = [*_text(sections, "host").split(), "", ""]
    return Machine(
        name=_host_name(name),
        kernel=escape(kernel)[:80],
        links=links,
        addresses={
            one.ifname: [own for own in one.addr_info if _is_address(own.local)]
            for one in listed("addresses", _Addressed)
            if one.ifname in links or one.ifname == "lo"
        },
        routes={version: list(_routes(listed(f"routes{version}", KernelRoute), version)) for version in (4, 6)},
        rules={version: listed(f"rules{version}", dict) for version in (4, 6)},
        neighbours=[one for one in listed("neighbours", Met) if _is_address(one.dst)],
        vlans=listed("vlans", PortVlans),
        stations=listed("stations", KnownStation),
        sysctls=dict(_pairs(_text(sections, "sysctls"))),
        modules=frozenset(_text(sections, "modules").split()),
        peers=list(_peers(_text(sections, "wireguard"))),
        listening=_listening(_text(sections, "wireguard")),
        policies=int(found) if (found := _text(sections, "xfrm").strip()).isdecimal() else 0,
        nft=_text(sections, "nft"),
        compat=_text(sections, "compat"),
        saves={
            key: text
            for key in ("iptables", "ip6tables", "legacy4", "legacy6", "ipset")
            if (text := _text(sections, key)).strip()
        },
        failed=tuple(
            name for name, one in sections.items() if one.status and name not in ("compat", "xfrm", "modules")
        ),
    )


def _sections(text: str) -> dict[str, _Section]:
    """What each section holds; those of one name one after the other. Everything before the first line is ignored."""
    lines = iter(text.splitlines())
    if all(line.strip() != FORMAT for line in lines):
        raise HarnessError(
            f"it has no line '{FORMAT}'", remedy="give the output of the script that nft-harness twin --script prints"
        )
    found: dict[str, list[str]] = {}
    own: list[str] | None = None
    for line in lines:
        if header := _SECTION.fullmatch(line.strip()):
            own = found.setdefault(header[1], [])
        elif line.startswith("|") and own is not None:
            own.append(line[1:])
    return {name: _section(name, content) for name, content in found.items()}


def _section(name: str, content: list[str]) -> _Section:
    """The lines of a section, without those with exit statuses; the highest of those counts."""
    # A line "=N" may also be text, but the last one is a status: one is written behind each command.
    if not content or not re.fullmatch(r"=\d{1,3}", content[-1]):
        raise HarnessError(f"its section {name} has no end", remedy="run the script again; its output is cut off")
    statuses = [int(line[1:]) for line in content if re.fullmatch(r"=\d{1,3}", line)]
    kept = [line for line in content if not re.fullmatch(r"=\d{1,3}", line)]
    return _Section("\n".join(kept).strip("\n") + "\n", max(statuses))


def _text(sections: Mapping[str, _Section], name: str) -> str:
    return sections[name].text if name in sections else ""


def _listed(sections: Mapping[str, _Section], name: str, kind: type[_T]) -> list[_T]:
    """The JSON of a section: a list, whose empty objects older versions of ip(8) print for what they leave out."""
    text = _text(sections, name).strip() or "[]"
    try:
        found = msgspec.json.decode(text.encode(errors="replace"), type=list[kind])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HarnessError(
            f"its section {name} is not what iproute2 prints: {error}",
            remedy="iproute2 5.0 or later is needed on the machine",
        ) from None
    if len(found) > LISTED:
        raise HarnessError(f"its section {name} has {len(found):,} entries, and {LISTED:,} is the limit")
    return found


def _routes(routes: list[KernelRoute], version: int) -> Iterator[KernelRoute]:
    """``routes`` with their destinations as networks."""
    for one in routes:
        text = ("0.0.0.0/0" if version == 4 else "::/0") if one.dst == "default" else one.dst
        with suppress(ValueError):
            yield msgspec.structs.replace(one, dst=str(ip_network(text, strict=False)))


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = (line.rpartition(":") for line in text.splitlines())
    return [(name, value) for name, sign, value in pairs if sign and re.fullmatch(r"[\w./@+:~-]{1,120}", name)]


def _peers(text: str) -> Iterator[Peer]:
    """The peers of WireGuard interfaces, of which both lists name each in the same order."""
    words = [line.split() for line in text.splitlines()]
    allowed = [(one[1], one[3:]) for one in words if one[:1] == ["allowed"] and len(one) > 3]
    endpoints = [one[3] for one in words if one[:1] == ["endpoint"] and len(one) == 4]
    if len(endpoints) != len(allowed):
        endpoints = [""] * len(allowed)
    for (interface, texts), endpoint in zip(allowed, endpoints, strict=True):
        networks = []
        for one in texts:
            with suppress(ValueError):
                networks.append(str(ip_network(one, strict=False)))
        address, _, port = endpoint.rpartition(":")
        address = address.strip("[]").partition("%")[0]
        is_known = _is_address(address) and port.isdecimal() and 0 < int(port) < 65536
        if networks:
            yield Peer(interface, tuple(networks), *((address, int(port)) if is_known else ()))


def _listening(text: str) -> dict[str, tuple[int, int]]:
    """Ports and marks, of lines ``port wg0 51820`` and ``mark wg0 0x1``."""
    found: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        match line.split():
            case ["port", name, number] if number.isdecimal():
                found[name] = int(number) & 0xFFFF, found.get(name, (0, 0))[1]
            case ["mark", name, number] if re.fullmatch(r"0x[0-9a-f]{1,8}", number):
                found[name] = found.get(name, (0, 0))[0], int(number, 16)
    return found


def _is_name(text: str) -> bool:
    return bool(_INTERFACE.fullmatch(text)) and text not in (".", "..")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _host_name(text: str) -> str:
    """The machine's name without its domain, as a file may be called."""
    kept = re.sub(r"[^A-Za-z0-9_-]", "-", text.partition(".")[0])[:32].strip("-")
    return kept if re.match(r"[A-Za-z]", kept) else f"twin-{kept}".rstrip("-")
