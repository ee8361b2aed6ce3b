"""WireGuard interfaces: keys made for one lab, and the peers of each. See wireguard(4)."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.topology.parts import End, Wireguard

if TYPE_CHECKING:
    from harness.lab.lab import Host

KEY_BYTES = 32


def introduce(hosts: Mapping[str, Host]) -> None:
    """Give each WireGuard interface of ``hosts`` a random key, and make them known to each other.

    Raises :class:`~harness.errors.HarnessError` when the kernel refuses it.
    """
    interfaces = list(_interfaces(hosts))
    keys = {End(host.name, name): host.namespace.call(_key, host.name, name, of) for host, name, of in interfaces}
    for host, name, of in interfaces:
        host.namespace.call(_introduce, host.name, name, of, keys)


def _interfaces(hosts: Mapping[str, Host]) -> Iterator[tuple[Host, str, Wireguard]]:
    for host in hosts.values():
        for name, of in host.plan.made.items():
            if isinstance(of, Wireguard):
                yield host, name, of


def _key(host: str, name: str, of: Wireguard) -> str:
    """Give an interface of this thread's namespace its port and a private key; the public key, as the kernel says."""
    with _asking(host, name) as kernel:
        private = base64.b64encode(os.urandom(KEY_BYTES)).decode()
        kernel.set(name, private_key=private, listen_port=of.port, fwmark=of.mark or None)
        (found,) = kernel.info(name)
        public: bytes = found.get_attr("WGDEVICE_A_PUBLIC_KEY")
        return public.decode()


def _introduce(host: str, name: str, of: Wireguard, keys: Mapping[End, str]) -> None:
    """Give an interface of this thread's namespace its peers."""
    with _asking(host, name) as kernel:
        for one in of.peers:
            peer: dict[str, Any] = {"public_key": keys[one.end], "allowed_ips": [str(subnet) for subnet in one.allowed]}
            if one.endpoint:
                peer |= {"endpoint_addr": str(one.endpoint[0]), "endpoint_port": one.endpoint[1]}
            kernel.set(name, peer=peer)


@contextmanager
def _asking(host: str, name: str) -> Iterator[Any]:
    from pyroute2.netlink.exceptions import NetlinkError  # slow to import in a guest
    from pyroute2.netlink.generic.wireguard import WireGuard

    try:
        with WireGuard() as kernel:
            yield kernel
    except NetlinkError as refused:
        raise HarnessError(f"the kernel refused the peers of {host}:{name}: {refused.args[1]}") from None
