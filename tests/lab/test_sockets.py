"""Programs in the hosts of a lab call each other, and what their kernels track of it."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.lab.capture import Capture
from harness.lab.lab import Lab
from harness.lab.sockets import Programs
from harness.model.observation import Flow
from harness.ruleset.conntrack import connections
from harness.scenario.flow import plan, speakers, speaking
from harness.scenario.models.actions import ConnectAction, ListenAction
from harness.scenario.models.sockets import Connect, Exchange, Listen
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.wait import wait_until

pytestmark = pytest.mark.kernel

RULESET = """\
table inet t {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct mark set 0x2a
		tcp dport 22 reject with tcp reset
		tcp dport 23 reject with icmpx admin-prohibited
		udp dport 23 reject
		tcp dport 99 drop
	}
}
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "wan0" tcp dport 8080 dnat to 10.0.2.2:80
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "lan0" tcp dport 80 masquerade
	}
}
"""
TCP_CLOSE = 7
"""include/net/tcp_states.h"""
LISTENING = Listen(on="server", tcp=80, udp=53)


@pytest.fixture
def ruleset() -> str:
    return RULESET


def connect(programs: Programs, network: Network, tcp: int, to: str = "server", **more: Any) -> Flow:
    call: Any = programs.connect(plan(Connect(from_="client", to=to, tcp=tcp, **more), network))
    call.start()

    def still() -> bool:
        call.advance()
        state = call._caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return bool(call._callee or call._errors._icmp or state == TCP_CLOSE or tcp == 99)

    wait_until(still, 5, "the call to end")
    flow: Flow = call.finish()
    return flow


def exchange(programs: Programs, network: Network, **more: Any) -> Flow:
    exchanged = Exchange(from_="client", to="server", **more)
    call: Any = programs.exchange(plan(exchanged, network), b"?", b"!")
    call.start()

    def ended() -> bool:
        call.advance()
        answered = call._answered if exchanged.udp else call._answer.arrived
        return bool(answered or call._errors._icmp)

    wait_until(ended, 5, "the answer")
    flow: Flow = call.finish()
    return flow


def test_a_connection(programs: Programs, network: Network) -> None:
    assert connect(programs, network, 80) == Flow(
        result="connected", host="client", by="server", src="10.0.2.1", sport=40000, dst="10.0.2.2", dport=80
    )


def test_a_connection_over_ipv6(programs: Programs, network: Network) -> None:
    flow = connect(programs, network, 80, family="ip6")
    assert (flow.result, flow.dst) == ("connected", "2001:db8:2::2")


def test_a_connection_by_nat(programs: Programs, lab: Lab, network: Network) -> None:
    flow = connect(programs, network, 8080, to="device", sport=50001)
    assert (flow.by, flow.src, flow.sport, flow.dst, flow.dport) == ("server", "10.0.2.1", 50001, "10.0.2.2", 80)
    (entry,) = connections(lab.device)
    assert (entry.original.src, entry.original.dst, entry.original.dport) == ("203.0.113.5", "203.0.113.1", 8080)
    assert (entry.reply.src, entry.reply.sport, entry.reply.dst) == ("10.0.2.2", 80, "10.0.2.1")
    assert {"SRC_NAT", "DST_NAT", "ASSURED"} <= set(entry.status)
    assert (entry.protocol, entry.state, entry.mark) == (6, "ESTABLISHED", 0x2A)


@pytest.mark.parametrize(
    ("port", "family", "result"),
    [
        (81, "ip", "refused"),
        (22, "ip", "refused"),
        (22, "ip6", "refused"),
        (23, "ip", "unreachable"),
        (23, "ip6", "unreachable"),
        (99, "ip", "timeout"),
    ],
)
def test_calls_that_fail(programs: Programs, network: Network, port: int, family: str, result: str) -> None:
    assert connect(programs, network, port, family=family) == Flow(result=result, host="client")


def test_what_failed_can_be_tried_again_from_the_same_port(programs: Programs, network: Network) -> None:
    assert connect(programs, network, 81).result == "refused"
    programs.listen(Listen(on="server", tcp=81))
    assert connect(programs, network, 81).result == "connected"


def test_a_request_through_a_connection(programs: Programs, network: Network) -> None:
    connect(programs, network, 80)
    for _ in range(3):
        flow = exchange(programs, network, tcp=80)
        assert (flow.result, flow.by, flow.src) == ("answered", "server", "10.0.2.1")


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_request_by_udp(programs: Programs, lab: Lab, network: Network, family: str) -> None:
    for _ in range(2):
        flow = exchange(programs, network, udp=53, family=family)
        assert (flow.result, flow.by, flow.sport, flow.dport) == ("answered", "server", 40000, 53)
        assert flow.dst == {"ip": "10.0.2.2", "ip6": "2001:db8:2::2"}[family]
    (entry,) = connections(lab.device)
    assert entry.protocol == 17
    assert "SEEN_REPLY" in entry.status


def test_a_request_that_nobody_takes(programs: Programs, network: Network) -> None:
    assert exchange(programs, network, udp=54).result == "unreachable"
    assert exchange(programs, network, udp=23).result == "unreachable"


def test_nothing_is_sent_when_it_is_over(lab: Lab, network: Network) -> None:
    with Programs(lab) as programs:
        programs.listen(LISTENING)
        connect(programs, network, 80)
        exchange(programs, network, tcp=80)
        capture = Capture(lab.hosts.values())
        gc.collect()
    assert capture.read() == []
    assert connections(lab.device)[0].state == "ESTABLISHED"


def test_what_cannot_be(programs: Programs, network: Network) -> None:
    with pytest.raises(HarnessError, match="server cannot use port 80: Address already in use"):
        programs.listen(LISTENING)
    connect(programs, network, 80)
    with pytest.raises(HarnessError, match=r"connection client :40000 → server 10\.0\.2\.2:80 tcp exists already"):
        connect(programs, network, 80)
    unconnected = plan(Exchange(from_="client", to="server", tcp=99), network)
    with pytest.raises(HarnessError, match=r"there is no connection client .*: it failed in a step before"):
        programs.exchange(unconnected, b"?", b"!")


def test_only_hosts_with_a_program_speak() -> None:
    silent = Network.of(LABS["nat-gateway"])
    calls = [
        ListenAction(listen=Listen(on="server", tcp=80)),
        ConnectAction(connect=Connect(from_="client", to="device", tcp=80)),
    ]
    assert speakers(calls, silent) == {"client", "device", "server"}
    assert {name for name, host in speaking(speakers(calls, silent), silent).hosts.items() if host.silent} == {"pc"}
    assert speaking((), silent) is silent


def test_a_silent_host_has_no_programs() -> None:
    refused = pytest.raises(HarnessError, match="client is silent: it has no addresses for a program to use")
    with Lab.build(Network.of(LABS["host"])) as lab, Programs(lab) as programs, refused:
        programs.listen(Listen(on="client", tcp=80))
