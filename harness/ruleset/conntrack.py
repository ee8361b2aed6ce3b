"""The connections that a host tracks, as conntrack(8) would list them.

See include/uapi/linux/netfilter/nfnetlink_conntrack.h and net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final, get_args

from harness.errors import Unsupported
from harness.lab.lab import Host
from harness.linux.netlink import Message, Netlink, attributes
from harness.linux.nfnetlink import HEADER, NETLINK_NETFILTER, number, string
from harness.model.observation import Connection, Direction, Lasting
from harness.scenario.models.expect import ConntrackState

IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
COUNT: Final = "/proc/sys/net/netfilter/nf_conntrack_count"
"""Of the connections of a namespace, also of those whose first packet is still under way."""
# enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_protoinfo, ctattr_protoinfo_tcp, ctattr_help
TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, HELP, TIMEOUT, MARK, ZONE = 1, 2, 3, 4, 5, 7, 8, 18
TUPLE_IP, TUPLE_PROTO = 1, 2
IP_V4_SRC, IP_V4_DST, IP_V6_SRC, IP_V6_DST = 1, 2, 3, 4
PROTO_NUM, PROTO_SRC_PORT, PROTO_DST_PORT = 1, 2, 3
PROTOINFO_TCP, TCP_STATE, HELP_NAME = 1, 1, 1

STATUSES: Final = (
    "EXPECTED",
    "SEEN_REPLY",
    "ASSURED",
    "CONFIRMED",
    "SRC_NAT",
    "DST_NAT",
    "SEQ_ADJUST",
    "SRC_NAT_DONE",
    "DST_NAT_DONE",
    "DYING",
    "FIXED_TIMEOUT",
    "TEMPLATE",
    "UNTRACKED",
    "HELPER",
    "OFFLOAD",
    "HW_OFFLOAD",
)
"""``enum ip_conntrack_status`` in include/uapi/linux/netfilter/nf_conntrack_common.h, by bit."""
STATES: Final[tuple[str, ...]] = get_args(ConntrackState)


def connections(host: Host) -> tuple[Connection, ...]:
    """The connections that the kernel of ``host`` tracks, in no order.

    Raises :class:`~harness.errors.Unsupported` when this kernel does not list them.
    """
    return host.namespace.call(_dump)


def flush(host: Host) -> None:
    """Delete all connections that the kernel of ``host`` tracks, as ``conntrack -F``.

    Raises :class:`~harness.errors.Unsupported` when this kernel does not list connections.
    """
    host.namespace.call(_flush)


def lasting(host: Host) -> Lasting | None:
    """The shortest time for which the kernel of ``host`` keeps a connection in some state, policies of rulesets aside;
    None where it tracks none."""
    times = host.namespace.call(_timeouts)
    return min(times, key=attrgetter("seconds"), default=None)


def _timeouts() -> list[Lasting]:
    return [
        Lasting(f"a connection by {path.name}", int(path.read_text()))
        for path in Path("/proc/sys/net/netfilter").glob("nf_conntrack_*timeout*")
    ]


class Tracked:
    """The connections of ``host``, for one who asks for them often: a socket of it is kept open."""

    def __init__(self, host: Host) -> None:
        self._link = host.namespace.enter(lambda: Netlink(NETLINK_NETFILTER))
        self._count: BinaryIO | None = None
        with suppress(FileNotFoundError):
            self._count = host.namespace.enter(lambda: Path(COUNT).open("rb", buffering=0))  # noqa: SIM115 - it is entered

    def flush(self) -> None:
        """Delete all connections, as ``conntrack -F``.

        Raises :class:`~harness.errors.Unsupported` when this kernel does not list connections.
        """
        if self._any():
            _delete(self._link)

    def list(self) -> tuple[Connection, ...]:
        """All connections, in no order. Raises as :meth:`flush`."""
        return _listed(self._link) if self._any() else ()

    def _any(self) -> bool:
        """Whether there may be any: listing them walks the table of all namespaces (ctnetlink_dump_table), 25 ms of it.

        Each is counted from when it is made until it is freed (__nf_conntrack_alloc and nf_conntrack_free in
        net/netfilter/nf_conntrack_core.c).
        """
        return self._count is None or os.pread(self._count.fileno(), _DIGITS, 0) != b"0\n"


_DIGITS: Final = 16

_ALL: Final = HEADER.pack(socket.AF_UNSPEC, 0, 0)
"""Body of a request about the connections of all families."""


def _flush() -> None:
    with Netlink(NETLINK_NETFILTER) as link:
        _delete(link)


def _dump() -> tuple[Connection, ...]:
    with Netlink(NETLINK_NETFILTER) as link:
        return _listed(link)


def _delete(link: Netlink) -> None:
    with _refused():
        link.ask(IPCTNL_MSG_CT_DELETE, _ALL)


def _listed(link: Netlink) -> tuple[Connection, ...]:
    with _refused():
        return tuple(decode(message) for message in link.dump(IPCTNL_MSG_CT_GET, _ALL))


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except OSError as refused:
        if refused.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        remedy = "load its module: modprobe nf_conntrack_netlink"
        raise Unsupported("this kernel does not list connections (CONFIG_NF_CT_NETLINK)", remedy=remedy) from None


def decode(message: Message) -> Connection:
    """The connection in a netlink message."""
    found = dict(attributes(message.body[HEADER.size :]))
    original, reply = (_direction(found[kind]) for kind in (TUPLE_ORIG, TUPLE_REPLY))
    status = number(found.get(STATUS))
    tcp = _inside(_inside(found, PROTOINFO), PROTOINFO_TCP)
    return Connection(
        protocol=number(_inside(dict(attributes(found[TUPLE_ORIG])), TUPLE_PROTO).get(PROTO_NUM)),
        original=original,
        reply=reply,
        state=STATES[number(tcp[TCP_STATE])] if TCP_STATE in tcp else "",
        status=tuple(name for bit, name in enumerate(STATUSES) if status >> bit & 1),
        mark=number(found.get(MARK)),
        zone=number(found.get(ZONE)),
        helper=string(_inside(found, HELP).get(HELP_NAME)),
        timeout=number(found.get(TIMEOUT)),
    )


def _inside(found: Mapping[int, memoryview], kind: int) -> dict[int, memoryview]:
    return dict(attributes(found.get(kind, memoryview(b""))))


def _direction(payload: memoryview) -> Direction:
    found = dict(attributes(payload))
    addresses, ports = _inside(found, TUPLE_IP), _inside(found, TUPLE_PROTO)
    source, destination = (
        str(ip_address(bytes(addresses[v4] if v4 in addresses else addresses[v6])))
        for v4, v6 in ((IP_V4_SRC, IP_V6_SRC), (IP_V4_DST, IP_V6_DST))
    )
    return Direction(
        src=source, dst=destination, sport=number(ports.get(PROTO_SRC_PORT)), dport=number(ports.get(PROTO_DST_PORT))
    )
