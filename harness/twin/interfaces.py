"""Interfaces of a machine, each as what it is for a packet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Final

from harness.twin.machine import Link, Machine, VlanEntry

if TYPE_CHECKING:
    from harness.twin.device import Device

PORTS_AT_MOST: Final = 24
"""Ports of one bridge; each needs a host of the lab."""
VLANS_AT_MOST: Final = 64
"""VLANs of one port."""
_DUMMIES: Final = ("dummy", "ifb", "nlmon", "vcan")
_FALLBACKS: Final = re.compile(r"(?:tunl|gre|gretap|erspan|sit|ip6tnl|ip6gre|ip_vti|ip6_vti)0")
"""Interfaces that a tunnel's module makes for itself."""


def is_left_out(link: Link, machine: Machine, words: set[str], notes: list[str]) -> bool:
    """Whether a packet never meets an interface: part of a bond, or a tunnel's fallback that is not used."""
    of = link.linkinfo.info_slave_kind
    if of in ("bond", "team") and link.ifname not in words:
        notes.append(f"{link.ifname} is a part of {link.master}, which is an interface of its own: left out")
        return True
    if link.is_up or link.ifname in words:
        return False
    if not _FALLBACKS.fullmatch(link.ifname) and link.kind not in _DUMMIES:
        notes.append(f"{link.ifname} is down: left out")
    return True


def addresses(link: Link, machine: Machine, notes: list[str]) -> list[str]:
    """The addresses of an interface, with prefix length, as a lab has them."""
    found = []
    needed = _needs_link_local(link.ifname, machine)
    for own in machine.addresses.get(link.ifname, []):
        address = ip_address(own.local)
        if not link.is_up or own.dadfailed or (address.is_link_local and not (needed and address.version == 6)):
            continue
        if link.linkinfo.info_slave_kind in ("bridge", "bond", "team"):
            notes.append(f"{address} of {link.ifname}, which is a port of {link.master}, is left out")
            continue
        is_pair = address.is_link_local or (own.address and own.address != own.local)
        found.append(f"{address}/{address.max_prefixlen if is_pair else own.prefixlen}")
    return found


def _needs_link_local(interface: str, machine: Machine) -> bool:
    """Whether a router at an interface, known by such an address, could not send back to another one."""
    hops = [hop for route in machine.routes[6] for hop in route.hops if hop.dev == interface and hop.gateway]
    own = [ip_address(one.local) for one in machine.addresses.get(interface, [])]
    return bool(hops) and not any(one.version == 6 and not one.is_link_local for one in own)


def own_addresses(machine: Machine) -> list[str]:
    """The addresses of the loopback interface that not every host has."""
    found = [ip_interface(f"{one.local}/{one.prefixlen}") for one in machine.addresses.get("lo", [])]
    return [f"{one.ip}/{one.max_prefixlen}" for one in found if not one.ip.is_loopback]


def enter(link: Link, machine: Machine, device: Device) -> None:
    """Enter an interface as what it is: made of others, or a wire."""
    make = _KINDS.get(link.kind)
    if make is not None and make(link, machine, device):
        return
    device.wires.append(link.ifname)
    if link.kind not in ("", "veth", "bond", "team", "tun"):
        device.notes.append(f"{link.ifname} is of kind {link.kind}, which labs do not have: a wire")


def _below(link: Link, device: Device) -> str:
    """The interface that one is based on, if it is there."""
    return link.link if link.link and link.link in device.host["interfaces"] else ""


def _bridge(link: Link, machine: Machine, device: Device) -> bool:
    if ports := _ports(link, machine, device):
        device.host["bridges"][link.ifname] = ports
    else:
        device.host["dummies"].append(link.ifname)
        device.notes.append(f"{link.ifname} is a bridge without a port that is up: a dummy")
    return True


def _vlan(link: Link, _: Machine, device: Device) -> bool:
    data = link.linkinfo.info_data
    if below := _below(link, device):
        is_outer = str(data.get("protocol")) in ("802.1ad", "[34984]")
        said = {"link": below, "id": int(data.get("id", 0))} | ({"protocol": "802.1ad"} if is_outer else {})
        device.host["vlans"][link.ifname] = said
    return bool(below)


def _macvlan(link: Link, _: Machine, device: Device) -> bool:
    mode = link.linkinfo.info_data.get("mode")
    if (below := _below(link, device)) and mode in ("bridge", "private"):
        device.host["macvlans"][link.ifname] = {"link": below, "mode": mode}
        return True
    return False


def _vxlan(link: Link, machine: Machine, device: Device) -> bool:
    data = link.linkinfo.info_data
    if ends := _ends(link, machine):
        said = {"id": int(data.get("id", 0)), **ends, "port": int(data.get("port", 8472))}
        device.host["vxlans"][link.ifname] = said
    return bool(ends)


def _tunnel(link: Link, machine: Machine, device: Device) -> bool:
    data = link.linkinfo.info_data
    ends = _ends(link, machine) if data.get("ikey") == data.get("okey") else {}
    if ends:
        key = {"key": int(ip_address(str(data["ikey"])))} if "ikey" in data else {}
        device.host["tunnels"][link.ifname] = {"kind": link.kind, **ends, **key}
    return bool(ends)


def _wireguard(link: Link, machine: Machine, device: Device) -> bool:
    is_known = any(one.interface == link.ifname for one in machine.peers)
    if is_known:
        port, mark = machine.listening.get(link.ifname, (0, 0))
        device.host["wireguards"][link.ifname] = {"port": port or 51820} | ({"mark": mark} if mark else {})
    return is_known


def _vrf(link: Link, machine: Machine, device: Device) -> bool:
    inside = [one.ifname for one in machine.links.values() if one.master == link.ifname]
    if inside := [one for one in inside if one in device.host["interfaces"]]:
        table = int(link.linkinfo.info_data.get("table", 0))
        device.host["vrfs"][link.ifname] = {"table": table, "interfaces": inside}
    else:
        del device.host["interfaces"][link.ifname]
        device.notes.append(f"{link.ifname} is a VRF without an interface that is up: left out")
    return True


def _dummy(link: Link, _: Machine, device: Device) -> bool:
    device.host["dummies"].append(link.ifname)
    return True


def _veth(link: Link, machine: Machine, device: Device) -> bool:
    """One whose other end is in the machine, too; others are wires."""
    below = _below(link, device)
    if not below or machine.kind(below) != "veth" or machine.links[below].link != link.ifname:
        return False
    if (below, link.ifname) not in device.pairs:
        device.pairs.append((link.ifname, below))
    return True


def _ends(link: Link, machine: Machine) -> dict[str, str]:
    """The ends of a tunnel between two known addresses; nothing for another."""
    data = link.linkinfo.info_data
    local, remote = (str(data.get(key) or data.get(f"{key}6") or "") for key in ("local", "remote"))
    try:
        end = ip_address(remote)
        own = [ip_address(one.local) for several in machine.addresses.values() for one in several]
        if not local or local == "any":
            local = next(str(one) for one in own if one.version == end.version and not one.is_loopback)
        return {"local": local, "remote": remote} if ip_address(local) in own and not end.is_multicast else {}
    except (ValueError, StopIteration):
        return {}


def _ports(bridge: Link, machine: Machine, device: Device) -> list[str]:
    own = [one for one in machine.links.values() if one.master == bridge.ifname and one.is_up]
    ports = [one.ifname for one in own if one.ifname in device.host["interfaces"]]
    for name in ports[PORTS_AT_MOST:]:
        del device.host["interfaces"][name]
    if len(ports) > PORTS_AT_MOST:
        device.notes.append(f"{bridge.ifname} has {len(ports)} ports: those after {PORTS_AT_MOST} are left out")
    return ports[:PORTS_AT_MOST]


def filter_vlans(machine: Machine, device: Device) -> None:
    """VLAN filtering of bridges."""
    bridges = device.host["bridges"]
    aware = {name for name in bridges if machine.links[name].linkinfo.info_data.get("vlan_filtering")}
    for port in machine.vlans:
        bridge = port.ifname if port.ifname in bridges else machine.links.get(port.ifname, Link()).master
        if bridge not in aware or port.ifname not in (bridge, *bridges[bridge]):
            continue
        untagged: int | None = None
        tagged: list[int] = []
        for entry in port.vlans:
            if "Egress Untagged" not in entry.flags:
                tagged += _range(entry)
            elif "PVID" in entry.flags:
                untagged = entry.vlan
            else:
                device.notes.append(
                    f"VLAN {entry.vlan} leaves {port.ifname} untagged, and does not come in so: left out"
                )
        if len(tagged) > VLANS_AT_MOST:
            used = {vlan["id"] for vlan in device.host["vlans"].values()}
            tagged = [one for one in tagged if one in used]
            device.notes.append(f"of the VLANs of {port.ifname} those that {bridge} has interfaces for are left")
        if untagged or tagged:
            device.host["ports"][port.ifname] = ({"untagged": untagged} if untagged else {}) | (
                {"tagged": tagged} if tagged else {}
            )


def _range(entry: VlanEntry) -> range:
    return range(entry.vlan, min(max(entry.end, entry.vlan), 4094) + 1)


def set_mtu(links: list[Link], device: Device) -> None:
    """Enter the MTU of interfaces that have another than Ethernet's."""
    host = device.host
    host["mtu"] = {
        one.ifname: one.mtu
        for one in links
        if one.ifname in host["interfaces"]
        and one.mtu != 1500
        and 68 <= one.mtu <= 65535
        and not any(one.ifname in host[key] for key in ("vrfs", "bridges", "dummies"))
    }


_KINDS: Final[Mapping[str, Callable[[Link, Machine, Device], bool]]] = {
    "bridge": _bridge,
    "vlan": _vlan,
    "macvlan": _macvlan,
    "vxlan": _vxlan,
    "ipip": _tunnel,
    "gre": _tunnel,
    "wireguard": _wireguard,
    "vrf": _vrf,
    "veth": _veth,
    **dict.fromkeys(_DUMMIES, _dummy),
}
"""By kind what enters an interface; false where it is no such thing after all."""
