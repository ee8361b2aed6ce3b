"""IPsec between hosts: states and policies, with keys made for one lab. See ip-xfrm(8)."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from harness.errors import HarnessError, Unsupported
from harness.topology.parts import Address, Ipsec

if TYPE_CHECKING:
    from harness.lab.lab import Host

ALGORITHM, ICV_BITS, KEY_BYTES = "rfc4106(gcm(aes))", 128, 20
"""AES-GCM with a key of 128 bits and a salt of 32 (RFC 4106 section 8.1)."""
MISSING: Final = ("Protocol not supported", "Operation not supported", "Function not implemented", "No such file")
"""The kernel's words where it lacks ESP or the cipher."""
ENDS_S: Final = 60.0

_Key = Callable[[tuple[Address, Address, int]], str]


def protect(hosts: Mapping[str, Host]) -> None:
    """Give ``hosts`` the states and policies of their IPsec, with random keys.

    Raises :class:`~harness.errors.Unsupported` where the kernel has no ESP.
    """
    keys: defaultdict[tuple[Address, Address, int], str] = defaultdict(lambda: os.urandom(KEY_BYTES).hex())
    for host in hosts.values():
        if host.plan.ipsec:
            lines = [line for one in host.plan.ipsec for line in _commands(one, keys.__getitem__)]
            host.namespace.call(_run, host.name, "\n".join(lines))


def _commands(one: Ipsec, key: _Key) -> Iterator[str]:
    """What ip(8) is to do on the host that has ``one``."""
    out, back = (one.local, one.remote, one.spi_out), (one.remote, one.local, one.spi_in)
    for source, destination, spi in (out, back):
        yield (
            f"xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid {one.reqid} mode {one.mode} "
            f"aead {ALGORITHM} 0x{key((source, destination, spi))} {ICV_BITS}"
        )
    for near, far in one.selectors:
        yield _policy(one, "out", f"src {near} dst {far}", out)
        yield _policy(one, "in", f"src {far} dst {near}", back)
        if one.mode == "tunnel":
            yield _policy(one, "fwd", f"src {far} dst {near}", back)


def _policy(one: Ipsec, direction: str, selector: str, way: tuple[Address, Address, int]) -> str:
    ends = f"src {way[0]} dst {way[1]} " if one.mode == "tunnel" else ""
    return f"xfrm policy add {selector} dir {direction} tmpl {ends}proto esp reqid {one.reqid} mode {one.mode}"


def _run(host: str, lines: str) -> None:
    """Have ip(8) run ``lines`` in this thread's namespace; they hold keys, so no message has them."""
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"], input=lines, capture_output=True, text=True, timeout=ENDS_S, check=False
        )
    except FileNotFoundError:
        raise Unsupported("there is no program ip for IPsec", remedy="install iproute2") from None
    if done.returncode:
        answers = (line.partition(": ") for line in done.stderr.splitlines())
        why = next((words for who, _, words in answers if who in ("Error", "RTNETLINK answers")), "it failed")
        if why.startswith(MISSING) or "not found" in why:
            remedy = "it needs the modules esp4 or esp6, xfrm_user and gcm"
            raise Unsupported(f"this kernel can't do IPsec of {host}: {why}", remedy=remedy)
        raise HarnessError(f"the kernel refused the IPsec of {host}: {why}")
