"""Connections as the kernel lists them, packed as it does; real ones are in tests/lab/test_sockets.py."""

from __future__ import annotations

from ipaddress import ip_address

from harness.ruleset import conntrack
from harness.ruleset.conntrack import decode
from tests.ruleset.builders import attribute, message, nest, u32

TCP, UDP = 6, 17


def tuple_(kind: int, source: str, destination: str, protocol: int, sport: int, dport: int) -> bytes:
    version = ip_address(source).version
    src, dst = (
        (conntrack.IP_V4_SRC, conntrack.IP_V4_DST) if version == 4 else (conntrack.IP_V6_SRC, conntrack.IP_V6_DST)
    )
    return nest(
        kind,
        nest(
            conntrack.TUPLE_IP,
            attribute(src, ip_address(source).packed),
            attribute(dst, ip_address(destination).packed),
        ),
        nest(
            conntrack.TUPLE_PROTO,
            attribute(conntrack.PROTO_NUM, bytes([protocol])),
            attribute(conntrack.PROTO_SRC_PORT, sport.to_bytes(2, "big")),
            attribute(conntrack.PROTO_DST_PORT, dport.to_bytes(2, "big")),
        ),
    )


def test_an_established_connection_with_all_that_is_known_of_it() -> None:
    found = decode(
        message(
            0x100,
            2,
            tuple_(conntrack.TUPLE_ORIG, "203.0.113.5", "203.0.113.1", TCP, 40000, 8080),
            tuple_(conntrack.TUPLE_REPLY, "10.0.2.2", "203.0.113.5", TCP, 80, 40000),
            attribute(conntrack.STATUS, u32(1 << 1 | 1 << 2 | 1 << 5)),
            nest(
                conntrack.PROTOINFO,
                nest(conntrack.PROTOINFO_TCP, attribute(conntrack.TCP_STATE, bytes([3]))),
            ),
            nest(conntrack.HELP, attribute(conntrack.HELP_NAME, b"ftp\0")),
            attribute(conntrack.MARK, u32(0x2A)),
            attribute(conntrack.ZONE, (7).to_bytes(2, "big")),
            attribute(conntrack.TIMEOUT, u32(120)),
        )
    )
    assert (found.original.src, found.original.sport) == ("203.0.113.5", 40000)
    assert (found.original.dst, found.original.dport) == ("203.0.113.1", 8080)
    assert (found.reply.src, found.reply.sport, found.reply.dst) == ("10.0.2.2", 80, "203.0.113.5")
    assert (found.protocol, found.state, found.helper) == (TCP, "ESTABLISHED", "ftp")
    assert found.status == ("SEEN_REPLY", "ASSURED", "DST_NAT")
    assert (found.mark, found.zone, found.timeout) == (0x2A, 7, 120)


def test_one_of_which_little_is_known() -> None:
    ends = ("2001:db8::1", "2001:db8::2")
    found = decode(
        message(
            0x100,
            10,
            tuple_(conntrack.TUPLE_ORIG, *ends, UDP, 1, 2),
            tuple_(conntrack.TUPLE_REPLY, *ends[::-1], UDP, 2, 1),
        )
    )
    assert (found.original.src, found.original.dst, found.protocol) == (*ends, UDP)
    assert (found.state, found.status, found.mark, found.zone, found.helper) == ("", (), 0, 0, "")


def test_states_have_the_numbers_of_the_kernel() -> None:
    # enum tcp_conntrack in include/uapi/linux/netfilter/nf_conntrack_tcp.h
    assert conntrack.STATES[:4] == ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED")
    assert conntrack.STATES[7] == "TIME_WAIT"
