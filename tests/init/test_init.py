"""From a ruleset as nft lists it to a scenario file, without a kernel.

facts/ is what ``python -m harness.generate.facts`` makes of rulesets/, of the shipped ones, and of one of Docker's.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from harness.errors import HarnessError
from harness.generate import file, lab
from harness.generate.constraints import merged
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.file import ScenarioDraft
from harness.generate.packets import Candidates
from harness.generate.simulate import Key, SimulatedRuleset
from harness.generate.targets import why_none
from harness.init.command import run
from harness.scenario.case import Case
from harness.scenario.load import load_all

FACTS = Path(__file__).with_name("facts")
NAMES = sorted(path.stem for path in FACTS.glob("*.json"))


def facts(name: str) -> Facts:
    return msgspec.json.decode((FACTS / f"{name}.json").read_bytes(), type=Facts)


def packets(name: str) -> Candidates:
    found = facts(name)
    return Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))


def packet(name: str, chain: str, text: str) -> tuple[dict[str, object], ...]:
    """The first packet for the rule that begins with ``text``; for the policy of ``chain`` if that is nothing."""
    return next(packets(name).of(key_of(facts(name), chain, text))).sends


def key_of(found: Facts, chain: str, text: str) -> Key:
    """The first rule of ``chain`` that begins with ``text``; its policy if that is nothing."""
    keys = [
        (rule.family, rule.table, rule.chain, rule.handle)
        for rule in found.rules
        if rule.chain == chain and text and rule.text.startswith(text)
    ] + [(one.family, one.table, one.name, 0) for one in found.chains if one.name == chain and not text]
    return keys[0]


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("edge", "client — wan0 device lan0 — server"),
        ("home", "client — enp1s0 device enp2s0 — pc, device enp3s0 — server"),
        ("docker", "client — eth0 device docker0 — server"),
        ("services", "client — wan0 device lan0 — server"),
        ("lan0", "client — wan0 device lan0 — server"),
        ("netavark", "client — wan0 device lan0 — server"),
        ("gateway", "client — pppoe-wan device br-lan — server"),
        (
            "zones",
            "client — wan0 device eth1.10 — server, device eth1.20 — pc, device wlan0 — third, device other0 — fourth",
        ),
        ("tunnel", "client — tun0 device other0 — server"),
        ("bridged", "client — uplink0 device swp1 — server, device swp3 — pc, device swp2 — third"),
    ],
)
def test_the_lab_has_the_interfaces_that_the_ruleset_names(name: str, described: str) -> None:
    assert lab.choose(facts(name)).described == described


def test_any_number_of_interfaces_gets_a_host_each() -> None:
    network = lab.choose(facts("vlans")).network
    assert {one.peer.host for one in network.hosts["device"].interfaces.values()} == {*network.hosts} - {"device"}
    assert [f"eth0.{n}" for n in range(101, 121)] == [one for one in network.hosts["device"].interfaces if "." in one]


@pytest.mark.parametrize(
    ("name", "host", "addresses"),
    [
        ("docker", "server", {"172.17.0.2/24"}),
        ("netavark", "server", {"10.88.0.7/24", "10.88.0.9/24"}),
        ("netavark", "device", {"203.0.113.1/24", "10.88.0.1/24"}),
        ("gateway", "server", {"192.168.7.20/24", "192.168.8.30/24"}),
        ("bridged", "pc", {"10.0.2.3/24", "2001:db8:2::3/64"}),
    ],
)
def test_a_host_has_the_addresses_that_rules_give_it(name: str, host: str, addresses: set[str]) -> None:
    interfaces = lab.choose(facts(name)).network.hosts[host].interfaces.values()
    assert addresses <= {str(address) for one in interfaces for address in one.addresses}


def test_hosts_at_a_bridge_share_its_networks() -> None:
    device = lab.choose(facts("bridged")).network.hosts["device"]
    assert device.bridges["br0"].ports == ("swp1", "swp3", "swp2")
    assert not any(device.interfaces[port].addresses for port in device.bridges["br0"].ports)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        *(("edge", 0), ("home", 0), ("services", 0), ("docker", 1), ("lan0", 0), ("netavark", 0), ("vlans", 0)),
        *(("blocks", 0), ("bridged", 0), ("zones", 0), ("gateway", 4), ("kernel", 6), ("ways", 1), ("tunnel", 0)),
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


@pytest.mark.parametrize(
    ("name", "chain", "text", "reason"),
    [
        ("kernel", "input", "", "an earlier rule decides every packet"),
        ("kernel", "forward", "", "an earlier rule decides every packet"),
        ("kernel", "forward", "udp dport 53", "an earlier rule decides every packet"),
        (
            *("kernel", "input", 'iifname "wan0" ip saddr 127.0.0.0/8'),
            "the kernel drops packets from other hosts with the address 127.0.0.0/8 before this hook",
        ),
        (
            *("kernel", "input", "ip daddr 224.0.0.251"),
            "no program of the lab has joined the group 224.0.0.251, so the device does not receive it",
        ),
        ("gateway", "input", "", "an earlier rule decides every packet"),
    ],
)
def test_why_a_rule_has_no_packet(name: str, chain: str, text: str, reason: str) -> None:
    found = facts(name)
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    key = key_of(found, chain, text)
    assert next(Candidates(device).of(key), None) is None
    assert why_none(device, key) == reason


def test_no_rule_translates_what_a_rule_asks_for() -> None:
    found = facts("kernel")
    device = SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)
    device.ruleset.chains.pop(("ip", "nat", "prerouting"))
    assert why_none(device, key_of(found, "forward", "ct status dnat")) == ("no rule performs destination NAT")


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


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_a_scenario_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "firewall.nft").touch()
    chosen, made = lab.choose(facts(name)), packets(name)
    scenarios = [
        ScenarioDraft(f"rule: {number}", next(iter(made.of((one.family, one.table, one.chain, one.handle)))).sends)
        for number, one in enumerate(facts(name).rules)
        if next(made.of((one.family, one.table, one.chain, one.handle)), None)
    ]
    output = tmp_path / "scenarios.yaml"
    output.write_text(file.head(tmp_path / "firewall.nft", output, chosen) + file.body(scenarios, ["one: a\nb"]))
    loaded = load_all(output, recording=True)
    assert loaded.errors == ()
    assert all(isinstance(case, Case) for case in loaded.cases)
    assert len(loaded.cases) == len(scenarios)


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


def test_a_network_and_an_address_in_it_are_one_constraint() -> None:
    network = {"daddr": "10.0.0.0/8", "family": 4}
    assert merged([network, {"daddr": "10.1.2.3"}]) == merged([{"daddr": "10.1.2.3"}, network])
    assert merged([network, {"daddr": "10.1.2.3"}]) == {"daddr": "10.1.2.3", "family": 4}
    assert merged([network, {"daddr": "10.1.0.0/16"}]) == {"daddr": "10.1.0.0/16", "family": 4}
    assert merged([network, {"daddr": "192.0.2.1"}]) is None


def test_a_file_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fw.nft").touch()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/fw.yaml").touch()
    with pytest.raises(HarnessError, match=r"scenarios/fw\.yaml already exists"):
        run(Path("fw.nft"), None, kernel="6.12", measure=False, progress=print)
    with pytest.raises(HarnessError, match="is not called scenarios/"):
        run(Path("fw.nft"), Path("fw.yaml"), kernel="6.12", measure=False, progress=print)
    with pytest.raises(HarnessError, match="is not a file"):
        run(Path("none.nft"), None, kernel="6.12", measure=False, progress=print)


def test_a_rule_without_a_packet_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.init.command.look", lambda *_: facts("gateway"))
    (tmp_path / "gateway.nft").touch()
    said: list[str] = []
    assert run(Path("gateway.nft"), None, kernel="6.12", measure=False, progress=said.append) == 1
    missing = [line for line in said if line.startswith("no scenario for ")]
    assert missing
    for line in missing:
        assert line.count("gateway.nft:") == 1, line
    written = (tmp_path / "scenarios/gateway.yaml").read_text()
    assert all(f"#   {line.removeprefix('no scenario for ')}\n" in written for line in missing)
