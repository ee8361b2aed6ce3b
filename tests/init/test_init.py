"""From a ruleset as nft lists it (facts/, made by python -m harness.init.facts) to a scenario file, without a
kernel."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from harness.errors import HarnessError
from harness.init import file, lab
from harness.init.command import merged, run
from harness.init.facts import Facts
from harness.init.file import ScenarioDraft
from harness.init.packets import SimulatedDevice
from harness.init.simulate import SimulatedRuleset
from harness.scenario.case import Case
from harness.scenario.load import load_all

FACTS = Path(__file__).with_name("facts")
NAMES = sorted(path.stem for path in FACTS.glob("*.json"))


def facts(name: str) -> Facts:
    return msgspec.json.decode((FACTS / f"{name}.json").read_bytes(), type=Facts)


def world(name: str) -> SimulatedDevice:
    found = facts(name)
    return SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network)


def packet(name: str, chain: str, text: str) -> tuple[dict[str, object], ...]:
    """The first packet for the rule that begins with ``text``; for the policy of ``chain`` if that is nothing."""
    found = facts(name)
    keys = [
        (rule.family, rule.table, rule.chain, rule.handle)
        for rule in found.rules
        if rule.chain == chain and text and rule.text.startswith(text)
    ] + [(one.family, one.table, one.name, 0) for one in found.chains if one.name == chain and not text]
    return next(world(name).candidates(keys[0])).sends


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("edge", "client — wan0 device lan0 — server"),
        ("home", "client — enp1s0 device enp2s0 — pc, device enp3s0 — server"),
        ("docker", "client — eth0 device docker0 — server"),
        ("services", "client — wan0 device lan0 — server"),
    ],
)
def test_the_lab_has_the_interfaces_that_the_ruleset_names(name: str, described: str) -> None:
    assert lab.choose(facts(name)).described == described


def test_a_host_has_the_address_that_a_rule_sends_to() -> None:
    network = lab.choose(facts("docker")).network
    assert str(network.hosts["server"].interfaces["eth0"].addresses[0]) == "172.17.0.2/24"


@pytest.mark.parametrize(("name", "missing"), [("edge", 0), ("home", 0), ("services", 0), ("docker", 2)])
def test_each_rule_and_policy_gets_a_packet(name: str, missing: int) -> None:
    found, made = facts(name), world(name)
    keys = [(one.family, one.table, one.chain, one.handle) for one in found.rules]
    keys += [(one.family, one.table, one.name, 0) for one in found.chains if one.is_base]
    assert sum(next(made.candidates(key), None) is None for key in keys) == missing


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


def test_what_sends_the_same_is_one_scenario() -> None:
    send = ({"from": "client", "to": "server", "tcp": {}},)
    policy = ScenarioDraft("b", send, {0: {"verdict": "drop", "rule": "policy", "delivered": "nowhere"}}, {3: "policy"})
    log = ScenarioDraft("a", send, {0: {"verdict": "drop", "rule": "policy", "rules": ["log"]}}, {1: "log"})
    other = ScenarioDraft("c", ({"from": "client"},))
    both, alone = merged([policy, other, log])
    assert alone is other
    assert both.name == "b; a"
    assert list(both.expected[0].items()) == [
        ("verdict", "drop"),
        ("rule", "policy"),
        ("rules", ["log", "policy"]),
        ("delivered", "nowhere"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_a_scenario_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "firewall.nft").touch()
    chosen, made = lab.choose(facts(name)), world(name)
    scenarios = [
        ScenarioDraft(
            f"rule: {number}", next(iter(made.candidates((one.family, one.table, one.chain, one.handle)))).sends
        )
        for number, one in enumerate(facts(name).rules)
        if next(made.candidates((one.family, one.table, one.chain, one.handle)), None)
    ]
    output = tmp_path / "scenarios.yaml"
    output.write_text(file.head(tmp_path / "firewall.nft", output, chosen) + file.body(scenarios, ["one: a\nb"]))
    loaded = load_all(output, recording=True)
    assert loaded.errors == ()
    assert all(isinstance(case, Case) for case in loaded.cases)
    assert len(loaded.cases) == len(scenarios)


def test_a_file_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fw.nft").touch()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/fw.yaml").touch()
    with pytest.raises(HarnessError, match=r"scenarios/fw\.yaml is there already"):
        run(Path("fw.nft"), None, kernel="6.12", measure=False, tell=print)
    with pytest.raises(HarnessError, match="is not called scenarios/"):
        run(Path("fw.nft"), Path("fw.yaml"), kernel="6.12", measure=False, tell=print)
    with pytest.raises(HarnessError, match="is no file"):
        run(Path("none.nft"), None, kernel="6.12", measure=False, tell=print)
