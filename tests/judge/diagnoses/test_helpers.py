"""Connections that another announces: which helper of connection tracking is missing."""

from __future__ import annotations

import msgspec
import pytest

from harness.model.observation import Connection, Direction, Drop, Flow, ObservedPacket, Rule
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import advice, dropped, ethernet, headers, rule, step

RELATED = rule("ct state related accept", line=8, comment="data")
PASS = {"verdict": "accept", "delivered": "server"}
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
    assert "rulesets/edge.nft:3 assigns one only to a connection whose first packet it matches" in found


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
    found = advice({"rule": "data"}, packet, rules=(RELATED,), connections=(translated,), listed=True)
    assert [one for one in found if "belongs at hook" in one] == []
