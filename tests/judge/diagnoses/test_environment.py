"""What the lab does to a packet before a rule could."""

from __future__ import annotations

import msgspec
import pytest

from harness.model.observation import Delivery, Drop, ObservedPacket
from harness.topology.network import Network
from harness.topology.spec import LabSpec
from tests.builders import advice, at, changed, dropped, frame, headers, hop, rule, step


def network(**device: object) -> Network:
    hosts = {
        "client": {
            "interfaces": {"eth0": ["203.0.113.5/24"], "eth0.10": []},
            "vlans": {"eth0.10": {"link": "eth0", "id": 10}},
        },
        "device": {"interfaces": {"wan0": ["203.0.113.1/24"], "lan0": ["10.0.2.1/24"]}, **device},
        "server": {"interfaces": {"eth0": ["10.0.2.2/24"]}},
    }
    links = [["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]]
    return Network.of(msgspec.convert({"hosts": hosts, "links": links}, LabSpec))


def tagged(*tags: int, to: str = "00:00:00:00:00:00") -> bytes:
    plain = frame()
    return (
        bytes.fromhex(to.replace(":", ""))
        + plain[6:12]
        + b"".join(b"\x81\x00" + bytes((0, tag)) for tag in tags)
        + plain[12:]
    )


def given_up(function: str, reason: str, **more: object) -> ObservedPacket:
    return changed(
        steps=(),
        deliveries=(),
        hops=(hop("ip_rcv"),),
        drop=Drop(host="device", function=function, reason=reason),
        **more,
    )


class TestForwarding:
    WANTED = {"delivered": "server"}

    @pytest.mark.parametrize("reason", ["NOT_SPECIFIED", "IP_INADDRERRORS"])
    def test_ipv6(self, reason: str) -> None:
        packet = given_up("ip6_forward", reason, frame=frame("2001:db8::5", "2001:db8:1::2"))
        said = "device does not forward IPv6: set `forwarding: true` on this host of the lab"
        assert said in advice(self.WANTED, packet, network=network())
        for forwards in ({"forwarding": True}, {"sysctls": {"net.ipv6.conf.all.forwarding": 1}}):
            assert said not in advice(self.WANTED, packet, network=network(**forwards))


class TestVlan:
    def test_a_second_tag(self) -> None:
        by = (hop("dev_queue_xmit", host="client", device="eth0.10"), hop("netif_receive_skb"))
        packet = changed(steps=(), hops=by, frame=tagged(10))
        said = (
            "client sent the frame by its VLAN interface eth0.10, which adds a tag to the one of `ether.vlan`: "
            "leave that out"
        )
        assert advice({"verdict": "drop"}, packet, network=network()) == [said]
        for other in (changed(packet, frame=frame()), changed(packet, hops=(hop("x", host="client", device="eth0"),))):
            assert advice({"verdict": "drop"}, other, network=network()) == []

    def test_no_interface_for_it(self) -> None:
        lab = network()
        own = lab.hosts["device"].interfaces["wan0"].mac
        packet = given_up("ip_rcv_core", "OTHERHOST", frame=tagged(10, to=own))
        assert advice({"verdict": "accept"}, packet, network=lab) == [
            "device has no interface for VLAN 10 on wan0, so the tagged frame is not for it"
        ]
        other = given_up("ip_rcv_core", "OTHERHOST", frame=tagged(10, to="02:00:00:00:00:99"))
        assert advice({"verdict": "accept"}, other, network=lab) == ["check `ether.dst` in `send`"]
        for near in (
            given_up("ip_rcv_core", "OTHERHOST", frame=tagged(to=own)),
            given_up("ip_rcv_core", "IP_CSUM", frame=tagged(10, to=own)),
        ):
            assert not [line for line in advice({"verdict": "accept"}, near, network=lab) if "VLAN" in line]

    def test_the_tag_is_taken_off_before_ingress(self) -> None:
        wanted = rule("meta protocol 8021q drop", line=1, chain="netdev i in")
        seen = changed(steps=(at(step("accept", chain="netdev i in", hook="ingress")),), hops=(), frame=tagged(10))
        expect = {"verdict": "drop", "rule": wanted.text}
        (said,) = advice(expect, seen, rules=(wanted,))
        assert said == (
            "rulesets/edge.nft:1 cannot match: the kernel takes the VLAN tag off before any chain, so `meta protocol` "
            "is that of what is behind it; match the tag by `vlan id`"
        )
        for data in (frame(), tagged(10, 20)):
            assert advice(expect, changed(seen, frame=data), rules=(wanted,)) == []

    def test_another_vlan(self) -> None:
        wanted = rule("vlan id 20 drop", line=1, chain="netdev i in")
        seen = changed(steps=(step("accept", chain="netdev i in", hook="ingress"),), hops=(), frame=tagged(10))
        expect = {"verdict": "drop", "rule": wanted.text}
        said = "rulesets/edge.nft:1 asks for VLAN 20, and client sent the frame "
        assert advice(expect, seen, rules=(wanted,), network=network()) == [f"{said}with VLAN 10"]
        assert advice(expect, changed(seen, frame=frame()), rules=(wanted,), network=network()) == [
            f"{said}without a tag"
        ]
        assert advice(expect, changed(seen, frame=tagged(10, 30)), rules=(wanted,), network=network()) == [
            f"{said}with VLAN 10, 30"
        ]
        for other in ({"frame": tagged(20)}, {"sender": "device"}, {"injected": False}):
            assert advice(expect, changed(seen, **other), rules=(wanted,), network=network()) == []


class TestLimitOfErrors:
    LIMITED = network(sysctls={"net.ipv4.icmp_ratelimit": 1000})
    REJECTED = dropped(
        step("reject", rule("reject", line=3)), drop=Drop(host="device", function="x", reason="NETFILTER_DROP")
    )
    WANTED = {"reply": {"icmp": {}}}

    def test_no_error_was_sent(self) -> None:
        assert advice(self.WANTED, self.REJECTED, network=self.LIMITED) == [
            "device sent no ICMP error for this packet; the lab limits their rate (net.ipv4.icmp_ratelimit: 1000)"
        ]

    def test_near_misses(self) -> None:
        assert advice(self.WANTED, self.REJECTED, network=network()) == []
        reset = dropped(step("reject", rule("reject with tcp reset", line=3)))
        assert advice(self.WANTED, reset, network=self.LIMITED) == []
        answer = ObservedPacket(
            number=1,
            sender="device",
            frame=b"",
            injected=False,
            steps=(at(step("accept", hook="output"), headers=headers()),),
            deliveries=(Delivery(time=1, host="client", device="eth0", frame=frame()),),
        )
        assert advice(self.WANTED, self.REJECTED, answer, network=self.LIMITED) == []

    def test_of_udp_to_a_port_without_a_socket(self) -> None:
        udp = frame()[:23] + b"\x11" + frame()[24:]
        unheard = given_up("udp_unicast_rcv_skb", "NO_SOCKET", frame=udp)
        limited = network(sysctls={"net.ipv4.icmp_ratelimit": 1000, "net.ipv4.icmp_msgs_per_sec": 1})
        said = (
            "device sent no ICMP error for this packet; the lab limits their rate (net.ipv4.icmp_ratelimit: 1000, "
            "net.ipv4.icmp_msgs_per_sec: 1)"
        )
        assert said in advice(self.WANTED, unheard, network=limited)
        for other in (
            changed(unheard, frame=frame()),  # of TCP
            given_up("udp_queue_rcv_skb", "SOCKET_RCVBUFF", frame=udp),
            changed(frame=udp),
        ):
            assert said not in advice(self.WANTED, other, network=limited)

    def test_a_redirect_is_no_answer(self) -> None:
        ip = bytearray(headers("203.0.113.1", "203.0.113.5")[:20] + bytes((5, 1)) + bytes(6))
        ip[9] = 1
        redirect = ObservedPacket(number=1, sender="device", frame=bytes(12) + b"\x08\x00" + bytes(ip), injected=False)
        (said,) = advice(self.WANTED, self.REJECTED, redirect, network=self.LIMITED)
        assert said.startswith("device sent no ICMP error for this packet")
