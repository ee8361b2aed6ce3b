"""Who sends a packet, and to whom, for what rules ask of its interfaces and addresses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from harness.generate.constraints import ADDRESSES, Constraints
from harness.generate.device import SimulatedDevice
from harness.generate.expressions import Fields
from harness.topology.parts import LOOPBACK


class Ends:
    """The ends that packets in the lab of a device can have."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._network = device.network
        self._hosts = list(self._network.hosts)

    def of(self, asked: Constraints, family: int) -> Iterator[Fields]:
        """``from`` and ``to`` of packets as ``asked``, and the addresses that go with them."""
        yield from self._turned(asked, family)
        for sender, receiver in self._pairs(asked, family):
            yield {"from": sender, "to": receiver}
        yield from self._to_itself(asked, family)

    def _pairs(self, asked: Constraints, family: int) -> Iterator[tuple[str, str]]:
        """Who may send the packet, and to whom."""
        device = self._network.device
        for sender, receiver in itertools.product(self._senders(asked), self._receivers(asked, family)):
            if sender != receiver or (sender == device and asked.get("oif") in (None, LOOPBACK)):
                yield sender, receiver

    def _to_itself(self, asked: Constraints, family: int) -> Iterator[Fields]:
        """Ends of a packet that the device sends to its own loopback address."""
        said = [asked.get("iif"), asked.get("oif"), *(_is_loopback(asked.get(one)) for one in ADDRESSES)]
        if (LOOPBACK in said or True in said) and asked.get("iif", LOOPBACK) == LOOPBACK:
            device = self._network.device
            loopback = "127.0.0.1" if family == 4 else "::1"
            yield {"from": device, "to": loopback, "saddr": loopback}
            if (own := self._network.address(device, family, towards=device)) is not None:
                yield {"from": device, "to": loopback, "saddr": str(own)}

    def _turned(self, asked: Constraints, family: int) -> Iterator[Fields]:
        """Ends of a packet that leaves the device by the interface that it came by.

        A host sends it to the device's Ethernet address, from an address that nobody has to its own.
        """
        name = asked.get("iif")
        if name is None or name != asked.get("oif") or name not in self._device.host.interfaces:
            return
        interface = self._device.host.interfaces[name]
        for sender in self._senders(asked)[:1]:
            network = next((one.network for one in interface.addresses if one.version == family), None)
            own = self._network.address(sender, family, towards=self._network.device)
            if network is None or own is None or sender == self._network.device:
                continue
            numbers = range(1, min(network.num_addresses - 1, 250))
            free = next((one for n in numbers if self._network.owner(one := network[n]) is None), None)
            if free is not None:
                destination = str(asked.get("daddr", own))
                yield {"from": sender, "to": destination, "saddr": str(free), "ether_daddr": interface.mac}

    def _senders(self, asked: Constraints) -> list[str]:
        device, facing, iif = self._network.device, self._device.facing, asked.get("iif")
        if iif is None:
            return [*(name for name in self._hosts if name != device), *([] if asked.get("group") else [device])]
        return [facing[iif]] if iif in facing else self._behind(iif) or [device] * (iif == LOOPBACK)

    def _receivers(self, asked: Constraints, family: int) -> list[str]:
        device, facing = self._network.device, self._device.facing
        others = [name for name in self._hosts if name != device]
        if asked.get("group"):
            return ["224.0.0.1" if family == 4 else "ff02::1"]
        if "daddr" in asked:
            address = ip_address(str(asked["daddr"]))
            if address.version != family:
                return []
            owner = self._network.owner(address)
            usual = self._network.address(owner, family, towards=device) if owner in others else None
            return [owner] if owner is not None and usual == address else [str(address)]
        if (oif := asked.get("oif")) is not None:
            # A packet to the device may be sent on by a rule that translates its destination.
            towards = [facing[oif]] if oif in facing else self._behind(oif)
            return [*towards, device] if oif != LOOPBACK else [device]
        return [*([device] if asked.get("local") else []), *others[1:], others[0], device]

    def _behind(self, bridge: str) -> list[str]:
        """The hosts at the ports of a bridge."""
        ports = self._device.host.bridges[bridge].ports if bridge in self._device.host.bridges else ()
        return [self._device.facing[port] for port in ports if port in self._device.facing]


def _is_loopback(network: Any) -> bool:
    """Whether an address or network that is asked for is one of a host's own."""
    return network is not None and ip_network(str(network), strict=False).is_loopback
