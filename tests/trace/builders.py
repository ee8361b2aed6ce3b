"""Values made by hand for tests of this room."""

from __future__ import annotations

import socket

from harness.trace.formatter import EventFormatter
from harness.trace.lines import Line
from harness.tracer.discover import Function
from harness.tracer.events import Event, EventKind

CHAIN_ADDRESS, OTHER_CHAIN = 0xFFFF0001, 0xFFFF0002


def function(name: str) -> Function:
    return Function(name=name, kernel_name=name, position=0, carries="sk_buff", layer="IPv4", priority=1)


FUNCTIONS = [
    function(name)
    for name in (
        *("ip_rcv", "nft_do_chain", "nft_immediate_eval", "nf_hook_slow", "ipv4_conntrack_in"),
        *("ip_route_input_noref", "nft_lookup_eval", "ip6_route_input"),
    )
]


def event(kind: EventKind, number: int = 0, *, a: int = 0, b: int = 0, packet: int = 1, ifindex: int = 2) -> Event:
    return Event(0, 0xAA, a, b, packet, 4026531840, ifindex, number, kind, 0)


def address(kind: EventKind, text: str, port: int, protocol: int, packet: int = 1) -> Event:
    six = ":" in text
    raw = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, text).ljust(16, b"\0")
    words = [int.from_bytes(raw[at : at + 8], "little") for at in (0, 8)]
    ethertype = 0x86DD if six else 0x0800
    return event(kind, ethertype, a=words[0], b=words[1], packet=packet, ifindex=port | protocol << 16)


BORN = [event(EventKind.BIRTH), address(EventKind.FROM, "10.0.0.1", 1234, 6), address(EventKind.TO, "10.0.0.2", 80, 6)]


class Known:
    """Names of what events refer to by number."""

    functions = FUNCTIONS
    reasons = {7: "NETFILTER_DROP"}

    def __init__(self) -> None:
        self.chains = {CHAIN_ADDRESS: "inet filter forward", OTHER_CHAIN: "inet filter services"}

    def chain(self, address: int) -> str:
        return self.chains.get(address, "")

    def renamed(self, address: int) -> None:
        self.chains[address] = "inet filter renamed"

    def symbol(self, _: int) -> str:
        return "tcp_v4_rcv"

    def stack(self, number: int) -> tuple[str, ...]:
        return (f"stack{number}",)

    def device(self, _: int, index: int) -> str:
        return f"eth{index}"


def lines(*events: Event) -> list[Line]:
    return [one.line for one in EventFormatter(Known()).format_batch([*BORN, *events])]
