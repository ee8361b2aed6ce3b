"""Addresses and names replaced by others, the same everywhere.

Addresses keep their prefixes (as in Crypto-PAn: two that share N bits share N bits afterwards), but for what a network
means: the numbers of hosts in a network of an interface stay, and so do private, link-local, multicast and
documentation prefixes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any, Final

from harness.topology.parts import Address, Subnet

_KEPT: Final = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            *("::/8", "64:ff9b::/96", "2001:db8::/32", "fc00::/7", "ff00::/8"),
        ),
    )
)
"""Prefixes that mean something: their own bits stay, those behind them are mapped."""
_FIRST_BITS: Final = {4: 8, 6: 16}
"""Bits that stay of all other addresses; of those with the same as a prefix above, twice as many."""
_EUI64: Final = 0xFFFE
_HOST_BITS: Final = {4: 8, 6: 64}
"""Bits that stay at least, so that no host becomes a broadcast address."""
_TOKEN: Final = re.compile(
    r"(?P<mac>(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:]))"
    r"|(?P<v4>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]|\.\d))"
    r"|(?P<v6>(?<![\w:.])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:]))"
)
_RANGE: Final = re.compile(r"([0-9a-fA-F:.]{3,45})-([0-9a-fA-F:.]{3,45})")
_PREFIX: Final = re.compile(r"(?<![\w.:])([0-9a-fA-F:.]{2,45})/(\d{1,3})(?!\w)")
_OWN: Final = re.compile(r'"local": ?"([^"]+)"(?:[^{}]*?)"prefixlen": ?(\d+)')
_COMMENT: Final = re.compile(r'(comment |--comment |log prefix |--log-prefix |--nflog-prefix )("(?:[^"\\]|\\.)*"|\S+)')
_TABLE: Final = re.compile(r"^\|\s*(?:table \w+|chain|set|map|counter|quota|limit|flowtable) (\S+) \{", re.MULTILINE)
_CHAIN: Final = re.compile(r"^\|(?::(\S+) \S+ \[|create (\S+) )", re.MULTILINE)
"""Chains of iptables, and sets of ipset."""
_INTERFACE: Final = re.compile(r'"ifname": ?"([^"]+)"')
_ALIAS: Final = re.compile(r'"(ifalias|altnames|label)": ?("[^"]*"|\[[^\]]*\]),?')
_PLAIN: Final = re.compile(
    r"(?:lo|eth|en[opsx][0-9a-z]*|wl[opsx][0-9a-z]*|wlan|br|docker|podman|veth|virbr|bond|team|vlan|tun|tap|wg|ppp|dummy|vrf|"
    r"sit|gre|gretap|ipip|tunl|ip6tnl|vxlan|wan|lan|dmz|port|ifb|erspan|ip6gre|ip_vti|ip6_vti|macvlan|if)\d*(?:\.\d+)*"
)
"""Names of interfaces that say nothing of whose they are."""
_USUAL: Final = re.compile(
    r"(?i)filter|nat|mangle|raw|security|(?:in|out)put|forward|(?:pre|post)routing|(?:in|e)gress|DOCKER.*|NETAVARK.*"
)
"""Names of tables and chains that are those of hooks, or those that programs give them."""


class Anonymizer:
    """Replaces what names a machine, its networks and people in the output of ``collect.sh``."""

    def __init__(self, text: str, key: bytes = b"") -> None:
        """``key`` makes the same replacements again; without it they are random."""
        self._text = text
        self._key = key or secrets.token_bytes(32)
        self._names: dict[str, str] = {}
        self._frozen: set[tuple[int, int, int]] = set()
        """Prefixes below which no bit changes: version, length, bits."""
        for local, length in _OWN.findall(text):
            self._freeze(f"{local}/{length}")
        for first, last in _RANGE.findall(text):
            self._freeze_range(first, last)
        self.address: Callable[[Address], Address] = lru_cache(65536)(self._mapped)

    def text(self) -> str:
        """The text with everything replaced."""
        text = _ALIAS.sub("", self._text)
        text = re.sub(r"(?m)^(\|)(\S+)( \S+)$(?=\n\|\n\|=0)", r"\1machine\3", text, count=1)
        text = _COMMENT.sub(lambda found: f'{found[1]}"{self._name("note", found[2])}"', text)
        for kind, pattern in (("if", _INTERFACE), ("name", _TABLE), ("name", _CHAIN)):
            for name in dict.fromkeys(one for found in pattern.finditer(text) for one in found.groups() if one):
                text = self._renamed(text, kind, name)
        return _TOKEN.sub(self._replaced, self._networks(text)).replace("\x00", "")

    def _renamed(self, text: str, kind: str, name: str) -> str:
        if _PLAIN.fullmatch(name) or _is_usual(name) or len(name) < 2:
            return text
        wildcards = re.findall(r'"([\w.@-]+)\*"', text)
        if kind == "if" and any(name.startswith(one) for one in wildcards):
            return text
        return re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.@-])", self._name(kind, name), text)

    def _name(self, kind: str, old: str) -> str:
        return self._names.setdefault(old, f"{kind}{len(self._names) + 1}")

    # -- addresses --------------------------------------------------------------------------------

    def _freeze(self, text: str) -> None:
        network: Subnet | None = _or_none(lambda: ip_interface(text).network)
        if network is not None:
            self._frozen.add(_bits(network.network_address, network.prefixlen))

    def _freeze_range(self, first: str, last: str) -> None:
        """Below what both ends of a range have in common nothing changes, so that it stays one."""
        ends = [_or_none(lambda text=text: ip_address(text)) for text in (first, last)]  # type: ignore[misc]
        if None in ends or ends[0].version != ends[1].version:
            return
        one, other = ends
        common = one.max_prefixlen - (int(one) ^ int(other)).bit_length()
        self._frozen.add(_bits(one, common))

    def _mapped(self, address: Address) -> Address:
        size, version = address.max_prefixlen, address.version
        value = int(address)
        if (
            address.is_loopback
            or address.is_unspecified
            or address.is_multicast
            or (version == 4 and value >> 28 == 15)
        ):
            return address
        found = value
        for bit in range(size if address.is_link_local else _first(address), size - _HOST_BITS[version]):
            if _bits(address, bit) in self._frozen:
                break
            if self._flips(version, bit, value >> (size - bit)):
                found ^= 1 << (size - bit - 1)
        if version == 6 and value >> 24 & 0xFFFF == _EUI64:  # made of an Ethernet address (RFC 4291 appendix A)
            digest = hmac.digest(self._key, str(value & (1 << 64) - 1).encode(), hashlib.sha256)
            found = found >> 64 << 64 | int.from_bytes(digest[:8], "big")
        return type(address)(found)

    def _flips(self, version: int, bit: int, head: int) -> bool:
        message = f"{version} {bit} {head}".encode()
        return bool(hmac.digest(self._key, message, hashlib.sha256)[0] & 1)

    def _networks(self, text: str) -> str:
        """``text`` with the addresses of networks replaced: their bits behind the prefix stay 0."""

        def replaced(found: re.Match[str]) -> str:
            network: Any = _or_none(lambda: ip_network(f"{found[1]}/{found[2]}"))
            if network is None:
                return found[0]
            mapped = ip_network((self.address(network.network_address), network.prefixlen), strict=False)
            return f"\x00{mapped.network_address}\x00/{found[2]}"

        return _PREFIX.sub(replaced, text)

    def _replaced(self, found: re.Match[str]) -> str:
        if found.string[max(found.start() - 1, 0)] == "\x00":
            return found[0]
        if found["mac"]:
            digest = hmac.digest(self._key, found[0].lower().encode(), hashlib.sha256)
            return ":".join(["02", *(f"{one:02x}" for one in digest[:5])])
        address: Any = _or_none(lambda: ip_address(found[0]))
        return found[0] if address is None else str(self.address(address))


def _means_itself(address: Address) -> bool:
    is_mask = address.version == 4 and int(address) >> 28 == 15
    return address.is_loopback or address.is_unspecified or address.is_multicast or is_mask


def _first(address: Address) -> int:
    """How many bits of an address stay."""
    inside = [one.prefixlen for one in _KEPT if one.version == address.version and address in one]
    if inside:
        return max(inside)
    first = _FIRST_BITS[address.version]
    head = _bits(address, first)
    shared = any(one.version == address.version and _bits(one.network_address, first) == head for one in _KEPT)
    return 2 * first if shared else first


def _bits(address: Address, length: int) -> tuple[int, int, int]:
    size = 32 if isinstance(address, IPv4Address) else 128
    return address.version, length, int(address) >> (size - length)


def _or_none(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ValueError:
        return None


def _is_usual(name: str) -> bool:
    """Whether a table or chain has a name that many have."""
    return bool(_USUAL.fullmatch(name.strip('"')))
