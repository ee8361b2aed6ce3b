"""What a ``send`` leaves open, filled in from the lab: addresses, next hop, and the way out of the sender."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple

from harness import untrusted
from harness.bounds import PAYLOAD_BYTES
from harness.model.problem import Problem, nowhere, unknown
from harness.packets import icmp
from harness.packets.spec import ARP, IPv4, IPv6, Send
from harness.topology.network import Network
from harness.topology.parts import BROADCAST, LOOPBACK, Address, Interface

TRANSPORTS = ("tcp", "udp", "sctp", "gre", "icmp", "icmpv6")

Through = Literal["wire", "output"]
"""How a packet leaves: as a frame that an interface sends, or through the output hook of its host's kernel."""


class Endpoints(NamedTuple):
    """What a ``send`` leaves open, filled in from the lab."""

    interface: Interface
    """Where it leaves."""
    through: Through
    source_mac: str
    destination_mac: str
    family: int | None
    """4 or 6; None for a frame that holds neither IP nor ARP."""
    source: Address | None
    destination: Address | None


def plan_endpoints(send: Send, network: Network) -> Endpoints:
    """Fill in what ``send`` leaves open.

    Raises :class:`~harness.model.problem.Problem`, with keys below ``send``, when it
    contradicts itself or the lab.
    """
    _check_contents(send, network)
    family, given_source, given_destination = _addresses(send, network)
    if family is None and send.to is None:
        return _plan_raw(send, network)
    if family is None:
        family = 4 if _has(network, send.from_, 4) and _has(network, send.to, 4) else 6
    destination = given_destination or _destination(send, network, family)
    _check_upper_layer(send, family, _transports(send))
    _check_headers(send)

    ether = send.ether
    through = _through(send, network, family, destination)
    interface, next_mac = _first_hop(send, network, family, destination, through)
    _check_size(send, family, interface)
    if send.arp is not None and send.arp.op == "request":
        next_mac = BROADCAST
    source = given_source or (destination if interface.name == LOOPBACK else interface.address(family, destination))
    if source is None:
        raise Problem(f"{interface.end} has no IPv{family} address to send from", remedy="give a source address")
    return Endpoints(
        interface=interface,
        through=through,
        source_mac=(ether and ether.src) or interface.mac,
        destination_mac=(ether and ether.dst) or next_mac,
        family=family,
        source=source,
        destination=destination,
    )


def _transports(send: Send) -> list[str]:
    return [name for name in TRANSPORTS if getattr(send, name) is not None]


def _check_contents(send: Send, network: Network) -> None:
    """Refuse a sender that the lab does not have, headers that exclude each other, and unknown ICMP types."""
    if send.from_ not in network.hosts:
        raise unknown(send.from_, network.hosts, "host of the lab", "from")
    transports = _transports(send)
    if len(transports) > 1:
        raise Problem(f"a packet cannot be {transports[0]} and {transports[1]} at once", transports[1])
    if send.arp is not None and (send.ip or send.ip6 or transports):
        other = "ip" if send.ip else "ip6" if send.ip6 else transports[0]
        raise Problem(f"an ARP message has no {other}", other)
    for name, types in (("icmp", icmp.TYPES), ("icmpv6", icmp.TYPES_V6)):
        if (header := getattr(send, name)) is not None:
            try:
                icmp.number(header.type, types)
            except Problem as problem:
                raise problem.below(name, "type") from None


def _destination(send: Send, network: Network, family: int) -> Address:
    """The address of the host that ``send`` names."""
    if send.to is None:
        raise Problem("does not say where to", remedy="add to: with a host or an address")
    destination = network.address(send.to, family, towards=send.from_)
    if destination is None:
        raise Problem(f"{send.to} has no IPv{family} address", "to")
    return destination


def _first_hop(
    send: Send, network: Network, family: int, destination: Address, through: Through
) -> tuple[Interface, str]:
    """The interface by which the packet leaves, and the Ethernet address of the next hop."""
    try:
        hop = network.route(send.from_, destination, local=through == "output")
    except Problem as problem:
        if send.ether is None or send.ether.dst is None:
            raise problem.below(*(("to",) if send.to else (_layer(send, family), "dst"))) from None
        return next(iter(network.hosts[send.from_].interfaces.values())), send.ether.dst
    return hop.interface, hop.mac


def _addresses(send: Send, network: Network) -> tuple[int | None, Address | None, Address | None]:
    """The IP version, source and destination that are given; what disagrees is refused."""
    family, because = None, ""
    source = destination = None

    def settle(version: int, reason: str, *keys: str) -> None:
        nonlocal family, because
        if family is not None and family != version:
            raise Problem(f"{reason} is IPv{version}, but {because} is IPv{family}", *keys)
        family, because = version, because or reason

    for name, version in (("ip", 4), ("ip6", 6), ("arp", 4)):
        header: IPv4 | IPv6 | ARP | None = getattr(send, name)
        if header is None:
            continue
        settle(version, name, name)
        if header.src is not None:
            source = _address(header.src, version, name, "src")
        if header.dst is not None:
            destination = _address(header.dst, version, name, "dst")
    for name, version in (("icmp", 4), ("icmpv6", 6)):
        if getattr(send, name) is not None:
            settle(version, name, name)
    if send.to is not None and send.to not in network.hosts:
        try:
            address = ip_address(send.to)
        except ValueError:
            raise nowhere(send.to, network.hosts, "to") from None
        settle(address.version, send.to, "to")
        destination = destination or address
    if send.to == send.from_ and destination is None and network.hosts[send.from_].silent:
        raise Problem(f"{send.to} would send to itself", "to")
    return family, source, destination


def _address(text: str, version: int, *keys: str | int) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise Problem(f"'{text}' is not an IPv{version} address", *keys) from None
    if address.version != version:
        raise Problem(f"{text} is not an IPv{version} address", *keys)
    return address


def _plan_raw(send: Send, network: Network) -> Endpoints:
    """A frame that holds neither IP nor ARP: from the first interface to the other end of its link."""
    if any(getattr(send, name) for name in TRANSPORTS) or send.ether is None or send.ether.type is None:
        raise Problem("does not say where to", remedy="add to: with a host or an address")
    interface = next(iter(network.hosts[send.from_].interfaces.values()), None)
    if interface is None:
        raise Problem(f"{send.from_} has no interface", "from")
    peer = network.hosts[interface.peer.host].interfaces[interface.peer.interface]
    return Endpoints(
        interface=interface,
        through="wire",
        source_mac=send.ether.src or interface.mac,
        destination_mac=send.ether.dst or peer.mac,
        family=None,
        source=None,
        destination=None,
    )


def _through(send: Send, network: Network, family: int, destination: Address) -> Through:
    """What an endpoint sends is a frame, even if its kernel has addresses, unless a tunnel of its own takes it.

    Others send as programs on them do.
    """
    router = send.from_ == network.device or network.hosts[send.from_].forwarding
    if not (router or network.enters_tunnel(send.from_, destination)) or send.arp is not None:
        return "wire"
    if send.from_ != network.device and send.ether is not None:
        return "wire"
    why = f"the kernel of {send.from_} writes the {{}} of what {send.from_} sends"
    if send.ether is not None:
        raise Problem(why.format("Ethernet header"), "ether", remedy="leave it out", about_key=True)
    if family == 4 and send.ip is not None and send.ip.checksum is not None:  # raw_send_hdrinc() in net/ipv4/raw.c
        raise Problem(why.format("IPv4 checksum"), "ip", "checksum", remedy="leave it out", about_key=True)
    if family == 4 and send.ip is not None and send.ip.id == 0:
        raise Problem(f"the kernel of {send.from_} replaces 0 by an identification of its own", "ip", "id")
    return "output"


def _check_upper_layer(send: Send, family: int, transports: Sequence[str]) -> None:
    number = send.ip.proto if send.ip else send.ip6.nh if send.ip6 else None
    if not transports and number is None and send.arp is None:
        remedy = "add tcp:, udp:, icmp: or icmpv6:, or its number with " + (
            "ip: {proto: …}" if family == 4 else "ip6: {nh: …}"
        )
        raise Problem("has no protocol above IP", remedy=remedy)


def _check_headers(send: Send) -> None:
    if send.sctp is not None and send.sctp.chunk != "data" and send.payload:
        raise Problem(f"a chunk {send.sctp.chunk} carries no payload", "payload", remedy="send chunk: data")
    for index, header in enumerate(send.ip6.headers if send.ip6 else ()):
        if isinstance(header, str):
            continue
        if (header.rt is None) == (header.frag is None):
            raise Problem("is one header: give either rt: or frag:", "ip6", "headers", index)
        for number, text in enumerate(header.rt.addresses if header.rt else ()):
            _address(text, 6, "ip6", "headers", index, "rt", "addresses", number)


def payload(send: Send) -> bytes:
    """What stands behind the last header."""
    if isinstance(send.payload, str):
        return send.payload.encode()
    if send.payload.file is None:
        return bytes.fromhex(send.payload.hex or "")
    try:
        return untrusted.read(Path(send.payload.file), PAYLOAD_BYTES)
    except untrusted.Unreadable as error:
        raise Problem(error.sentence, "payload", "file") from None


def _check_size(send: Send, family: int, interface: Interface) -> None:
    check_size((20 if family == 4 else 40) + (20 if send.tcp else 8) + len(payload(send)), interface)


def check_size(size: int, interface: Interface) -> None:
    """Refuse a packet of ``size`` bytes, from the IP header on, that ``interface`` does not take."""
    if size > interface.mtu:
        raise Problem(f"makes a packet of {size} bytes, and {interface.end} takes {interface.mtu}", "payload")


def _has(network: Network, host: str | None, family: int) -> bool:
    return any(one.address(family) for one in network.hosts[host or ""].interfaces.values())


def _layer(send: Send, family: int) -> str:
    return "arp" if send.arp else "ip" if family == 4 else "ip6"
