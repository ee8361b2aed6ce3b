"""Connections that another announces: which helper of connection tracking is missing."""

from __future__ import annotations

import msgspec
import pytest

from harness.model.observation import Connection, Direction, Drop, Flow, ObservedPacket, Rule
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import advice, base, dropped, ethernet, headers, rule, step

RELATED = rule("ct state related accept", line=8, comment="data")
PASS = {"verdict": "accept", "delivered": "server"}
ETHERNET, PROTOCOL = 14, 9
"""Bytes of an Ethernet header, and the place of the protocol behind it."""
MAYBE = "if the packet begins a connection announced in another: "


def data(dport: int = 30001, *, src: str = "203.0.113.5", dst: str = "10.0.2.2") -> ObservedPacket:
    drop = Drop(host="device", function="nft_do_chain", reason="NETFILTER_DROP")
    return dropped(step("drop"), frame=ethernet(headers(src, dst, dport=dport)), drop=drop)


def control(*status: str, helper: str = "", dport: int = 21, protocol: int = 6, called: str = "10.0.2.2") -> Connection:
    """The connection of a client to the server, called at its own address or at another."""
    return Connection(
        protocol=protocol,
        original=Direction(src="203.0.113.5", dst=called, sport=40000, dport=dport),
        reply=Direction(src="10.0.2.2", dst="203.0.113.5", sport=dport, dport=40000),
        status=status,
        helper=helper,
    )


def said(packet: ObservedPacket, *connections: Connection, rules: tuple[Rule, ...] = (RELATED,), **more: object) -> str:
    expected = {"rule": "data"} if more.pop("expects_related", False) else PASS
    found = advice(expected, packet, rules=rules, connections=connections, listed=True, **more)
    return "\n".join(one for one in found if "helper" in one)


@pytest.mark.parametrize(
    ("port", "protocol", "helper"), [(21, 6, "ftp"), (69, 17, "tftp"), (5060, 17, "sip"), (6667, 6, "irc")]
)
def test_no_rule_assigns_a_helper(port: int, protocol: int, helper: str) -> None:
    found = said(data(), control(dport=port, protocol=protocol))
    assert found.startswith(MAYBE)
    assert f'the kernel assigns none by itself: declare a `ct helper` of type "{helper}"' in found
    assert f"assign it to port {port}" in found


def test_a_rule_for_another_port_assigns_none() -> None:
    other = rule('tcp dport 2121 ct helper set "std"', line=3)
    assert "the kernel assigns none by itself" in said(data(), control(), rules=(other, RELATED))


@pytest.mark.parametrize(
    "text", ['tcp dport 21 ct helper set "std"', "tcp dport { 21, 2121 } counter ct helper set 'x'"]
)
def test_a_rule_assigns_one_and_did_not_match(text: str) -> None:
    found = said(data(), control(), rules=(rule(text, line=3), RELATED))
    assert found.endswith(
        "rulesets/edge.nft:3 assigns one only to a connection whose first packet it matches, in a chain behind "
        "connection tracking (priority -200 or higher)"
    )


@pytest.mark.parametrize("related", ["ct state established,related accept", "ct state vmap { related : accept }"])
def test_what_accepts_related_packets(related: str) -> None:
    assert said(data(), control(), rules=(rule(related),))
    assert not said(data(), control(), rules=(rule("ct state established accept"),))
    assert not said(data(), control(), rules=(rule("ct state != related drop"),))


def test_of_one_that_is_translated_nf_nat_is_missing() -> None:
    translated = control("DST_NAT", helper="ftp", called="203.0.113.1")
    found = said(data(dst="203.0.113.1"), translated, network=Network.of(LABS["router"]))
    assert "is translated, and what its helper ftp reads in it only with nf_nat_ftp" in found
    assert found.endswith("add `modules: [nf_nat_ftp]` to device")


@pytest.mark.parametrize("modules", [["nf_nat_ftp"], ["nf-nat-ftp"]])
def test_with_the_module_it_is_not_missing(modules: list[str]) -> None:
    device = msgspec.structs.replace(LABS["router"].hosts["device"], modules=modules)
    network = Network.of(msgspec.structs.replace(LABS["router"], hosts={**LABS["router"].hosts, "device": device}))
    translated = control("DST_NAT", helper="ftp", called="203.0.113.1")
    assert not said(data(dst="203.0.113.1"), translated, network=network)
    assert not said(data(), control(helper="ftp"), network=Network.of(LABS["router"]))  # nothing is translated


def test_near_misses() -> None:
    assert not said(data(80), control())  # a service, which nobody announces
    assert not said(data(1023), control())
    assert said(data(1024), control())
    fragment = b"".join((data().frame[:20], b"\0\1", data().frame[22:34]))
    assert not said(msgspec.structs.replace(data(), frame=fragment), control())  # a later fragment has no port
    assert not said(data(), control(), rules=(RELATED, rule("tcp dport 30001 drop")))  # a rule is about it
    assert not said(data(src="203.0.113.6"), control())  # another host
    assert not said(data(), control(dport=22))  # a protocol that announces none
    assert not said(data())
    expected = Connection(
        protocol=6,
        original=Direction(src="203.0.113.5", dst="10.0.2.2", sport=40000, dport=30001),
        reply=Direction(src="10.0.2.2", dst="203.0.113.5", sport=30001, dport=40000),
        status=("EXPECTED",),
    )
    assert not said(data(), control(), expected)  # it was announced


def test_a_scenario_that_expects_the_rule_for_related_packets_is_sure() -> None:
    found = said(data(80), control(), rules=(RELATED,), expects_related=True)
    assert found.startswith("tcp 203.0.113.5:40000 → 10.0.2.2:21")


def test_a_flow_that_succeeded_lacks_no_helper() -> None:
    for result, is_said in (("timeout", True), ("refused", True), ("connected", False)):
        assert bool(said(data(), control(), flow=Flow(result=result, host="client"))) is is_said


def test_the_helper_is_the_cause_and_not_the_way_that_the_packet_took_without() -> None:
    translated = control("DST_NAT", helper="ftp", called="203.0.113.1")
    packet = msgspec.structs.replace(
        data(dst="203.0.113.1"), steps=(step("accept", chain="inet filter input", hook="input"),)
    )
    bases = base("inet filter input"), base(RELATED.chain_path)
    for connections, is_elsewhere in (((), True), ((translated,), False)):
        found = advice({"rule": "data"}, packet, rules=(RELATED,), policies=bases, connections=connections, listed=True)
        assert any("belongs at hook" in one for one in found) is is_elsewhere


@pytest.mark.parametrize(("protocol", "is_said"), [(6, True), (17, True), (132, False)])
def test_connections_of_tcp_and_udp_are_announced(protocol: int, is_said: bool) -> None:
    frame = bytearray(data().frame)
    frame[ETHERNET + PROTOCOL] = protocol
    assert bool(said(msgspec.structs.replace(data(), frame=bytes(frame)), control())) is is_said


def test_a_packet_that_the_scenario_wants_dropped_lacks_no_helper() -> None:
    found = advice({"verdict": "drop"}, data(), rules=(RELATED,), connections=(control(),), listed=True)
    assert not any("helper" in one for one in found)


def test_a_packet_that_was_seen_to_be_related_has_its_helper() -> None:
    related = step("drop", rule("ct state related drop", line=7))
    assert not said(msgspec.structs.replace(data(), steps=(related,)), control())
    established = step("drop", rule("ct state established drop", line=7))
    assert said(msgspec.structs.replace(data(), steps=(established,)), control())
