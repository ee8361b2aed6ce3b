"""Packets that need others before them."""

from __future__ import annotations

import pytest

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.exchanges import Exchanges
from harness.generate.expressions import Fields
from harness.generate.packets import RESET, UNBEGUN, Candidates
from harness.generate.simulate import SimulatedRuleset
from tests.listings import facts, key_of, packet, packets, table


def test_an_error_quotes_the_packet_that_was_let_by() -> None:
    first, error = packet("states", "input", "ct state related")
    assert first == {"from": "device", "to": "client", "udp": {"dport": 53}}
    assert (error["from"], error["to"]) == ("client", "device")
    assert error["packet"] == (
        'IP()/ICMP(type=3, code=1)/IP(src="203.0.113.1", dst="203.0.113.5")/UDP(sport=40000, dport=53)'
    )


def test_an_error_quotes_what_was_translated_and_goes_to_the_address_that_hides_the_sender() -> None:
    first, error = packet("states", "forward", 'iifname "wan0" icmp type time-exceeded')
    assert (first["from"], first["to"], error["to"]) == ("server", "client", "device")
    assert 'ICMP(type=11, code=0)/IP(src="203.0.113.1", dst="203.0.113.5")' in str(error["packet"])


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("destination-unreachable", "ICMPv6DestUnreach"),
        ("packet-too-big", "ICMPv6PacketTooBig"),
        ("time-exceeded", "ICMPv6TimeExceeded"),
        ("parameter-problem", "ICMPv6ParamProblem"),
    ],
)
def test_errors_of_ipv6_are_layers_of_their_own(kind: str, layer: str) -> None:
    related = {"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": "related"}}
    message = {"match": {"op": "==", "left": {"payload": {"protocol": "icmpv6", "field": "type"}}, "right": kind}}
    found = table([message, related, {"accept": None}], policy="accept")
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    _, error = next(made.of(("inet", "t", "forward", 2))).sends
    assert f"/{layer}(code=0)/IPv6(src=" in error["packet"]


def test_a_connection_is_assured_by_its_third_packet() -> None:
    syn, answer, ack = packet("states", "forward", "ct status assured")
    assert "flags" not in syn["tcp"]  # type: ignore[operator]
    assert answer["tcp"] == {"sport": 4711, "dport": 40000, "flags": "SA", "ack": 1001}
    assert answer["to"] == "device"  # which hides the server
    assert ack["tcp"] == {"dport": 4711, "flags": "A", "seq": 1001, "ack": 1001}
    assert (ack["from"], ack["to"]) == (syn["from"], syn["to"])


@pytest.mark.parametrize("change", [{"type": "echo-request"}, {"proto": "tcp", "type": None}, {"type": "redirect"}])
def test_what_quotes_no_packet_is_not_related(change: Fields) -> None:
    network = lab.choose(facts("states")).network
    fields: Fields = {"from": "client", "to": "server", "family": 4, "proto": "icmp", "ether_type": 0x800}
    fields |= {"state": "related", "type": "time-exceeded", "code": 0}
    exchanges = Exchanges(network, [22], 4711)
    assert list(exchanges.of(fields))
    assert not list(exchanges.of(fields | change))


def test_no_handshake_with_the_device_whose_kernel_resets_it() -> None:
    network = lab.choose(facts("states")).network
    fields: Fields = {"from": "client", "to": "server", "family": 4, "proto": "tcp", "ether_type": 0x800}
    fields |= {"sport": 40000, "dport": 4711, "state": "established", "assured": True}
    exchanges = Exchanges(network, [22], 4711)
    assert list(exchanges.of(fields))
    assert not list(exchanges.of(fields | {"to": "device"}))
    assert not list(exchanges.of(fields | {"from": "device"}))


def test_a_host_that_lets_pings_in_answers_them() -> None:
    request, answer = packet("guarded", "output", "ct state established,related")
    assert (request["to"], request["icmp"]) == ("device", {})
    assert answer == {"from": "device", "to": request["from"], "icmp": {"type": "echo-reply"}}


def test_why_no_connection_was_begun_is_said() -> None:
    found, made = facts("guarded"), packets("guarded")
    program = key_of(found, "output", "tcp sport 80")
    closed = next(one.place for one in found.rules if one.table == "closed")
    for key, why in ((program, RESET), (closed, UNBEGUN)):
        assert not list(made.of(key))
        assert made.unbegun(key) == why
    answers = key_of(found, "output", "ct state established,related")
    assert next(made.of(answers), None) is not None
    assert made.unbegun(answers) == ""
