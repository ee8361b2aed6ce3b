"""Where rules stand, read from text alone: no root, no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ruleset import source
from harness.ruleset.texts import Texts


def local() -> Texts:
    """All files, as nft without a sandbox would read them."""
    return Texts(
        lambda path: path.read_text(errors="surrogateescape"), lambda name: sorted(Path("/").glob(name.lstrip("/")))
    )


def places(tmp_path: Path, text: str) -> dict[str, list[str]]:
    """Line and column of every rule by chain."""
    file = tmp_path / "main.nft"
    file.write_text(text)
    found = source.read([file], local(), lambda path: path.name).rules
    return {" ".join(key): [str(rule.position) for rule in rules] for key, rules in found.items()}


def test_a_rule_ends_with_its_line_or_a_semicolon(tmp_path: Path) -> None:
    assert places(tmp_path, "table ip t {\n chain c { accept; drop;\n  reject\n }\n}\n") == {
        "ip t c": ["main.nft:2:12", "main.nft:2:20", "main.nft:3:3"]
    }


def test_braces_and_backslashes_continue_a_rule(tmp_path: Path) -> None:
    text = (
        "table ip t {\n chain c {\n  tcp dport {\n   1,\n   2\n  } accept\n  tcp \\\n   dport 3 drop\n  drop\n }\n}\n"
    )
    assert places(tmp_path, text) == {"ip t c": ["main.nft:3:3", "main.nft:7:3", "main.nft:9:3"]}


def test_strings_and_comments_are_not_read_as_text(tmp_path: Path) -> None:
    text = 'table ip t { # }\n chain c {\n  log prefix "}; {"; # }\n  drop comment "a # b"\n }\n}\n'
    assert places(tmp_path, text) == {"ip t c": ["main.nft:3:3", "main.nft:4:3"]}


def test_what_belongs_to_the_chain_is_no_rule(tmp_path: Path) -> None:
    text = (
        'table ip t { flags dormant; chain c { type filter hook input priority filter - 5; policy drop; comment "x"\n'
        "define A = { 1,\n 2 }\n drop\n } }\n"
    )
    assert places(tmp_path, text) == {"ip t c": ["main.nft:4:2"]}


def test_the_family_is_ip_unless_given(tmp_path: Path) -> None:
    text = "table t { chain c { drop; }; }\nadd rule t c drop\nrule inet t c drop\nip6 t c drop\n"
    assert places(tmp_path, text) == {
        "ip t c": ["main.nft:1:21", "main.nft:2:1"],
        "inet t c": ["main.nft:3:1"],
        "ip6 t c": ["main.nft:4:1"],
    }


@pytest.mark.parametrize(
    "command", ["flush ruleset", "flush table ip t", "delete table t", "flush chain t c", "flush ruleset ip"]
)
def test_rules_before_a_flush_are_gone(tmp_path: Path, command: str) -> None:
    assert places(tmp_path, f"table t {{ chain c {{ drop; }}; }}\n{command}\nadd rule t c accept\n") == {
        "ip t c": ["main.nft:3:1"]
    }


def test_a_chain_that_lost_single_rules_is_left_out(tmp_path: Path) -> None:
    text = "table t { chain c { drop; }; chain d { drop; }; }\ndelete rule t c handle 2\n"
    assert places(tmp_path, text) == {"ip t d": ["main.nft:1:40"]}


def test_an_included_file_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "inside.nft").write_text("drop\n")
    text = 'table t { chain c {\n accept\n include "./inside.nft"\n reject\n }\n}\n'
    assert places(tmp_path, text) == {"ip t c": ["main.nft:2:2", "inside.nft:1:1", "main.nft:4:2"]}


def test_an_included_file_ends_before_what_follows_on_the_line(tmp_path: Path) -> None:
    (tmp_path / "inside.nft").write_text("drop\n")
    text = 'table t { chain c { include "./inside.nft" }\n chain d { drop; }\n}\n'
    assert places(tmp_path, text) == {"ip t c": ["inside.nft:1:1"], "ip t d": ["main.nft:2:12"]}


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.nft").write_text('include "more.nft"\n')
        (tmp_path / name / "more.nft").write_text("\nadd rule t c drop\n")
    (tmp_path / "c.nft").write_text("flush chain t d\n")
    files = [tmp_path / name for name in ("a/rules.nft", "b/rules.nft", "c.nft")]
    found = source.read(files, local(), lambda path: str(path.relative_to(tmp_path))).rules
    assert {" ".join(key): [str(rule.position) for rule in rules] for key, rules in found.items()} == {
        "ip t c": ["a/more.nft:2:1", "b/more.nft:2:1"]
    }


def test_a_block_in_a_rule_is_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "main.nft"
    file.write_text("table t { chain c {\n tcp dport 1 jump {\n  accept\n  drop; drop\n }\n reject\n } }\n")
    (chain,) = source.read([file], local(), lambda path: path.name).rules.values()
    assert [rule.position.line for rule in chain] == [2, 6]
    assert [rule.position.line for rule in chain[0].block] == [3, 4, 4]


def test_a_policy_stands_where_it_is_written_else_at_the_hook(tmp_path: Path) -> None:
    file = tmp_path / "main.nft"
    file.write_text(
        "table ip t {\n"
        " chain a { type filter hook input priority 0; policy drop; }\n"
        " chain b {\n  type filter hook output priority 0;\n  accept\n }\n"
        " chain c { policy accept; type filter hook forward priority 0; }\n"
        " chain regular { accept; }\n"
        "}\nchain ip t gone { type filter hook input priority 1; }\ndelete chain ip t gone\n"
    )
    found = source.read([file], local(), lambda path: path.name).policies
    assert {" ".join(key): str(place) for key, place in found.items()} == {
        "ip t a": "main.nft:2:47",
        "ip t b": "main.nft:4:3",
        "ip t c": "main.nft:7:12",
    }


def test_named_sets_maps_and_counters(tmp_path: Path) -> None:
    text = """\
table ip t {
	set one { type ipv4_addr; }
	map two { type ipv4_addr : verdict; }
	chain c { counter name three; }
	counter three { }
}
add set inet u four { type mark; }
table ip gone { set five { type mark; } }
delete table ip gone
"""
    (tmp_path / "r.nft").write_text(text)
    texts = Texts(Path.read_text, lambda _: [])
    found = source.read([tmp_path / "r.nft"], texts, str).objects
    assert found == {
        *(("set", "ip", "t", "one"), ("map", "ip", "t", "two")),
        *(("counter", "ip", "t", "three"), ("set", "inet", "u", "four")),
    }
