"""A packet for each rule and policy."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.packets import Candidates
from harness.generate.simulate import SimulatedRuleset
from tests.listings import facts, key_of, packet, packets, table


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        *(("edge", 0), ("home", 0), ("services", 0), ("docker", 1), ("lan0", 0), ("netavark", 0), ("vlans", 0)),
        *(("blocks", 0), ("bridged", 0), ("zones", 0), ("gateway", 3), ("kernel", 6), ("ways", 1), ("tunnel", 0)),
        ("states", 1),
    ],
)
def test_each_rule_and_policy_gets_a_packet(name: str, missing: int) -> None:
    found, made = facts(name), packets(name)
    keys = [(one.family, one.table, one.chain, one.handle) for one in found.rules]
    keys += [(one.family, one.table, one.name, 0) for one in found.chains if one.is_base]
    assert sum(next(made.of(key), None) is None for key in keys) == missing


def test_a_packet_asks_for_what_its_rule_wants() -> None:
    assert packet("edge", "from_wan", "tcp dport 113") == ({"from": "client", "to": "server", "tcp": {"dport": 113}},)
    assert packet("edge", "forward", "") == ({"from": "client", "to": "server", "tcp": {"dport": 4711}},)


def test_a_packet_gets_by_the_rules_before_its_own() -> None:
    (send,) = packet("docker", "DOCKER-USER", "counter return")
    assert send["from"] == "client"  # 192.0.2.66 would be banned


def test_an_address_is_translated_before_the_rule_that_asks_for_that() -> None:
    (send,) = packet("home", "forward", 'iifname "enp1s0" ct status dnat')
    assert (send["to"], send["tcp"]) in [("device", {"dport": 80}), ("device", {"dport": 8443})]


def test_an_answer_follows_a_packet_that_is_let_in() -> None:
    first, answer = packet("edge", "input", "ct state established,related")
    assert (first["from"], first["to"]) == (answer["to"], answer["from"]) == ("device", "client")


def test_a_state_map_is_shown_by_an_answer() -> None:
    first, answer = packet("edge", "forward", "ct state vmap")
    assert (first["from"], first["to"]) == (answer["to"], answer["from"])
    assert answer["tcp"]["flags"] == "SA"  # type: ignore[index]


def test_a_chain_of_type_nat_is_seen_by_the_family_that_was_loaded_first_only() -> None:
    (ipv4,) = packet("kernel", "prerouting", "")
    (ipv6,) = packet("kernel", "nat", "")
    assert "ip6" in ipv6
    assert "ip6" not in ipv4


def test_a_packet_that_conntrack_considers_invalid_does_not_come_past_a_rule_for_those() -> None:
    assert packet("kernel", "input", "icmp type { destination-unreachable")[0]["icmp"] == {}
    assert packet("kernel", "input", "icmp type 0-255")[0]["icmp"] == {"type": "timestamp-request"}


def test_a_packet_that_leaves_where_it_came_from_is_sent_to_the_device_by_its_ethernet_address() -> None:
    (send,) = packet("kernel", "forward", 'iifname "lan0" oifname "lan0"')
    device = lab.choose(facts("kernel")).network.hosts["device"]
    assert send["ether"] == {"dst": device.interfaces["lan0"].mac}
    assert send["to"] == "10.0.2.2"
    assert send["ip"] == {"src": "10.0.2.3"}


def test_the_way_back_is_another_one_than_the_packet_came_by() -> None:
    (send,) = packet("ways", "prerouting", "fib saddr . iif oif")
    owner = lab.choose(facts("ways")).network.owner(ip_address(str(send["ip"]["src"])))  # type: ignore[index]
    assert owner not in (None, "device", send["from"])


def test_flags_of_which_none_is_set() -> None:
    (send,) = packet("ways", "prerouting", "tcp flags !")
    assert not set(send["tcp"].get("flags", "S")) & set("FSRA")  # type: ignore[attr-defined]


def test_what_a_set_remembers_is_a_field_that_the_packet_has() -> None:
    (send,) = packet("ways", "input", "update @seen6")
    assert "ip6" in send


def test_the_host_that_a_port_is_forwarded_to_is_where_rules_let_it_through() -> None:
    network = lab.choose(facts("ways")).network
    owner = network.owner(ip_address("10.9.0.2"))
    assert network.hosts["device"].interfaces["eth2"].peer.host == owner
    (send,) = packet("ways", "dmz", "tcp dport 80")
    assert (send["from"], send["to"]) == (network.hosts["device"].interfaces["eth0"].peer.host, owner)


def test_an_address_of_loopback_is_the_devices_own() -> None:
    (send,) = packet("kernel", "input", "ip saddr 127.0.0.0/8 counter")
    assert (send["from"], send["to"]) == ("device", "device")


def test_an_answer_of_the_device_is_not_one_of_tcp() -> None:
    """No program listens there: the kernel resets the connection before the device answers."""
    assert "tcp" not in packet("kernel", "output", "ct state established")[-1]


def test_nor_is_an_answer_of_a_router() -> None:
    """Its kernel, which has addresses, resets the connection as well."""
    found = facts("edge")
    chosen = lab.choose(found).network
    routers = {
        name: plan if name == chosen.device else msgspec.structs.replace(plan, silent=False)
        for name, plan in chosen.hosts.items()
    }
    network = msgspec.structs.replace(chosen, hosts=routers)
    candidates = Candidates(SimulatedDevice(SimulatedRuleset(found), network))
    first, answer = next(candidates.of(key_of(found, "input", "ct state established,related"))).sends
    assert (first["from"], first["to"]) == (answer["to"], answer["from"]) == ("device", "client")
    assert "tcp" not in answer


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("ip saddr 198.51.100.0/24 drop", ("ip", {"src": "198.51.100.7"})),
        ("ip protocol vmap", ("tcp", {"dport": 4711})),
        ("ip dscp cs1", ("ip", {"tos": 32})),
        ("udp dport { 53, 67-68 }", ("udp", {"dport": 53})),
    ],
)
def test_names_blocks_and_maps_are_understood(text: str, header: tuple[str, dict[str, object]]) -> None:
    found = facts("blocks")
    rule = next(one for one in found.rules if one.text.startswith(text))
    (send,) = next(packets("blocks").of((rule.family, rule.table, rule.chain, rule.handle))).sends
    key, values = header
    if text == "ip protocol vmap":
        assert send["ip"]["proto"] in (2, 47, 89)
    else:
        assert send[key] == values


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("ip hdrlength > 5", {"ip": {"options": ["ra"]}}),
        ("ip id != 1", {"ip": {"id": 0}}),
        ("ip dscp != cs0", {"ip": {"tos": 4}}),
        ("ip ecn ce", {"ip": {"tos": 3}}),
        ("ip ttl != 64", {"ip": {"ttl": 63}}),
        ("ip option rr exists", {"ip": {"options": ["rr"]}}),
        ("ip length 100", {"tcp": {"dport": 4711}, "payload": "x" * 60}),
        ("meta length 400-500", {"tcp": {"dport": 4711}, "payload": "x" * 360}),
        ("udp length 200", {"udp": {"dport": 4711}, "payload": "x" * 192}),
        ("udp checksum 0", {"udp": {"dport": 4711, "checksum": 0}}),
        ("tcp window < 1024", {"tcp": {"dport": 4711, "window": 1023}}),
        ("tcp ackseq > 100", {"tcp": {"dport": 4711, "ack": 101}}),
        ("tcp doff > 5", {"tcp": {"dport": 4711, "mss": 1460}}),
        ("tcp option maxseg exists", {"tcp": {"dport": 4711, "mss": 1460}}),
        ("tcp option maxseg missing", {"tcp": {"dport": 4711}}),
        ("icmp sequence > 9", {"icmp": {"type": "echo-reply", "seq": 10}}),
        ("sctp chunk data exists", {"sctp": {"dport": 4711, "chunk": "data"}}),
        ("esp spi 256", {"ip": {"proto": 50}, "payload": {"hex": "00000100" + "00" * 12}}),
        ("igmp type membership-query", {"ip": {"proto": 2}, "payload": {"hex": "11" + "00" * 15}}),
        ("meta l4proto != {", {"sctp": {"dport": 4711}}),
        ("ct original proto-dst", {"tcp": {"dport": 80}}),
        ("ip6 flowlabel != 0", {"ip6": {"fl": 1}}),
        ("ip6 length 100", {"ip6": {}, "tcp": {"dport": 4711}, "payload": "x" * 80}),
        ("hbh exists", {"ip6": {"headers": ["hbh"]}}),
        ("rt type 0", {"ip6": {"headers": [{"rt": {"type": 0}}]}}),
        ("icmpv6 code port-unreachable", {"icmpv6": {"code": 4}}),
        ("arp saddr ip", {"arp": {"src": "10.0.0.9"}}),
    ],
)
def test_a_packet_has_the_fields_of_headers_that_a_rule_looks_at(text: str, header: dict[str, object]) -> None:
    found = facts("matches")
    rule = next(one for one in found.rules if one.text.startswith(text) or f" {text}" in one.text)
    (send,) = next(packets("matches").of(rule.place)).sends
    assert {key: send.get(key) for key in header} == header


def test_an_answer_has_the_status_of_a_connection_that_both_have_sent_on() -> None:
    found = facts("matches")
    for text in ("ct status confirmed", "ct status seen-reply"):
        rule = next(one for one in found.rules if one.text.startswith(text))
        first, answer = next(packets("matches").of(rule.place)).sends
        assert (first["from"], first["to"]) == (answer["to"], answer["from"])


def test_rules_that_decide_first_are_named() -> None:
    syn = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}
    found = table([syn, {"drop": None}], [syn, {"accept": None}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    key = ("inet", "t", "forward", 3)
    assert next(made.of(key), None) is None
    assert made.decided_before(key) == [("inet", "t", "forward", 2)]
    assert not made.decided_before(("inet", "t", "forward", 2))


def test_a_packet_that_the_device_sends_itself_may_have_loopbacks_address() -> None:
    """`iif lo ip saddr != 127.0.0.0/8 drop` in input, where output lets only packets to 127.0.0.0/8 out."""
    lo = {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "lo"}}
    loopback = {"prefix": {"addr": "127.0.0.0", "len": 8}}
    daddr = {"payload": {"protocol": "ip", "field": "daddr"}}
    found = table([{"match": {"op": "!=", "left": daddr, "right": loopback}}, {"drop": None}], [lo, {"accept": None}])
    chain = {**found.objects[0]["chain"], "hook": "output", "family": "ip"}
    objects = [{"chain": chain}, *({"rule": one["rule"] | {"family": "ip"}} for one in found.objects[1:])]
    found = msgspec.structs.replace(found, objects=objects)
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    (send,) = next(made.of(("ip", "t", "forward", 3))).sends
    assert (send["from"], send["to"], send["ip"]) == ("device", "127.0.0.1", {"src": "127.0.0.1"})


def match(left: dict[str, object], right: object, op: str = "==") -> dict[str, object]:
    return {"match": {"op": op, "left": left, "right": right}}


def test_a_public_source_gets_by_a_filter_of_bogons() -> None:
    """Which drops what labs have: networks that are private or for documentation."""
    bogons = [("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16), ("198.51.100.0", 24), ("203.0.113.0", 24)]
    saddr = {"payload": {"protocol": "ip", "field": "saddr"}}
    members = {"set": [{"prefix": {"addr": address, "len": length}} for address, length in bogons]}
    port = match({"payload": {"protocol": "tcp", "field": "dport"}}, 22)
    found = table(
        [match({"meta": {"key": "nfproto"}}, "ipv6"), {"drop": None}],
        [match(saddr, members), {"drop": None}],
        [port, {"accept": None}],
    )
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    (send,) = next(made.of(("inet", "t", "forward", 4))).sends
    assert send["ip"] == {"src": "93.184.216.34"}
    without = Candidates(SimulatedDevice(SimulatedRuleset(table([port, {"accept": None}])), lab.choose(found).network))
    assert all("93.184" not in repr(one.sends) for one in without.of(("inet", "t", "forward", 2)))


def test_a_rule_about_the_type_or_group_of_interfaces() -> None:
    own, group = {"meta": {"key": "oiftype"}}, {"meta": {"key": "iifgroup"}}
    found = table([match(own, "loopback"), {"accept": None}], [match(group, 2), {"drop": None}])
    chain = {**found.objects[0]["chain"], "hook": "output"}
    found = msgspec.structs.replace(found, objects=[{"chain": chain}, *found.objects[1:]])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    (send,) = next(made.of(("inet", "t", "forward", 2))).sends
    assert (send["from"], send["to"]) == ("device", "device")
    assert next(made.of(("inet", "t", "forward", 3)), None) is None


def test_what_refuses_a_packet_at_another_hook_is_not_before_a_rule() -> None:
    """A packet that the device sends passes output, and never forward."""
    found = table([match({"meta": {"key": "mark"}}, 7), {"accept": None}], policy="accept")
    output = {**found.objects[0]["chain"], "name": "output", "hook": "output", "policy": "drop"}
    found = msgspec.structs.replace(found, objects=[*found.objects, {"chain": output}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    assert next(made.of(("inet", "t", "forward", 2)), None) is None
    assert ("inet", "t", "output", 0) not in made.decided_before(("inet", "t", "forward", 2))


def test_the_policy_of_a_chain_is_not_before_a_rule_of_one_that_it_calls() -> None:
    """No packet has come there: what leads there did not match."""
    mark = match({"meta": {"key": "mark"}}, 7)
    found = table([mark, {"jump": {"target": "marked"}}], policy="accept")
    marked = {"chain": {"family": "inet", "table": "t", "name": "marked"}}
    rule = {"family": "inet", "table": "t", "chain": "marked", "handle": 9, "expr": [{"accept": None}]}
    found = msgspec.structs.replace(found, objects=[*found.objects, marked, {"rule": rule}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    assert next(made.of(("inet", "t", "marked", 9)), None) is None
    assert made.decided_before(("inet", "t", "marked", 9)) == []


def test_a_rule_that_accepts_before_is_named_though_the_packet_passes_later_hooks() -> None:
    found, made = facts("guarded"), packets("guarded")
    key = key_of(found, "output", "ip daddr 127.0.0.0/8")
    assert not list(made.of(key))
    assert made.decided_before(key) == [key_of(found, "output", 'oif "lo"')]


IPV4 = {"type": "ipv4_addr"}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}


def knocks() -> Candidates:
    """A knock at 7000, then one at 8000, opens 22."""

    def knock(port: int, into: str) -> list[dict[str, object]]:
        return [
            match({"payload": {"protocol": "tcp", "field": "dport"}}, port),
            {"set": {"op": "add", "elem": SADDR, "set": f"@{into}"}},
            {"drop": None},
        ]

    first, second = knock(7000, "one"), knock(8000, "two")
    opened = [match({"payload": {"protocol": "tcp", "field": "dport"}}, 22), match(SADDR, "@two"), {"accept": None}]
    found = table(first, [match(SADDR, "@one"), *second], opened, sets=(IPV4 | {"name": "one"}, IPV4 | {"name": "two"}))
    return Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))


@pytest.mark.parametrize(("handle", "ports"), [(2, [7000]), (3, [7000, 8000]), (4, [7000, 8000, 22])])
def test_packets_fill_the_sets_that_a_rule_looks_into(handle: int, ports: list[int]) -> None:
    one = next(knocks().of(("inet", "t", "forward", handle)))
    assert [send["tcp"]["dport"] for send in one.sends] == ports
    assert [fields["dport"] for fields in one.steps] == ports


def test_sets_that_only_fill_each_other_stay_empty() -> None:
    def rule(looks: str, adds: str) -> list[dict[str, object]]:
        return [match(SADDR, f"@{looks}"), {"set": {"op": "add", "elem": SADDR, "set": f"@{adds}"}}]

    found = table(rule("a", "b"), rule("b", "a"), sets=(IPV4 | {"name": "a"}, IPV4 | {"name": "b"}))
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    assert not list(made.of(("inet", "t", "forward", 2)))


def test_each_element_of_a_set_or_map_gets_a_packet() -> None:
    ports = {"set": list(range(1, 30))}
    dport = {"payload": {"protocol": "tcp", "field": "dport"}}
    target = {"map": {"key": dport, "data": {"set": [[n, f"10.0.2.{n}"] for n in (80, 81, 82)]}}}
    found = table([match(dport, ports), {"accept": None}], [{"dnat": {"family": "ip", "addr": target}}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    sent = [one.fields["dport"] for one in made.each(("inet", "t", "forward", 2)) if one]
    assert sent == list(range(1, 30))
    assert {one.fields["dport"] for one in made.each(("inet", "t", "forward", 3)) if one} == {80, 81, 82}


def test_a_mark_is_set_by_the_rule_that_gives_the_one_that_is_asked_for() -> None:
    mark = {"meta": {"key": "mark"}}
    dport = {"payload": {"protocol": "udp", "field": "dport"}}
    setting = [[match(dport, 1000 + n), {"mangle": {"key": mark, "value": n}}] for n in range(1, 60)]
    masked = match({"&": [mark, 0xF0]}, 0x30)
    found = table(*setting, [masked, {"accept": None}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    one = next(made.of(("inet", "t", "forward", 61)))
    assert one.fields["dport"] - 1000 & 0xF0 == 0x30


def test_what_is_over_a_limit_says_so() -> None:
    limit = {"limit": {"rate": 3, "burst": 2, "per": "minute", "inv": True}}
    found = table([match({"payload": {"protocol": "tcp", "field": "dport"}}, 22), limit, {"drop": None}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    one = next(made.of(("inet", "t", "forward", 2)))
    assert [fields.get("over", False) for fields in one.steps] == [False, False, True]
    assert len({fields["sport"] for fields in one.steps}) == 3


def test_a_packet_whose_maximum_segment_size_is_lowered_announces_a_high_one() -> None:
    key = {"tcp option": {"name": "maxseg", "field": "size"}}
    found = table([{"mangle": {"key": key, "value": {"rt": {"key": "mtu"}}}}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    assert next(made.of(("inet", "t", "forward", 2))).sends[0]["tcp"]["mss"] > 1460


def test_a_packet_for_two_rules_is_what_both_ask_for() -> None:
    port = match({"payload": {"protocol": "tcp", "field": "dport"}}, 25)
    service = match({"payload": {"protocol": "ip", "field": "dscp"}}, "cs1")
    late = match({"payload": {"protocol": "tcp", "field": "dport"}}, 80)
    found = table([port, {"accept": None}], [service, {"drop": None}], [late, {"accept": None}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    first, second, third = (("inet", "t", "forward", handle) for handle in (2, 3, 4))
    one = made.both(first, second)
    assert one is not None
    assert (one.fields["dport"], one.fields["dscp"]) == (25, 8)
    assert made.both(first, third) is None


@pytest.mark.parametrize(("key", "sent"), [("proto-dst", 8888), ("proto-src", None)])
def test_what_a_connection_began_with_is_what_is_sent_though_it_is_translated(key: str, sent: int | None) -> None:
    dport = {"payload": {"protocol": "tcp", "field": "dport"}}
    original = match({"ct": {"key": key, "dir": "original"}}, 8888)
    found = table([match(dport, 8080), original, {"drop": None}], policy="accept")
    nat = {"family": "inet", "table": "t", "name": "nat", "hook": "prerouting", "type": "nat", "prio": -100}
    to = {"dnat": {"family": "ip", "addr": "10.0.2.2", "port": 8080}}
    rule = {"family": "inet", "table": "t", "chain": "nat", "handle": 9, "expr": [match(dport, 8888), to]}
    found = msgspec.structs.replace(found, objects=[*found.objects, {"chain": nat}, {"rule": rule}])
    made = Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))
    one = next(made.of(("inet", "t", "forward", 2)))
    assert one.fields["dport" if sent else "sport"] == 8888
