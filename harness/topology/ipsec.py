"""IPsec between two hosts of a lab: which host encrypts what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from harness.model.problem import Problem
from harness.topology.interfaces import IpsecEndSpec, IpsecSpec
from harness.topology.parts import Address, End, Interface, Ipsec, Subnet
from harness.topology.routing import subnets

FIRST_SPI: Final = 0x1000
"""SPIs below 256 are reserved (RFC 4303 section 2.1)."""


def plan(specs: list[IpsecSpec], interfaces: Mapping[End, Interface]) -> dict[str, tuple[Ipsec, ...]]:
    """What each host has of ``specs``, by its name; ``interfaces`` are those of the lab.

    Raises :class:`~harness.model.problem.Problem`, with keys below the lab.
    """
    owners = {own.ip: end.host for end, one in interfaces.items() for own in one.addresses}
    found: dict[str, tuple[Ipsec, ...]] = {}
    spis: set[tuple[Address, int]] = set()
    for index, spec in enumerate(specs):
        addresses = [_address(end, owners, "ipsec", index, "ends", place) for place, end in enumerate(spec.ends)]
        hosts = [owners[address] for address in addresses]
        if hosts[0] == hosts[1]:
            raise Problem(f"both ends are addresses of {hosts[0]}", "ipsec", index, "ends", 1, "address")
        if addresses[0].version != addresses[1].version:
            raise Problem("is of another IP version than the other end", "ipsec", index, "ends", 1, "address")
        numbers = [end.spi or FIRST_SPI + 2 * index + place for place, end in enumerate(spec.ends)]
        for place, spi in enumerate(zip(addresses, numbers, strict=True)):
            if spi in spis:
                raise Problem(f"{spi[0]} receives SPI {spi[1]:#x} already", "ipsec", index, "ends", place)
            spis.add(spi)
        mode = "tunnel" if any(end.networks for end in spec.ends) else "transport"
        networks = [list(_networks(spec, addresses, index, place)) for place in (0, 1)]
        for own, other in ((0, 1), (1, 0)):
            pairs = [(near, far) for near in networks[own] for far in networks[other] if near.version == far.version]
            one = Ipsec(addresses[own], addresses[other], numbers[own], numbers[other], spec.reqid, mode, tuple(pairs))
            found[hosts[own]] = (*found.get(hosts[own], ()), one)
    return found


def _address(end: IpsecEndSpec, owners: Mapping[Address, str], *keys: str | int) -> Address:
    try:
        address = ip_address(end.address)
    except ValueError:
        raise Problem(f"'{end.address}' is not an address", *keys, "address") from None
    if address not in owners:
        raise Problem(f"no host of the lab has {end.address}", *keys, "address", remedy="give it to one")
    return address


def _networks(spec: IpsecSpec, addresses: list[Address], index: int, place: int) -> Iterator[Subnet]:
    """What is behind an end; its own address where it says nothing."""
    said = spec.ends[place].networks or [str(addresses[place])]
    for number, text in enumerate(said):
        yield from subnets(text, "ipsec", index, "ends", place, "networks", number)
