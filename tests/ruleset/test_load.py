"""Rulesets loaded into a lab; every rule of the zoo says in its comment where it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Position, ScenarioError
from harness.lab.lab import Host, Lab
from harness.ruleset.load import LISTED, Ruleset
from harness.ruleset.process import Child, Reply
from harness.topology.builtin import LABS
from harness.topology.network import Network

pytestmark = pytest.mark.kernel

ZOO = Path(__file__).parent / "zoo"


@pytest.fixture
def device() -> Iterator[Host]:
    with Lab.build(Network.of(LABS["router"])) as lab:
        yield lab.device


@pytest.mark.parametrize(
    ("name", "rules"), [("blocks", 11), ("commands", 9), ("includes", 7), ("families", 6), ("inline", 8)]
)
def test_every_rule_is_known_by_the_place_where_it_starts(device: Host, name: str, rules: int) -> None:
    ruleset = Ruleset.load(device, ZOO / f"{name}.nft")
    seen = {
        rule.text: f"{Path(rule.position.file).relative_to(ZOO)}:{rule.position.line}"
        for rule in ruleset.rules
        if rule.position
    }
    assert seen == {rule.text: rule.comment for rule in ruleset.rules}
    assert len(ruleset.rules) == rules


def test_a_ruleset_is_loaded_anew_by_one_request(device: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a context of libnftables, whose end waits until the kernel has freed what was replaced."""
    file = tmp_path / "r.nft"
    file.write_text("table inet t {\n  chain input {\n    type filter hook input priority 0; counter drop;\n  }\n}\n")
    ruleset = Ruleset.load(device, file)
    requests: list[object] = []
    original = Child.ask

    def ask(child: Child, message: dict[str, Any], text: bytes | None = None) -> Reply:
        requests.append(message)
        return original(child, message, text)

    monkeypatch.setattr(Child, "ask", ask)
    assert ruleset.restore([file], {}, "", hidden="")
    assert len(requests) == 1
    file.write_text(file.read_text().replace("drop", "accept"))
    assert not ruleset.restore([file], {}, "", hidden="")


def test_a_table_that_goes_with_its_owner_is_not_taken_for_one_that_stays(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "r.nft"
    file.write_text("table inet t {\n  chain input {\n    type filter hook input priority 0\n  }\n}\n")
    (owned := tmp_path / "owned.nft").write_text(
        "table inet o {\n  flags owner\n  chain input {\n    type filter hook input priority 0; drop\n  }\n}\n"
    )
    ruleset = Ruleset.load(device, file, owned)
    assert "table inet o" not in ruleset.listed
    assert not ruleset.restore([file, owned], {}, "", hidden="")
    assert "table inet o" not in ruleset.nft.ruleset()


def test_positions_call_the_file_as_the_caller_does(device: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ZOO.parent)
    ruleset = Ruleset.load(device, Path("zoo/includes.nft"))
    assert {rule.position.file for rule in ruleset.rules if rule.position} == {
        "zoo/includes.nft",
        "zoo/parts/sets.nft",
        "zoo/parts/rules-1.nft",
        "zoo/parts/rules-2.nft",
        "zoo/parts/table.nft",
    }


def test_a_rule_reads_as_nft_lists_it_on_one_line_without_counts(device: Host) -> None:
    ruleset = Ruleset.load(device, ZOO / "blocks.nft")
    texts = [rule.text for rule in ruleset.rules if rule.chain == "input"]
    assert texts[:3] == [
        'ct state vmap { invalid : drop, established : accept, related : accept } comment "blocks.nft:34"',
        'ip saddr @blocked counter drop comment "blocks.nft:37"',
        'ip saddr { 10.0.0.0/8, 192.168.0.0/16 } tcp dport { 80, 443 } accept comment "blocks.nft:38"',
    ]


def test_a_rule_is_found_by_its_handle(device: Host) -> None:
    ruleset = Ruleset.load(device, ZOO / "blocks.nft")
    for rule in ruleset.rules:
        assert ruleset.rule(rule.family, rule.table, rule.chain, rule.handle) is rule
    assert ruleset.rule("inet", "filter", "input", 9999) is None


def test_a_base_chain_has_its_hook_priority_policy_and_devices(device: Host) -> None:
    ruleset = Ruleset.load(device, ZOO / "families.nft")
    both = ruleset.chain("netdev", "early", "both")
    wan = ruleset.chain("inet", "early", "wan")
    assert both is not None
    assert (both.hook, both.priority, both.policy, both.devices) == ("ingress", 0, "accept", ("lan0", "wan0"))
    assert wan is not None
    assert (wan.type, wan.devices, wan.is_base) == ("filter", ("wan0",), True)


def test_a_chain_without_a_hook_is_no_base_chain(device: Host) -> None:
    telnet = Ruleset.load(device, ZOO / "blocks.nft").chain("inet", "filter", "telnet")
    assert telnet is not None
    assert not telnet.is_base


@pytest.mark.parametrize(
    ("name", "place", "words"),
    [
        ("syntax", "syntax.nft:3:21", "syntax error"),
        ("included", "syntax.nft:3:21", "tcp dport 22 acept"),
        ("unknown", "unknown.nft:3:12", "No such file or directory"),
        ("kernel", "kernel.nft:3:8", "Could not process rule"),
        ("missing", "missing.nft:2:1", "not-there.nft"),
        ("untraced", "untraced.nft:4:3", "ends the trace"),
        ("stranger", "stranger.nft:2:2", r"/etc/host\?ame lies outside of the project"),
        ("option.v4", "option.v4:3", "iptables: unknown option"),
    ],
)
def test_a_ruleset_that_cannot_be_used_is_refused_at_its_place(device: Host, name: str, place: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as refused:
        Ruleset.load(device, ZOO / "broken" / (name if "." in name else f"{name}.nft"))
    assert str(refused.value.position) == f"{ZOO / 'broken'}/{place}"


def test_a_ruleset_that_is_no_text_is_named_once(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "binary.nft"
    file.write_bytes(b"table ip t { }\n\0\n")
    with pytest.raises(ScenarioError) as refused:
        Ruleset.load(device, file)
    assert str(refused.value) == f"{file}: has a NUL character in line 2; remove it: a ruleset is text"


def test_a_comment_may_speak_of_the_trace(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "comment.nft"
    file.write_text('table ip t { chain c { accept comment "not meta nftrace set 0"; }; }\n')
    assert len(Ruleset.load(device, file).rules) == 1


def test_a_comment_that_is_not_utf_8_does_no_harm(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "latin.nft"
    file.write_bytes(b'table ip t { chain c { accept comment "caf\xe9"; }; }\n')
    (rule,) = Ruleset.load(device, file).rules
    assert rule.text.startswith('accept comment "caf')


def test_the_rules_of_iptables_are_known_by_their_lines(device: Host) -> None:
    ruleset = Ruleset.load(device, ZOO / "rules.v4", ZOO / "rules.v6")
    places = {
        rule.comment: f"{Path(rule.position.file).name}:{rule.position.line}" for rule in ruleset.rules if rule.position
    }
    assert places == {rule.comment: rule.comment for rule in ruleset.rules}
    assert len(places) == 8
    policy = ruleset.chain("ip6", "filter", "INPUT")
    assert policy is not None
    assert (policy.policy, policy.position) == ("drop", Position(str(ZOO / "rules.v6"), 2, 1))


def test_sets_that_rules_look_into_are_listed(device: Host) -> None:
    sets = Ruleset.load(device, ZOO / "blocks.nft").sets
    assert set(sets) == {"inet filter blocked", "inet filter doors"}
    assert set(sets["inet filter doors"]) == {"22 : drop", "23 : jump telnet"}


def test_sets_that_rules_change_are_not_listed(device: Host, tmp_path: Path) -> None:
    (path := tmp_path / "a.nft").write_text(
        "table ip t {\n"
        "set seen { type ipv4_addr; flags dynamic, timeout; }\n"
        "chain c { type filter hook input priority 0; ip saddr @seen drop; add @seen { ip saddr timeout 1m }; }\n"
        "}\n"
    )
    assert Ruleset.load(device, path).sets == {}


def test_sets_of_large_files_are_not_listed(device: Host, tmp_path: Path) -> None:
    (path := tmp_path / "a.nft").write_text('include "b.nft"\nadd rule ip t c ip saddr @s drop\n')
    text = "table ip t { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { }; }\n"
    (tmp_path / "b.nft").write_text(text)
    assert Ruleset.load(device, path).sets == {"ip t s": ("192.0.2.1",)}
    (tmp_path / "b.nft").write_text("flush ruleset\n" + text + "#" * LISTED + "\n")
    assert Ruleset.load(device, path).sets == {}
