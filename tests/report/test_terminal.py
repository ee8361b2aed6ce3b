"""The texts that people read, whole."""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address
from textwrap import dedent

import msgspec
import pytest

from harness.errors import Position
from harness.judge.advice import advise
from harness.judge.evidence import Evidence
from harness.judge.expectations import judge
from harness.model.observation import Delivery, Drop, Loss, Observation, ObservedPacket, Rule
from harness.reading.decision import outcome
from harness.report.terminal import explain, outline
from harness.scenario.models.expect import Expect
from harness.text import escape
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import FORWARD, hop, rule, step

NAME = "SSH from outside is refused"
SUMMARY = "client 203.0.113.5:40000 → server 10.0.2.2:22 tcp S (IPv4, 40 bytes)"


def frame(proto: int, upper: bytes, *, src: str = "203.0.113.5", dst: str = "10.0.2.2", ttl: int = 64) -> bytes:
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(upper), 1, 0, ttl, proto, 0)
    return bytes(12) + b"\x08\x00" + ip + ip_address(src).packed + ip_address(dst).packed + upper


SSH = struct.pack(">HHIIBBHHH", 40000, 22, 1000, 0, 5 << 4, 2, 64240, 0, 0)


ESTABLISHED = step("continue", rule("ct state vmap { established : accept }", line=12, handle=5))
ACCEPTED = ObservedPacket(
    number=0,
    sender="client",
    frame=frame(6, SSH),
    steps=(ESTABLISHED, step("accept", rule("tcp dport { 22, 443 } accept", line=18, handle=9))),
    hops=(
        hop("dev_queue_xmit", "Xmit", host="client", device="eth0"),
        hop("netif_receive_skb", "Device"),
        hop("ip_rcv_core"),
        hop("ip_rcv"),
        hop("ip_route_input_noref", "Routing"),
        hop("nft_do_chain", "Netfilter", chain=FORWARD, hook="forward", verdict="accept"),
        hop("ip_forward_finish"),
        hop("ip_output", device="lan0"),
        hop("ip_finish_output", device="lan0"),
        hop("ip_finish_output2", device="lan0"),
        hop("neigh_resolve_output", "Xmit", device="lan0"),
        hop("__dev_queue_xmit", "Xmit", device="lan0"),
        hop("netif_rx", "Device", host="server", device="eth0"),
    ),
    deliveries=(Delivery(time=0, host="server", device="eth0", frame=frame(6, SSH, ttl=63)),),
)
PPP = msgspec.structs.replace(
    rule('iifname "ppp0" tcp dport 22 accept', line=20, handle=11), written="iifname $WAN tcp dport 22 accept"
)
PATH = ["ip_rcv", {"nft_do_chain": {"chain": FORWARD}}, "sk_skb_reason_drop"]
POLICY = msgspec.structs.replace(
    ACCEPTED,
    steps=(ESTABLISHED, step("drop")),
    hops=(
        *ACCEPTED.hops[:5],
        hop("nft_do_chain", "Netfilter", chain=FORWARD, hook="forward", verdict="drop"),
        hop("sk_skb_reason_drop", "Netfilter", reason="NETFILTER_DROP"),
    ),
    deliveries=(),
    drop=Drop(host="device", function="nf_hook_slow", reason="NETFILTER_DROP"),
)


def observation(packet: ObservedPacket, *replies: Delivery) -> Observation:
    return Observation(
        packets=(packet,),
        loss=Loss(entered=212, received=212),
        kernel="6.12",
        engine="kprobe.multi",
        device="device",
        traced=frozenset(hop.function for hop in (*ACCEPTED.hops, *POLICY.hops)),
        replies=replies,
    )


def text(
    expect: dict[str, object],
    packet: ObservedPacket,
    *replies: Delivery,
    name: str = NAME,
    colour: bool = False,
    rules: tuple[Rule, ...] = (),
) -> str:
    model, seen = msgspec.convert(expect, Expect), observation(packet, *replies)
    mismatches = judge(model, seen, packet, at=lambda keys: Position("edge.yaml", 31), rules=rules)
    evidence = Evidence(model, outcome(packet, "device"), seen, packet, rules)
    return explain(name, Position("edge.yaml", 31), SUMMARY, evidence, mismatches, colour=colour)


def page(lines: str) -> str:
    return dedent(lines).strip("\n")


def test_a_changed_expectation() -> None:
    expect = {"verdict": "drop", "rule": "policy", "delivered": "nowhere", "path": PATH}
    assert text(expect, ACCEPTED) == page(
        """
        edge.yaml:31: SSH from outside is refused
          expect.verdict    drop                seen  accept
          expect.rule       expected  policy
                            seen      inet filter forward, rulesets/edge.nft:18 (handle 9): tcp dport { 22,
                                      443 } accept
          expect.delivered  nowhere             seen  server
          expect.path[2]    sk_skb_reason_drop  seen  never met
          ended     delivered to server
          causes    docs/diagnoses.md#my-packet-should-have-been-dropped
          packet    client 203.0.113.5:40000 → server 10.0.2.2:22 tcp S (IPv4, 40 bytes)
          decided   inet filter forward, rulesets/edge.nft:18 (handle 9)   tcp dport { 22, 443 } accept
          rules     inet filter forward  edge.nft:12  continue  ct state vmap { established : accept }
                    inet filter forward  edge.nft:18  accept    tcp dport { 22, 443 } accept
          path        expected                          seen                                 > differs
                                                        … 2 more
                      ip_rcv                            ip_rcv                               IPv4       wan0
                                                        ip_route_input_noref                 Routing    wan0
                      nft_do_chain inet filter forward  nft_do_chain inet… forward → accept  Netfilter  wan0
                    > sk_skb_reason_drop                ip_forward_finish                    IPv4       wan0
                                                        ip_output                            IPv4       lan0
                                                        ip_finish_output                     IPv4       lan0
                                                        ip_finish_output2                    IPv4       lan0
                                                        neigh_resolve_output                 Xmit       lan0
                                                        __dev_queue_xmit                     Xmit       lan0
          arrived   server eth0: 203.0.113.5:40000 → 10.0.2.2:22 tcp S (IPv4, 40 bytes), ttl 63
          lost      0 of 212 events (refused 0, missed 0, trace 0)
        """
    )


def test_a_changed_rule() -> None:
    expect = {
        "verdict": "accept",
        "rule": "tcp dport { 22, 443 } accept",
        "delivered": "server",
        "path": ["ip_rcv", "ip_forward_finish", "__dev_queue_xmit"],
    }
    assert text(expect, POLICY) == page(
        """
        edge.yaml:31: SSH from outside is refused
          expect.verdict    accept             seen  drop
          expect.rule       tcp dport { 22, 443 } accept  seen  inet filter forward, policy drop
          expect.delivered  server             seen  nowhere
          expect.path[1]    ip_forward_finish  seen  never met
          ended     dropped on device by inet filter forward, policy drop (nf_hook_slow: NETFILTER_DROP)
          advice    no rule of inet filter forward decided, so its policy did: add a rule that accepts this
                    packet
          causes    docs/diagnoses.md#my-packet-is-accepted-but-does-not-arrive
          packet    client 203.0.113.5:40000 → server 10.0.2.2:22 tcp S (IPv4, 40 bytes)
          decided   inet filter forward   policy drop
          rules     inet filter forward  edge.nft:12  continue  ct state vmap { established : accept }
                    inet filter forward               drop      policy drop
          path        expected           seen                                     > differs
                                         netif_receive_skb                        Device     wan0
                                         ip_rcv_core                              IPv4       wan0
                      ip_rcv             ip_rcv                                   IPv4       wan0
                    > ip_forward_finish  ip_route_input_noref                     Routing    wan0
                      __dev_queue_xmit   nft_do_chain inet filter forward → drop  Netfilter  wan0
                                         sk_skb_reason_drop NETFILTER_DROP        Netfilter  wan0
          arrived   nowhere
          lost      0 of 212 events (refused 0, missed 0, trace 0)
        """
    )


def test_a_changed_packet() -> None:
    packet = msgspec.structs.replace(
        ACCEPTED,
        steps=(),
        hops=ACCEPTED.hops[:4],
        deliveries=(),
        drop=Drop(host="device", function="ip_rcv_finish_core", reason="IP_RPFILTER"),
    )
    assert text({"verdict": "accept", "delivered": "server"}, packet) == page(
        """
        edge.yaml:31: SSH from outside is refused
          expect.verdict    accept  seen  undecided
                            no base chain of the ruleset saw it
          expect.delivered  server  seen  nowhere
          ended     dropped by the kernel on device in ip_rcv_finish_core: IP_RPFILTER (reverse path filter:
                    the route back to its source does not use the interface that it arrived on)
          advice    check the packet's source address, the device's routes, and net.ipv4.conf.*.rp_filter
          causes    docs/diagnoses.md#my-packet-is-accepted-but-does-not-arrive
          packet    client 203.0.113.5:40000 → server 10.0.2.2:22 tcp S (IPv4, 40 bytes)
          decided   nothing: no base chain of the ruleset saw the packet
          path      client  eth0  1 function
                    device  wan0  3 functions: Device  IPv4
          arrived   nowhere
          lost      0 of 212 events (refused 0, missed 0, trace 0)
        """
    )


def test_a_reject_and_what_the_sender_got() -> None:
    packet = msgspec.structs.replace(
        POLICY, steps=(step("drop", rule("tcp dport 22 reject with icmp admin-prohibited", line=7, handle=3)),)
    )
    unreachable = frame(1, bytes([3, 13]) + bytes(34), src="203.0.113.1", dst="203.0.113.5")
    reset = frame(
        6, struct.pack(">HHIIBBHHH", 22, 40000, 0, 1001, 5 << 4, 0x14, 0, 0, 0), src="10.0.2.2", dst="203.0.113.5"
    )
    answers = [Delivery(time=1, host="client", device="eth0", frame=answer) for answer in (unreachable, reset)]
    assert text({"verdict": "accept"}, packet, *answers) == page(
        """
        edge.yaml:31: SSH from outside is refused
          expect.verdict  accept  seen  reject with icmp admin-prohibited
          ended     rejected with icmp admin-prohibited on device by inet filter forward,
                    rulesets/edge.nft:7 (nf_hook_slow: NETFILTER_DROP)
          causes    docs/diagnoses.md#my-packet-is-accepted-but-does-not-arrive
          packet    client 203.0.113.5:40000 → server 10.0.2.2:22 tcp S (IPv4, 40 bytes)
          decided   inet filter forward, rulesets/edge.nft:7 (handle 3)
                      tcp dport 22 reject with icmp admin-prohibited
          rules     inet filter forward  edge.nft:7  reject  tcp dport 22 reject with icmp admin-prohibited
          path      client  eth0  1 function
                    device  wan0  6 functions: Device  IPv4  Routing  [inet filter forward → drop]
          arrived   nowhere
          answers   client eth0 got icmp admin-prohibited from 203.0.113.1
                    client eth0 got tcp reset: 10.0.2.2:22 → 203.0.113.5:40000 tcp RA (IPv4, 40 bytes)
          lost      0 of 212 events (refused 0, missed 0, trace 0)
        """
    )


def test_long_paths_are_folded_around_the_first_difference() -> None:
    more = tuple(hop(f"function_{number}") for number in range(40))
    packet = msgspec.structs.replace(ACCEPTED, hops=(*ACCEPTED.hops[:6], *more, *ACCEPTED.hops[6:]))
    shown = text({"path": [*PATH, "__dev_queue_xmit"]}, packet)
    assert page(shown[shown.index("  path") : shown.index("  arrived")]) == page(
        """
        path        expected                          seen                                 > differs
                                                      … 2 more
                    ip_rcv                            ip_rcv                               IPv4       wan0
                                                      ip_route_input_noref                 Routing    wan0
                    nft_do_chain inet filter forward  nft_do_chain inet… forward → accept  Netfilter  wan0
                  > sk_skb_reason_drop                function_0                           IPv4       wan0
                                                      function_1                           IPv4       wan0
                                                      function_2                           IPv4       wan0
                                                      function_3                           IPv4       wan0
                                                      … 41 more
                    __dev_queue_xmit                  __dev_queue_xmit                     Xmit       lan0
        """
    )


@pytest.mark.parametrize(
    ("expect", "packet", "advice"),
    [
        ({"verdict": "accept"}, POLICY, "no rule of inet filter forward decided, so its policy did"),
        (
            {"verdict": "accept", "rule": "iifname $WAN tcp dport 22 accept"},
            POLICY,
            "look at rulesets/edge.nft:20, the rule that the scenario expects: it did not match",
        ),
        (
            {"verdict": "accept", "rule": "iifname $WAN tcp dport 22 accept"},
            POLICY,
            "the expected rule asks for the interface ppp0, and the packet came in by wan0",
        ),
        (
            {"verdict": "accept", "rule": "tcp dport 23 accept"},
            POLICY,
            "the ruleset has no such rule as the scenario expects: add it, or correct `rule`",
        ),
        (
            {"verdict": "accept", "rule": 'iifname "ppp0" tcp dport 22 accept'},
            POLICY,
            "the expected rule asks for the interface ppp0, and the packet came in by wan0",
        ),
        (
            {"verdict": "accept"},
            msgspec.structs.replace(POLICY, steps=(step("drop", rule("ct state invalid drop", line=9, handle=4)),)),
            "conntrack considers the packet invalid: its TCP checksum is wrong",
        ),
        (
            {"delivered": "server"},
            msgspec.structs.replace(
                POLICY,
                steps=(),
                hops=POLICY.hops[:3],
                drop=Drop(host="device", function="ip_error", reason="IP_INADDRERRORS"),
            ),
            "set `forwarding: true` on this host of the lab",
        ),
    ],
)
def test_advice_where_the_cause_is_known(expect: dict[str, object], packet: ObservedPacket, advice: str) -> None:
    shown = text(expect, packet, rules=(ESTABLISHED.rule, PPP))
    (line,) = re.findall(rf"^(?:  advice|   )  +({re.escape(advice)})", shown, flags=re.MULTILINE)
    assert line == advice


def test_what_a_counter_has_counted_stands_behind_its_rule() -> None:
    seen = msgspec.structs.replace(observation(ACCEPTED), counts={f"{FORWARD} 9": 3})
    expect = Expect(verdict="drop")
    mismatches = judge(expect, seen, ACCEPTED, at=lambda keys: Position("edge.yaml", 31))
    evidence = Evidence(expect, outcome(ACCEPTED, "device"), seen, ACCEPTED)
    reported = explain(NAME, Position("edge.yaml", 31), SUMMARY, evidence, mismatches)
    assert "edge.nft:18  accept    tcp dport { 22, 443 } accept   [counter: 3]" in reported
    assert reported.count("[counter:") == 1


def test_no_advice_where_the_ruleset_simply_says_otherwise() -> None:
    assert "advice" not in text({"verdict": "drop"}, ACCEPTED)


def test_a_policy_is_shown_with_its_place() -> None:
    placed = msgspec.structs.replace(step("drop"), policy_at=Position("rulesets/edge.nft", 3))
    shown = text({"verdict": "accept"}, msgspec.structs.replace(POLICY, steps=(placed,)))
    assert "  decided   inet filter forward, rulesets/edge.nft:3   policy drop\n" in shown
    assert "inet filter forward  edge.nft:3  drop  policy drop\n" in shown


def test_colour_changes_nothing_but_colour() -> None:
    expect = {"verdict": "drop", "path": PATH}
    plain, coloured = text(expect, ACCEPTED), text(expect, ACCEPTED, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[31maccept\x1b[0m" in coloured
    without = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in without.splitlines()] == plain.splitlines()


def test_hostile_names_cannot_move_the_cursor() -> None:
    comment = "\x1b[2J\r\u202egotcha\nedge.yaml:1: passed"
    packet = msgspec.structs.replace(
        ACCEPTED, steps=(step("accept", rule(f'accept comment "{comment}"', line=1, handle=2)),)
    )
    shown = text({"verdict": "drop"}, packet, name=comment)
    assert shown.splitlines()[0] == r"edge.yaml:31: \x1b[2J\r\u202egotcha\nedge.yaml:1: passed"
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert escape("naïve → ok") == "naïve → ok"


def test_lines_fit_a_terminal() -> None:
    expect = {"verdict": "drop", "rule": "policy", "delivered": "nowhere", "path": PATH, "layers": ["Bridge"]}
    assert max(map(len, text(expect, ACCEPTED).splitlines())) <= 100


def test_outline_of_a_packet_that_passed() -> None:
    assert page(outline(observation(ACCEPTED), ACCEPTED)) == page(
        """
        path      client  eth0         1 function
                  device  wan0 → lan0  11 functions: Device  IPv4  Routing  [inet filter forward → accept]
                                       IPv4  Xmit
                  server  eth0         1 function
        ended     delivered to server
        """
    )


def test_a_destination_that_no_host_of_the_lab_has_is_named() -> None:
    headers = frame(6, SSH, dst="192.168.10.20")
    packet = msgspec.structs.replace(
        POLICY,
        steps=(),
        hops=POLICY.hops[:3],
        deliveries=(Delivery(time=5, host="client", device="eth0", frame=headers),),
        drop=Drop(host="client", function="ip_error", reason="IP_INADDRERRORS"),
    )
    network = Network.of(LABS["router"])
    expect = Expect(delivered="server")
    (advice,) = advise(Evidence(expect, outcome(packet, "device"), observation(packet), packet, network=network))
    assert advice == "check the destination: no host of the lab has 192.168.10.20"
