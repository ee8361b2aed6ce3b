"""Scapy by itself: while packets are built it can ask no resolver, no neighbour, no route and no interface.

A field of scapy that is not given may ask the machine for its value: the destination of an Ethernet header is resolved
by ARP or neighbour discovery, the source of an IP header is looked up in the routing table, and a text in place of an
address is taken for a host's name. Here all of these are refused: an expression is untrusted data, and the
machine that builds its packets is not part of the lab.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, NoReturn


class Asked(Exception):
    """Something was asked of this machine; no OSError, which scapy takes for an answer."""


@contextmanager
def alone() -> Iterator[None]:
    """Within, whatever scapy asks of this machine raises :class:`Asked`."""
    import scapy.layers.inet
    import scapy.layers.inet6
    import scapy.layers.l2  # noqa: F401  # these read the routing table when they are imported
    from scapy.base_classes import Net
    from scapy.config import conf
    from scapy.utils6 import Net6

    _watch_sockets()
    refused: list[tuple[Any, str, object]] = [
        *((kind, "name2addr", staticmethod(_number)) for kind in (Net, Net6) if "name2addr" in vars(kind)),
        *((conf, name, _Refusing(name)) for name in ("neighbor", "route", "route6", "ifaces")),
    ]
    with _LOCK:
        logger = logging.getLogger("scapy.runtime")
        was_disabled, logger.disabled = logger.disabled, True  # it would warn on stderr, without a place in a file
        was_alone = getattr(_THREAD, "alone", False)
        before = [(owner, name, vars(owner)[name]) for owner, name, _ in refused if name in vars(owner)]
        try:
            for owner, name, instead in refused:
                setattr(owner, name, instead)
            _THREAD.alone = True
            yield
        finally:
            _THREAD.alone = was_alone
            logger.disabled = was_disabled
            for owner, name, value in before:
                setattr(owner, name, value)


class _Refusing:
    """Stands for what scapy would ask."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, _: str) -> NoReturn:
        raise Asked(self._name)


_LOCK = threading.RLock()
"""Scapy's configuration is one for all threads."""
_THREAD = threading.local()


@functools.cache
def _watch_sockets() -> None:
    """Refuse sockets and resolvers to a thread that is alone, whatever way a field of scapy finds to them."""

    def refuse(event: str, _: tuple[object, ...]) -> None:
        if event.startswith("socket.") and getattr(_THREAD, "alone", False):
            raise Asked(event)

    sys.addaudithook(refuse)


def _number(text: str) -> str:
    return str(ip_address(text))
