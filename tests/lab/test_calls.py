"""How a flow ends for a program that a reset or an ICMP error reaches: real sockets, every state, every reject.

What a program without IP_RECVERR sees: net/ipv4/tcp_ipv4.c and net/ipv6/tcp_ipv6.c (tcp_v4_err, tcp_v6_err),
net/ipv4/udp.c and net/ipv6/udp.c, and the tables icmp_err_convert[] and tab_unreach[] in their icmp.c.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from typing import Any

import pytest

from harness.lab.calls import Call
from harness.lab.capture import Capture
from harness.lab.lab import Lab
from harness.lab.sockets import Programs
from harness.packets.headers import fields
from harness.ruleset.nft import Nft
from harness.scenario.flow import plan
from harness.scenario.models.sockets import Connect, Exchange
from harness.topology.network import Network
from harness.wait import wait_until

pytestmark = pytest.mark.kernel

EMPTY = """\
table inet t {
	chain forward {
		type filter hook forward priority filter; policy accept;
	}
}
"""
REJECT = "insert rule inet t forward iifname wan0 reject with {}"
ERRORS = {
    "ip": [
        *("net-unreachable", "host-unreachable", "prot-unreachable", "port-unreachable"),
        *("net-prohibited", "host-prohibited", "admin-prohibited"),
    ],
    "ip6": ["no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route"],
}
ICMP = {"ip": "icmp", "ip6": "icmpv6"}
SOFT = {"net-unreachable", "host-unreachable", "no-route", "addr-unreachable"}
"""What a UDP socket keeps from its program, unless that asks (``fatal`` in icmp_err_convert[] and tab_unreach[])."""
EVERY = [(family, error) for family, errors in ERRORS.items() for error in errors]


@pytest.fixture
def ruleset() -> str:
    return EMPTY


def ends(lab: Lab, call: Call) -> str:
    """The result of a call, once the client has got an answer: an ICMP error, or what comes from the server's port."""
    capture = Capture([lab.hosts["client"]])
    call.start()

    def answered() -> bool:
        call.advance()
        frames = [one.frame for one in capture.read() if not one.outgoing]
        return any(_is_icmp(frame) or fields(frame).get("sport") in (80, 53) for frame in frames)

    wait_until(answered, 5, "an answer")
    call.advance()
    return call.finish().result


def connect(programs: Programs, network: Network, family: Any) -> Call:
    return programs.connect(plan(Connect(from_="client", to="server", tcp=80, family=family), network))


def exchange(programs: Programs, network: Network, request: bytes = b"?", **more: Any) -> Call:
    return programs.exchange(plan(Exchange(from_="client", to="server", **more), network), request, b"!")


@pytest.mark.parametrize(("family", "error"), EVERY)
def test_any_error_ends_a_connection_that_is_being_made(
    lab: Lab, programs: Programs, network: Network, family: str, error: str
) -> None:
    _reject(lab, f"{ICMP[family]} {error}")
    assert ends(lab, connect(programs, network, family)) == "unreachable"


@pytest.mark.parametrize(("family", "error"), EVERY)
def test_no_error_ends_an_established_connection(
    lab: Lab, programs: Programs, network: Network, family: str, error: str
) -> None:
    assert ends(lab, connect(programs, network, family)) == "connected"
    _reject(lab, f"{ICMP[family]} {error}")
    assert ends(lab, exchange(programs, network, tcp=80, family=family)) == "timeout"


@pytest.mark.parametrize(("family", "error"), EVERY)
def test_a_udp_socket_reports_what_is_fatal(
    lab: Lab, programs: Programs, network: Network, family: str, error: str
) -> None:
    _reject(lab, f"{ICMP[family]} {error}")
    expected = "timeout" if error in SOFT else "unreachable"
    assert ends(lab, exchange(programs, network, udp=53, family=family)) == expected


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_reset_ends_both(lab: Lab, programs: Programs, network: Network, family: str) -> None:
    assert ends(lab, connect(programs, network, family)) == "connected"
    _reject(lab, "tcp reset")
    assert ends(lab, exchange(programs, network, tcp=80, family=family)) == "refused"
    assert ends(lab, connect(programs, network, family)) == "refused"


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_either_icmp_by_one_rule(lab: Lab, programs: Programs, network: Network, family: str) -> None:
    _reject(lab, "icmpx port-unreachable")
    assert ends(lab, connect(programs, network, family)) == "unreachable"
    assert ends(lab, exchange(programs, network, udp=53, family=family)) == "unreachable"


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_port_where_nothing_listens(lab: Lab, programs: Programs, network: Network, family: str) -> None:
    assert ends(lab, exchange(programs, network, udp=54, family=family)) == "unreachable"


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_datagram_that_is_too_long_for_the_way(lab: Lab, programs: Programs, network: Network, family: str) -> None:
    for host, interface in (("device", "lan0"), ("server", "eth0")):
        lab.hosts[host].namespace.call(_set_mtu, interface, 1280)
    long = exchange(programs, network, b"?" * 1400, udp=53, family=family)
    assert ends(lab, long) == "unreachable"  # EMSGSIZE


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_an_answer_that_is_rejected_is_the_servers_concern(
    lab: Lab, programs: Programs, network: Network, family: str
) -> None:
    Nft(lab.device.namespace).run(
        f"insert rule inet t forward iifname lan0 reject with {ICMP[family]} port-unreachable"
    )
    call = connect(programs, network, family)
    capture = Capture([lab.hosts["server"]])
    call.start()
    wait_until(
        lambda: call.advance() or any(_is_icmp(one.frame) for one in capture.read() if not one.outgoing), 5, "ICMP"
    )
    assert call.finish().result == "timeout"


def test_a_program_that_asks_for_a_soft_error_would_get_it(lab: Lab, programs: Programs, network: Network) -> None:
    """SO_ERROR gives soft errors too, so the harness does not ask by that."""
    assert ends(lab, connect(programs, network, "ip")) == "connected"
    _reject(lab, "icmp port-unreachable")
    call: Any = exchange(programs, network, tcp=80, family="ip")
    capture = Capture([lab.hosts["client"]])
    call.start()
    wait_until(lambda: any(_is_icmp(one.frame) for one in capture.read()), 5, "ICMP")
    with pytest.raises(BlockingIOError):
        call._through.caller.recv(1, socket.MSG_PEEK)
    assert call._through.caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def _reject(lab: Lab, answer: str) -> None:
    kind = answer.replace(" ", " type ", 1) if answer.startswith("icmp") else answer
    Nft(lab.device.namespace).run(REJECT.format(kind))


def _is_icmp(frame: bytes) -> bool:
    seen = fields(frame)
    return str(seen.get("protocol")).startswith("icmp") and seen.get("type") in (1, 2, 3)


def _set_mtu(interface: str, mtu: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8922, struct.pack("16si12x", interface.encode(), mtu))  # SIOCSIFMTU
