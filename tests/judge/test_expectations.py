"""Differences between expected and observed, as reported to the author; and when nothing can be decided."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import msgspec
import pytest

from harness.errors import BrokenMeasurement, Position, Unsupported
from harness.judge.expectations import COMPARISONS, judge, same_elements
from harness.model.observation import (
    Counted,
    Delivery,
    Drop,
    Loss,
    ObservedPacket,
    Verdict,
)
from harness.reading.decision import ended, outcome
from harness.reading.path import align
from harness.reading.words import describe_hop, describe_loss
from harness.recording.expectation import CHANGES
from harness.scenario.check_expect import CHECKS
from harness.scenario.models.expect import Expect
from tests.builders import (
    FORWARD,
    HTTPS,
    PASSED,
    WAY,
    arrival,
    changed,
    complaints,
    dropped,
    frame,
    hop,
    observation,
    place,
    rule,
    step,
)


def test_every_key_of_expect_is_compared_and_recorded() -> None:
    keys = set(Expect.__struct_encode_fields__) - {"packets"}
    assert set(COMPARISONS) == keys
    assert set(CHANGES) == keys
    assert set(CHECKS) < keys


# --- what the ruleset decided -------------------------------------------------------------------


def test_everything_as_expected_is_no_complaint() -> None:
    expect = {
        "verdict": "accept",
        "rule": "tcp dport {22,443} accept",
        "delivered": {"to": "server", "sees": {"src": "203.0.113.5", "dport": 443, "ttl": 63}},
        "layers": ["Device", "IPv4", "Netfilter", "Xmit"],
        "path": [
            "ip_rcv",
            {"nft_do_chain": {"chain": FORWARD, "verdict": "accept"}},
            "dev_queue_xmit | __dev_queue_xmit",
        ],
        "never": ["kfree_skb_reason | sk_skb_reason_drop"],
    }
    assert complaints(expect) == []


def test_a_host_may_be_one_of_several() -> None:
    assert complaints({"delivered": "backup | server"}) == []
    either = {"to": "server | backup", "sees": {"dport": "80 | 443"}}
    assert complaints({"delivered": either}) == []
    assert complaints({"delivered": "client | backup"}) == ["expect.delivered: client | backup / server"]


def test_all_mismatches_come_at_once_with_their_places() -> None:
    expect = msgspec.convert({"verdict": "drop", "rule": "policy", "delivered": "nowhere"}, Expect)
    mismatches = judge(expect, observation(PASSED), PASSED, at=place)
    assert [mismatch.keys[1] for mismatch in mismatches] == ["verdict", "rule", "delivered"]
    assert mismatches[0].position == Position("edge.yaml", 31, 2)


def test_last_step_decides_a_drop() -> None:
    packet = dropped(step("accept", chain="inet filter prerouting"), step("drop"))
    assert str(outcome(packet, "device")) == "drop"
    assert complaints({"verdict": "drop", "rule": f"{FORWARD} policy"}, packet) == []
    assert complaints({"rule": "inet filter prerouting policy"}, packet) == [
        (
            "expect.rule: inet filter prerouting policy / inet filter forward, policy drop / "
            "it matched but did not decide: its verdict was accept"
        )
    ]


def test_any_rule_that_accepted_may_be_named() -> None:
    nat = rule("oifname lan0 masquerade", handle=4, line=30, chain="ip nat postrouting")
    packet = changed(steps=(step("accept", HTTPS), step("accept", nat, chain="ip nat postrouting")), hops=())
    for name in ("tcp dport { 22, 443 } accept", 4, "edge.nft:30", 9):
        assert complaints({"rule": name}, packet) == []


def test_rules_of_jumped_chains_belong_to_their_base_chain() -> None:
    inner = rule("tcp dport 443 accept", chain="inet filter web")
    steps = (
        step("jump", rule("iifname wan0 jump web"), target="web"),
        step("accept", inner, chain="inet filter web", hook="forward"),
    )
    packet = changed(steps=steps)
    assert complaints({"verdict": "accept", "rule": "tcp dport 443 accept"}, packet) == []
    accepted = "inet filter web, rulesets/edge.nft:18 (handle 9): tcp dport 443 accept"
    assert complaints({"rule": "iifname wan0 jump web"}, packet) == [
        (f"expect.rule: iifname wan0 jump web / {accepted} / it matched but did not decide: its verdict was jump web")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "tcp dport {22,443} accept",
        "tcp  dport { 22 , 443 }   counter accept",
        'tcp dport { 22, 443 } counter packets 7 bytes 420 accept comment "web"',
        "web and ssh",
        "edge.nft:18",
        "rulesets/edge.nft:18",
        "./rulesets/edge.nft:18",
        9,
    ],
)
def test_names_of_a_rule(text: str | int) -> None:
    packet = changed(steps=(step("accept", rule(HTTPS.text, comment="web and ssh")),))
    assert complaints({"rule": text}, packet) == []


@pytest.mark.parametrize("text", ["tcp dport 443 accept", "ge.nft:18", "edge.nft:19", "edge.nft", 8, "policy", ""])
def test_names_of_other_rules(text: str | int) -> None:
    assert len(complaints({"rule": text})) == 1


def test_address_and_port_at_the_end_is_no_file_and_line() -> None:
    dnat = rule("tcp dport 80 dnat to 10.0.2.2:8080")
    assert complaints({"rule": "tcp dport 80 dnat to 10.0.2.2:8080"}, changed(steps=(step("accept", dnat),))) == []


@pytest.mark.parametrize(
    ("text", "family", "answer"),
    [
        ("tcp dport 23 reject with tcp reset", "inet", "tcp reset"),
        ("reject", "ip", "icmp port-unreachable"),
        ("reject", "ip6", "icmpv6 port-unreachable"),
        ("reject", "inet", "icmp port-unreachable"),
        ("reject with icmp type admin-prohibited", "ip", "icmp admin-prohibited"),
        ("reject with icmpx host-unreachable", "inet", "icmp host-unreachable"),
        ("reject with icmpx no-route", "inet", "icmp net-unreachable"),
        ('reject with icmpx admin-prohibited comment "drop it"', "inet", "icmp admin-prohibited"),
    ],
)
def test_reject_with_what(text: str, family: str, answer: str) -> None:
    chain = f"{family} filter forward"
    seen = outcome(dropped(step("drop", rule(text, chain=chain), chain=chain)), "device")
    assert (seen.verdict, seen.with_) == (Verdict.REJECT, answer)


def test_icmpx_is_icmpv6_for_ipv6() -> None:
    packet = dropped(
        step("drop", rule("reject with icmpx host-unreachable")), frame=frame("2001:db8::1", "2001:db8::2")
    )
    assert outcome(packet, "device").with_ == "icmpv6 addr-unreachable"
    assert complaints({"verdict": "reject", "with": "icmpx host-unreachable"}, packet) == []
    assert complaints({"with": "icmpv6 no-route"}, packet) == ["expect.with: icmpv6 no-route / icmpv6 addr-unreachable"]


def test_reject_without_its_text_shows_in_the_functions() -> None:
    packet = dropped(step("drop", rule('xt target "REJECT"')))
    packet = changed(packet, hops=(hop("nf_send_unreach", "Netfilter"),))
    assert str(outcome(packet, "device")) == "reject with icmp"


@pytest.mark.parametrize("text", ['drop comment "reject"', 'log prefix "reject " drop', "tcp dport @reject drop"])
def test_the_word_reject_alone_is_no_reject(text: str) -> None:
    assert outcome(dropped(step("drop", rule(text))), "device").verdict is Verdict.DROP


NO_ROUTE = dropped(step("drop", rule("reject with icmpx no-route")))


@pytest.mark.parametrize(
    ("text", "sent", "wanted"),
    [
        ("reject with icmpx no-route", frame(), "icmpx no-route"),
        ("reject with icmpx no-route", frame(), "icmpx type no-route"),
        ("reject with icmpx no-route", frame(), "icmp net-unreachable"),
        ("reject with icmpx no-route", b"", "icmpx no-route"),  # of which family it is, is not known
        ("reject with icmp type host-unreachable", frame(), "icmp  type host-unreachable"),
    ],
)
def test_an_answer_may_be_written_in_several_ways(text: str, sent: bytes, wanted: str) -> None:
    packet = dropped(step("drop", rule(text)), frame=sent)
    assert complaints({"verdict": "reject", "with": wanted}, packet) == []


def test_another_answer_of_a_reject() -> None:
    for expect in ({"with": "tcp reset"}, {"verdict": "reject", "with": "tcp reset"}):
        assert complaints(expect, NO_ROUTE) == ["expect.with: tcp reset / icmp net-unreachable"]
    six = dropped(step("drop", rule("reject")), frame=frame("2001:db8::1", "2001:db8::2"))
    assert complaints({"with": "icmp port-unreachable"}, six) == [
        "expect.with: icmp port-unreachable / icmpv6 port-unreachable"
    ]


def test_drop_and_reject_are_not_the_same() -> None:
    silent = dropped(step("drop"))
    assert complaints({"verdict": "reject", "with": "tcp reset"}, silent) == [
        "expect.verdict: reject / drop / dropped silently: the sender got no answer"
    ]
    loud = dropped(step("drop", rule("reject with tcp reset")))
    assert complaints({"verdict": "drop"}, loud) == [
        "expect.verdict: drop / reject with tcp reset / the sender got an answer; a drop is silent"
    ]


def test_a_drop_by_the_kernel_is_not_the_rulesets() -> None:
    packet = dropped(drop=Drop(host="device", function="ip_rcv_finish_core", reason="IP_RPFILTER"))
    packet = changed(packet, hops=WAY[:3])
    assert outcome(packet, "device").verdict is None
    assert complaints({"verdict": "drop"}, packet) == [
        "expect.verdict: drop / undecided / no base chain of the ruleset saw it"
    ]
    accepted = changed(packet, steps=(step("accept"),))
    assert complaints({"verdict": "drop"}, accepted) == [
        "expect.verdict: drop / accept / it was dropped, but by the kernel and not by the ruleset"
    ]
    assert ended(packet, outcome(packet, "device"), "device") == (
        "dropped by the kernel on device in ip_rcv_finish_core: IP_RPFILTER "
        "(reverse path filter: the route back to its source does not use the interface that it arrived on)"
    )


def test_a_drop_by_the_ruleset_needs_no_note() -> None:
    gone = dropped(step("drop"), drop=Drop(host="device", function="nf_hook_slow", reason="NETFILTER_DROP"))
    (found,) = judge(Expect(verdict="accept"), observation(gone), gone, at=place)
    assert (found.expected, found.seen, found.note) == ("accept", "drop", "")


def test_queue_and_stolen() -> None:
    queue = dropped(step("queue", rule("queue to 0")))
    assert complaints({"verdict": "queue", "rule": "queue to 0"}, queue) == []
    assert complaints({"verdict": "stolen"}, queue) == ["expect.verdict: stolen / queue"]


def test_another_rule_decided() -> None:
    both = changed(steps=(step("accept", chain="inet filter prerouting"), step("accept", HTTPS)), hops=())
    (found,) = judge(Expect(rule="drop"), observation(both), both, at=place)
    assert (
        found.seen == f"inet filter prerouting, policy accept; {FORWARD}, rulesets/edge.nft:18 (handle 9): {HTTPS.text}"
    )
    assert found.note == ""
    unseen = changed(steps=(), hops=())
    assert complaints({"rule": "policy"}, unseen) == [
        "expect.rule: policy / no rule and no policy: no base chain saw it"
    ]
    assert complaints({"rules": ["policy"]}, unseen) == ["expect.rules[0]: policy / no rule and no policy / not met"]


def test_why_a_rule_of_several_was_not_met_is_said_of_the_device_alone() -> None:
    there = msgspec.structs.replace(step("drop"), host="server")
    packet = changed(steps=(step("accept", HTTPS), there), deliveries=())
    ssh = rule("tcp dport 22 accept", line=17, handle=3)

    def said(name: str) -> tuple[str, str]:
        expect = Expect(delivered="nowhere", rules=[name])
        (found,) = judge(expect, observation(packet), packet, at=place, rules=(ssh, HTTPS))
        return found.seen, found.note

    here = f"{FORWARD}, rulesets/edge.nft:18 (handle 9): {HTTPS.text}"
    assert said(ssh.text) == (here, "rulesets/edge.nft:17 did not match")
    assert said(f"server: {ssh.text}") == (f"{FORWARD}, policy drop", "not met")


def test_steps_of_other_hosts_do_not_count() -> None:
    packet = changed(steps=(msgspec.structs.replace(step("drop"), host="server"), step("accept", HTTPS)))
    assert outcome(packet, "device").verdict is Verdict.ACCEPT


def test_a_rule_of_another_host_is_named_with_the_host() -> None:
    there = msgspec.structs.replace(step("drop", HTTPS), host="server")
    packet = changed(steps=(step("accept", HTTPS), there), deliveries=())
    seen = {"verdict": "accept", "delivered": "nowhere"}
    assert not complaints(
        {**seen, "rules": [HTTPS.text, f"server: {HTTPS.text}"], "rule": f"server: {HTTPS.handle}"}, packet
    )
    (complaint,) = complaints({**seen, "rules": [f"server: {HTTPS.text}", HTTPS.text]}, packet)
    assert complaint.startswith("expect.rules[1]")
    (found,) = judge(Expect(**seen, rule="server: policy"), observation(packet), packet, at=place)
    assert (found.expected, found.note) == ("server: policy", "")


# --- delivery -----------------------------------------------------------------------------------


def test_accept_that_arrives_nowhere_must_be_said() -> None:
    lost = changed(deliveries=())
    assert complaints({"verdict": "accept"}, lost) == [
        (
            "expect.verdict: accept, and the packet arrives / accept, but it arrived nowhere / "
            "if that is intended, expect `delivered: nowhere`"
        )
    ]
    assert complaints({"verdict": "accept", "delivered": "nowhere"}, lost) == []


@pytest.mark.parametrize("said", [{"rule": "tcp dport {22,443} accept"}, {"rules": ["tcp dport {22,443} accept"]}])
def test_so_must_it_where_the_rule_that_accepts_is_named(said: dict[str, object]) -> None:
    lost = changed(deliveries=())
    assert complaints(said, lost) == [
        (
            "expect.delivered: an accepted packet arrives / it arrived nowhere / "
            "if that is intended, expect `delivered: nowhere`"
        )
    ]
    assert complaints({**said, "delivered": "nowhere"}, lost) == []


def test_accept_into_the_device_itself_has_arrived() -> None:
    packet = changed(deliveries=(arrival("device", b""),), steps=(step("accept", chain="inet filter input"),), hops=())
    assert complaints({"verdict": "accept"}, packet) == []
    assert complaints({"delivered": "device"}, packet) == []
    assert complaints({"delivered": {"to": "device", "sees": {"ttl": 64}}}, packet) == [
        "expect.delivered.sees.ttl: 64 / not captured there"
    ]


def test_delivered_elsewhere() -> None:
    assert complaints({"delivered": "client"}) == ["expect.delivered: client / server"]
    assert complaints({"delivered": "nowhere"}) == ["expect.delivered: nowhere / server"]
    gone = dropped(step("drop"))
    assert complaints({"delivered": {"to": "server"}}, gone) == ["expect.delivered.to: server / nowhere"]
    both = changed(deliveries=(arrival(), arrival("backup")))
    assert complaints({"delivered": "client"}, both) == ["expect.delivered: client / server, backup"]
    assert complaints({"delivered": "nowhere"}, both) == ["expect.delivered: nowhere / server, backup"]


def test_sees_names_each_field_that_differs() -> None:
    sees = {"src": "203.0.113.1", "dst": "10.0.2.2", "dport": 8080, "ttl": 63}
    assert complaints({"delivered": {"to": "server", "sees": sees}}) == [
        "expect.delivered.sees.src: 203.0.113.1 / 203.0.113.5",
        "expect.delivered.sees.dport: 8080 / 443",
    ]


def test_sees_compares_addresses_not_spelling() -> None:
    packet = changed(deliveries=(arrival(data=frame("2001:db8::1", "2001:db8::2")),))
    assert complaints({"delivered": {"to": "server", "sees": {"src": "2001:DB8:0::1"}}}, packet) == []


# --- the way ------------------------------------------------------------------------------------


def test_alignment_puts_what_came_instead_beside_what_was_expected() -> None:
    rows = align(["ip_rcv", "ip_local_deliver", "__dev_queue_xmit"], PASSED, "device")
    assert [(row.expected, row.hop and describe_hop(row.hop), row.met) for row in rows] == [
        (None, "netif_receive_skb", True),
        ("ip_rcv", "ip_rcv", True),
        ("ip_local_deliver", "nft_do_chain inet filter forward → accept", False),
        (None, "ip_forward_finish", True),
        ("__dev_queue_xmit", "__dev_queue_xmit", True),
    ]


# --- neither passed nor failed ------------------------------------------------------------------


def test_loss_is_told_by_cpu() -> None:
    cpus = {0: Counted(entered=9), 3: Counted(entered=7, refused=2), 4: Counted(entered=1, untracked=1)}
    loss = Loss(entered=17, received=15, refused=2, untracked=1, cpus=cpus)
    assert describe_loss(loss).endswith("not followed 1, CPU 3: 2 of 7, CPU 4: 1 of 1)")


def test_loss_comes_before_any_judgement() -> None:
    lossy = msgspec.structs.replace(observation(PASSED), loss=Loss(entered=212, received=209, refused=3))
    with pytest.raises(BrokenMeasurement) as broken:
        judge(Expect(verdict="drop"), lossy, PASSED, at=place)
    assert str(broken.value) == (
        "lost 3 of 212 events (refused 3, missed 0, trace 0): the ruleset cannot be judged; use a larger buffer "
        "(pytest --nft-buffer 32768, in KiB; 8192 is the default), or trace fewer functions (--nft-tracer kprobe)"
    )


def test_a_copy_may_arrive_of_what_is_dropped() -> None:
    mirror = msgspec.structs.replace(HTTPS, text='udp dport 53 dup to "lan0"', comment="")
    packet = changed(steps=(step("continue", mirror), step("drop")), hops=())
    assert outcome(packet, "device").verdict is Verdict.DROP


@pytest.mark.parametrize(
    ("packet", "sentence"),
    [
        (ObservedPacket(number=2, sender="client", frame=b""), "packet 2 from client was seen by no function"),
        (
            changed(steps=(step("drop"),)),
            "nft_do_chain returned accept for chain inet filter forward, but the nf_tables trace says drop",
        ),
        (
            changed(steps=(step("drop"),), hops=()),
            r"device dropped the packet \(inet filter forward, policy drop\), but it arrived at server eth0",
        ),
        (
            changed(steps=()),
            "nft_do_chain ran once for chain inet filter forward, but the nf_tables trace reports it never",
        ),
        (
            changed(steps=(step("accept", HTTPS), step("accept", HTTPS))),
            "nft_do_chain ran once for chain inet filter forward, but the nf_tables trace reports it twice",
        ),
        (
            changed(steps=(step("jump", HTTPS, target="web"),)),
            "the nf_tables trace breaks off in chain inet filter forward",
        ),
    ],
)
def test_oracles_that_disagree_break_the_measurement(packet: ObservedPacket, sentence: str) -> None:
    with pytest.raises(BrokenMeasurement, match=sentence):
        judge(Expect(verdict="accept"), observation(packet), packet, at=place)


def test_a_reject_is_a_drop_to_the_hook() -> None:
    answer = hop("nft_do_chain", "Netfilter", chain=FORWARD, verdict="drop")
    packet = changed(dropped(step("drop", rule("reject with tcp reset"))), hops=(answer,))
    assert complaints({"verdict": "reject", "with": "tcp reset"}, packet) == []


# --- what came back -----------------------------------------------------------------------------


def answered(expect: object, *frames: bytes, host: str = "client") -> list[str]:
    """Return what ``judge`` says of ``reply: expect`` when ``frames`` arrived at ``host``."""
    packet = dropped(step("drop"))
    replies = tuple(arrival(host, data) for data in frames)
    seen = msgspec.structs.replace(observation(packet), replies=replies)
    wanted = msgspec.convert({"reply": expect}, Expect)
    return [
        f"{one.key}: {one.expected} / {one.seen}" + (f" / {one.note}" if one.note else "")
        for one in judge(wanted, seen, packet, at=place)
    ]


def unreachable(code: int) -> bytes:
    body = struct.pack(">BBHI", 3, code, 0, 0)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 1, 0)
    return bytes(12) + b"\x08\x00" + ip + ip_address("10.0.2.2").packed + ip_address("203.0.113.5").packed + body


@pytest.mark.parametrize(
    "expect",
    [
        {"icmp": {}},
        {"icmp": {"type": "destination-unreachable", "code": "port-unreachable"}},
        {"icmp": {"type": 3, "code": 3}, "src": "10.0.2.2", "ttl": 64},
    ],
)
def test_the_reply_that_came(expect: object) -> None:
    assert answered(expect, frame(), unreachable(3)) == []


def test_another_reply_came() -> None:
    expect = {"icmp": {"type": "destination-unreachable", "code": "port-unreachable"}}
    assert answered(expect, frame(), unreachable(13)) == ["expect.reply.icmp.code: port-unreachable / 13"]
    assert answered({"tcp": {"flags": "RA"}}, frame()) == ["expect.reply.tcp.flags: RA / S"]


def test_no_reply() -> None:
    assert answered("none") == []
    assert answered({"tcp": {"flags": "RA"}}) == ["expect.reply: tcp, flags RA / none / client got no answer"]
    assert answered({"tcp": {}}, frame(), host="server") == ["expect.reply: tcp / none / client got no answer"]
    line = "203.0.113.5:40000 → 10.0.2.2:443 tcp S (IPv4, 40 bytes)"
    assert answered("none", frame()) == [f"expect.reply: none / {line}"]
    assert answered("none", frame(), frame()) == [f"expect.reply: none / {line}; {line}"]


def test_flags_have_no_order_and_no_tag_is_vlan_0() -> None:
    assert answered({"tcp": {"flags": "AS"}, "vlan": 0}, frame()[:47] + b"\x12" + frame()[48:]) == []
    assert answered({"vlan": 7}, frame()) == ["expect.reply.vlan: 7 / nothing"]


def test_a_router_on_the_way_is_no_destination() -> None:
    way = (hop("ip_rcv", host="edge"), hop("ip_forward", host="edge"), hop("ip_rcv"))
    at_edge = Delivery(time=1, host="edge", device="wan", frame=frame())
    late = msgspec.structs.replace(step("drop"), time=2)
    packet = changed(steps=(late,), hops=way, deliveries=(at_edge,))
    assert complaints({"verdict": "drop", "delivered": "nowhere"}, packet) == []
    assert complaints({"delivered": "edge"}, packet) == ["expect.delivered: edge / nowhere"]


# --- what it left behind ------------------------------------------------------------------------


def left(expect: dict[str, object], **state: object) -> list[str]:
    seen = msgspec.structs.replace(observation(PASSED), **state)
    wanted = msgspec.convert(expect, Expect)
    return [
        f"{one.keys[1]} {one.keys[2]}: {one.expected} / {one.seen} / {one.note}"
        for one in judge(wanted, seen, PASSED, at=place)
        if one.keys[0] == "expect"
    ]


def test_counters() -> None:
    name = "inet filter web"
    assert left({"counters": {name: 1}}, counters={name: 1}) == []
    assert left({"counters": {name: 2}}, counters={name: 1}) == ["counters inet filter web: 2 / 1 / "]
    assert left({"counters": {name: 0}}, counters={}) == ["counters inet filter web: 0 / not counted / "]


def test_elements_in_any_order() -> None:
    name = "inet filter blocked"
    held = {name: ("192.0.2.1", "192.0.2.2")}
    assert left({"elements": {name: ["192.0.2.2", "192.0.2.1"]}}, elements=held) == []
    assert left({"elements": {name: []}}, elements={name: ()}) == []
    assert left({"elements": {name: [22]}}, elements={name: ("22",)}) == []
    assert left({"elements": {name: ["192.0.2.3", "192.0.2.1"]}}, elements=held) == [
        (
            "elements inet filter blocked: 192.0.2.1, 192.0.2.3 / 192.0.2.1, 192.0.2.2 / "
            "lacks 192.0.2.3; has in addition 192.0.2.2"
        )
    ]
    both = "192.0.2.1, 192.0.2.2"
    assert left({"elements": {name: []}}, elements=held) == [
        f"elements inet filter blocked: no element / {both} / has in addition {both}"
    ]
    assert left({"elements": {name: ["192.0.2.2", "192.0.2.1"]}}, elements={}) == [
        f"elements inet filter blocked: {both} / no element / lacks {both}"
    ]


def test_rules_met_in_order() -> None:
    jump = step("jump", rule("iifname wan0 jump web", handle=3, comment="outside"), target="web")
    packet = changed(steps=(jump, step("accept", HTTPS)))
    assert complaints({"rules": ["outside", "tcp dport { 22, 443 } accept"]}, packet) == []
    seen = (
        "inet filter forward, rulesets/edge.nft:18 (handle 3): iifname wan0 jump web; "
        "inet filter forward, rulesets/edge.nft:18 (handle 9): tcp dport { 22, 443 } accept"
    )
    assert complaints({"rules": [9, "outside"]}, packet) == [
        f"expect.rules[1]: outside / {seen} / met earlier: the order differs"
    ]
    assert complaints({"rules": ["policy"]}, packet) == [f"expect.rules[0]: policy / {seen} / not met"]


def test_why_the_kernel_gave_it_up() -> None:
    drop = Drop(host="device", function="ip_rcv_finish_core", reason="IP_RPFILTER")
    packet = changed(steps=(), deliveries=(), hops=(hop("ip_rcv"),), drop=drop)
    assert complaints({"dropped": "IP_RPFILTER"}, packet) == []
    assert complaints({"dropped": "NOT_SPECIFIED | SKB_DROP_REASON_IP_RPFILTER"}, packet) == []
    assert complaints({"dropped": {"function": "ip_rcv | ip_rcv_finish_core"}}, packet) == []
    assert complaints({"dropped": "IP_CSUM"}, packet) == ["expect.dropped: IP_CSUM / IP_RPFILTER"]
    assert complaints({"dropped": {"reason": "IP_RPFILTER", "function": "ip_rcv"}}, packet) == [
        "expect.dropped.function: ip_rcv / ip_rcv_finish_core"
    ]
    assert complaints({"dropped": {"reason": "IP_RPFILTER", "host": "edge"}}, packet) == [
        "expect.dropped: IP_RPFILTER on edge / IP_RPFILTER on device"
    ]
    assert complaints({"dropped": "IP_CSUM|IP_RPFILTER"}, packet) == []
    kept = changed(packet, drop=None)
    assert complaints({"dropped": "IP_CSUM"}, kept) == ["expect.dropped: IP_CSUM on device / not dropped"]
    assert complaints({"dropped": {"reason": "IP_CSUM", "function": "ip_rcv"}}, kept) == [
        "expect.dropped: IP_CSUM in ip_rcv on device / not dropped"
    ]


# --- where only stacks at tracepoints were seen ---------------------------------------------------


def partly(yaml: dict[str, object], packet: ObservedPacket = PASSED) -> list[str]:
    """Keys of what ``judge`` complains of when functions that were not seen may have been met."""
    seen = msgspec.structs.replace(observation(packet), whole=False, engine="tracepoints", traced=frozenset())
    return [one.key for one in judge(msgspec.convert(yaml, Expect), seen, packet, at=place)]


@pytest.mark.parametrize(("wanted", "key"), [("device", "delivered"), ({"to": "device"}, "delivered.to")])
def test_a_drop_proves_that_the_device_did_not_keep_the_packet(wanted: object, key: str) -> None:
    gone = Drop(host="device", function="ip_error", reason="IP_INADDRERRORS")
    assert partly({"delivered": wanted}, changed(deliveries=(), drop=gone)) == [f"expect.{key}"]
    assert partly({"delivered": wanted}, dropped(step("drop"))) == [f"expect.{key}"]


def test_what_was_seen_is_proven() -> None:
    assert partly({"verdict": "accept", "delivered": "server", "path": ["ip_rcv", "ip_forward_finish"]}) == []
    assert partly({"never": ["ip_rcv"]}) == ["expect.never[0]"]
    assert partly({"verdict": "drop", "path": ["udp_rcv"]}) == ["expect.verdict"]
    assert partly({"delivered": "nowhere"}) == ["expect.delivered"]


@pytest.mark.parametrize(
    ("expect", "packet", "key"),
    [
        ({"path": ["udp_rcv"]}, PASSED, "path"),
        ({"layers": ["UDP"]}, PASSED, "layers"),
        ({"never": ["udp_rcv"]}, PASSED, "never"),
        ({"verdict": "accept"}, changed(deliveries=()), "verdict"),
        ({"delivered": "device"}, changed(deliveries=()), "delivered"),
        ({"delivered": "nowhere"}, changed(deliveries=()), "delivered"),
        ({"verdict": "drop"}, dropped(step("drop", rule('xt target "REJECT"'))), "verdict"),
        ({"verdict": "drop", "never": ["udp_rcv"]}, dropped(step("drop")), "never"),
        ({"path": {"exactly": ["ip_rcv"]}}, PASSED, "path"),
        ({"delivered": {"to": "device"}}, changed(deliveries=()), "delivered"),
        ({"delivered": "device"}, PASSED, "delivered"),
        ({"delivered": {"to": "device"}}, PASSED, "delivered"),
        ({"delivered": "nowhere"}, changed(hops=(hop("ip_rcv"),), steps=(), deliveries=()), "delivered"),
        ({"verdict": "accept", "never": ["udp_rcv"]}, changed(deliveries=()), "never or verdict"),
        (
            {"verdict": "drop", "never": ["udp_rcv"]},
            dropped(step("drop", rule('xt target "REJECT"'))),
            "never or verdict",
        ),
    ],
)
def test_what_was_not_seen_is_left_open(expect: dict[str, object], packet: ObservedPacket, key: str) -> None:
    with pytest.raises(Unsupported) as unsupported:
        partly(expect, packet)
    assert str(unsupported.value) == (
        f"{place(('expect', key.split()[0]))}: the engine tracepoints sees part of the functions only, "
        f"which leaves open {key}; use a kernel with probes on functions: --nft-tracer auto"
    )


def test_what_is_left_open_is_named_where_it_stands() -> None:
    seen = msgspec.structs.replace(observation(PASSED), whole=False, traced=frozenset())
    with pytest.raises(Unsupported, match=r"^expect\.path:1: "):
        judge(Expect(path=["udp_rcv"]), seen, PASSED, at=lambda keys: Position(".".join(map(str, keys)), 1))


def test_of_frames_that_fit_equally_well_the_first_is_shown() -> None:
    frames = frame("203.0.113.5", "10.0.2.9"), frame("203.0.113.5", "10.0.2.8")
    twice = changed(deliveries=tuple(arrival("server", one) for one in frames))
    assert complaints({"delivered": {"to": "server", "sees": {"dst": "10.0.2.2"}}}, twice) == [
        "expect.delivered.sees.dst: 10.0.2.2 / 10.0.2.9"
    ]


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ({"inet t s": [22, "80"]}, {"inet t s": ("80", "22")}, True),
        ({"inet t s": [22]}, {"inet t s": ("80", "22")}, False),
        ({"inet t s": [22], "inet t r": []}, {"inet t s": ("22",)}, True),
        ({"inet t s": [22]}, {}, False),
        ({}, {"inet t s": ("22",)}, True),
    ],
)
def test_whether_sets_have_the_elements_that_are_waited_for(
    wanted: dict[str, list[str | int]], found: dict[str, tuple[str, ...]], same: bool
) -> None:
    assert same_elements(wanted, found) is same
