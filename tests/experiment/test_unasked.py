"""Rulesets that would drop ARP or Neighbour Discovery, in labs where nobody has to ask."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest

from harness.experiment.unasked import Unasked
from harness.lab.capture import Capture
from harness.lab.lab import Lab
from harness.model.observation import Delivery, Observation, ObservedPacket
from harness.packets.frames import build
from harness.packets.spec import TCP, IPv6, Send
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace_chains import TraceChains
from harness.scenario.flow import speaking
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.builders import observation

pytestmark = pytest.mark.kernel

SOLICIT, ADVERT = "icmpv6 type nd-neighbor-solicit", "icmpv6 type nd-neighbor-advert"
ND = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"


def table(family: str, hook: str, *rules: str, policy: str = "accept") -> str:
    base = f"type filter hook {hook} priority filter; policy {policy};"
    return "\n".join([f"table {family} t {{", "chain c {", base, *rules, "}", "}", ""])


def sent(network: Network, start: str, end: str, version: int) -> tuple[Observation, ObservedPacket]:
    """A packet that was delivered."""
    more = {"ip6": IPv6()} if version == 6 else {}
    (frame,) = build(Send(from_=start, to=end, tcp=TCP(dport=443), **more), network)
    data = frame.data
    arrived = data
    if end == "server" and network.hosts["device"].forwarding:
        device, server = network.hosts["device"].interfaces["lan0"], network.hosts["server"].interfaces["eth0"]
        arrived = bytes.fromhex((server.mac + device.mac).replace(":", "")) + data[12:]
    delivery = Delivery(time=1, host=end, device="eth0", frame=b"" if end == "device" else arrived)
    packet = ObservedPacket(number=0, sender=start, injected=True, born=0, frame=data, deliveries=(delivery,))
    return msgspec.structs.replace(observation(packet), device="device"), packet


def notes(
    tmp_path: Path, network: Network, ruleset: str, start: str, end: str, version: int, changed: bool = False
) -> list[str]:
    file = tmp_path / "rules.nft"
    file.write_text(ruleset)
    with Lab.build(network) as lab:
        loaded = {network.device: Ruleset.load(lab.device, file)}
        tracing = [TraceChains(lab.device, loaded[network.device])]
        capture = Capture(host for host in lab.hosts.values() if host is not lab.device)
        unasked = Unasked(lab, loaded, tracing, capture)
        unasked.changed = changed
        return list(unasked.notes(*sent(network, start, end, version)))


CLOSED = table("inet", "input", "tcp dport 443 accept", policy="drop")

DROPPED = [
    ("host", table("arp", "input", policy="drop"), "client", "device", 4, ["ARP request of client"]),
    ("host", table("arp", "input", "arp operation request drop"), "client", "device", 4, ["rules.nft:4"]),
    ("host", table("arp", "output", "arp operation reply drop"), "client", "device", 4, ["ARP reply of device"]),
    ("host", CLOSED, "client", "device", 6, ["neighbour solicitation of client", "inet t c, policy drop"]),
    ("host", table("ip6", "output", f"{ADVERT} drop"), "client", "device", 6, ["neighbour advertisement of device"]),
    ("router", CLOSED, "client", "server", 6, ["solicitation of client", "advertisement of server"]),
    ("router", table("inet", "output", f"{SOLICIT} drop"), "client", "server", 6, ["solicitation of device"]),
    ("router", table("inet", "output", f"{SOLICIT} drop"), "device", "server", 6, ["solicitation of device"]),
    ("router", table("arp", "output", "arp operation request drop"), "client", "server", 4, ["request of device"]),
    ("router", table("arp", "input", "arp operation reply drop"), "client", "server", 4, ["reply of server"]),
    ("bridge", table("bridge", "forward", "ether type arp drop"), "client", "server", 4, ["request of client"]),
    ("bridge", table("bridge", "forward", "arp operation reply drop"), "client", "server", 4, ["reply of server"]),
    ("bridge", table("bridge", "forward", f"{ADVERT} drop"), "client", "server", 6, ["advertisement of server"]),
    ("bridge", table("bridge", "input", "ether type arp drop"), "client", "device", 4, ["request of client"]),
]

ALLOWED = [
    ("host", table("arp", "input", "arp operation request accept", policy="drop"), "client", "device", 4),
    ("host", table("arp", "input", policy="drop"), "client", "device", 6),
    ("host", CLOSED, "client", "device", 4),
    ("host", table("inet", "input", f"{SOLICIT} accept", policy="drop"), "client", "device", 6),
    ("host", table("inet", "output", f"{SOLICIT} drop"), "client", "device", 6),
    ("router", table("inet", "input", ND, policy="drop"), "client", "server", 6),
    ("router", table("ip6", "input", "ip6 hoplimit 255 accept", policy="drop"), "client", "server", 6),
    ("bridge", table("bridge", "input", "ether type arp drop"), "client", "server", 4),
    ("bridge", table("bridge", "forward", "ether type arp drop"), "client", "device", 4),
    ("bridge", table("inet", "input", policy="drop"), "client", "server", 6),
]


@pytest.mark.parametrize(("lab", "ruleset", "start", "end", "version", "words"), DROPPED)
def test_what_is_dropped_is_named(
    tmp_path: Path, lab: str, ruleset: str, start: str, end: str, version: int, words: Collection[str]
) -> None:
    found = "\n".join(notes(tmp_path, Network.of(LABS[lab]), ruleset, start, end, version))
    assert [word for word in words if word not in found] == []


@pytest.mark.parametrize(("lab", "ruleset", "start", "end", "version"), ALLOWED)
def test_what_passes_is_not(tmp_path: Path, lab: str, ruleset: str, start: str, end: str, version: int) -> None:
    assert notes(tmp_path, Network.of(LABS[lab]), ruleset, start, end, version) == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("drops", [True, False])
def test_hosts_with_programs_whose_neighbours_are_known(tmp_path: Path, version: int, drops: bool) -> None:
    spec = msgspec.structs.replace(LABS["router"], neighbours="known")
    network = speaking(["client", "server"], Network.of(spec))
    policy = "drop" if drops else "accept"
    ruleset = table("inet", "input", policy=policy) if version == 6 else table("arp", "input", policy=policy)
    found = notes(tmp_path, network, ruleset, "client", "server", version)
    assert [one.split(" is dropped")[0] for one in found] == (
        {
            4: ["the ARP request of client for 203.0.113.1", "the ARP reply of server for 10.0.2.2"],
            6: [
                "the neighbour solicitation of client for 2001:db8:113::1",
                "the neighbour advertisement of server for 2001:db8:2::2",
            ],
        }[version]
        if drops
        else []
    )


def test_neighbours_that_were_resolved_need_no_note(tmp_path: Path) -> None:
    network = speaking(["client", "server"], Network.of(LABS["router"]))
    assert notes(tmp_path, network, CLOSED, "client", "server", 6) == []


def test_what_depends_on_earlier_packets_is_not_certain(tmp_path: Path) -> None:
    every_second = table("inet", "input", f"{SOLICIT} numgen inc mod 2 == 0 drop")
    assert notes(tmp_path, Network.of(LABS["host"]), every_second, "client", "device", 6) == []


def test_a_ruleset_that_was_changed_is_asked_anew(tmp_path: Path) -> None:
    network = Network.of(LABS["host"])
    assert len(notes(tmp_path, network, CLOSED, "client", "device", 6)) == 1
    assert len(notes(tmp_path, network, CLOSED, "client", "device", 6, changed=True)) == 1
    assert len(notes(tmp_path, network, CLOSED, "client", "device", 6)) == 1
