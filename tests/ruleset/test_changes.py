"""Steps that change a loaded ruleset: what is loaded then, and where its rules stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Position, ScenarioError, Unsupported
from harness.lab.lab import Host, Lab
from harness.project import find
from harness.ruleset.changes import apply
from harness.ruleset.load import Ruleset
from harness.scenario.case import Files
from harness.scenario.models.actions import FlushAction, NftAction, ReloadAction
from harness.topology.builtin import LABS
from harness.topology.network import Network

pytestmark = pytest.mark.kernel

RULESET = """\
table inet t {
	set s { type ipv4_addr; }
	chain c {
		type filter hook forward priority 0; policy drop;
		tcp dport 22 accept
		tcp dport 80 accept
	}
}
"""


class Loaded:
    """A device with a ruleset."""

    def __init__(self, device: Host, folder: Path) -> None:
        self.device = device
        self.file = folder / "a.nft"
        self.file.write_text(RULESET)
        self.files = Files((self.file,), find([self.file]))
        self.ruleset = Ruleset.load(device, self.file)

    def apply(self, change: NftAction | ReloadAction | FlushAction) -> Ruleset:
        def where(*keys: str | int, at: tuple[int, int] = (1, 1)) -> Position:
            return Position(str(self.file.parent / "a.yaml"), at[0] + 100, at[1])

        self.ruleset = apply(change, self.device, self.ruleset, self.files, where, hidden="hidden")
        return self.ruleset

    def nft(self, *commands: str) -> Ruleset:
        return self.apply(NftAction(nft="\n".join(commands)))

    @property
    def places(self) -> list[tuple[str, str, int]]:
        """Text, file and line of each rule, in the order of evaluation."""
        found = ((rule.text, rule.position) for rule in self.ruleset.rules)
        return [(text, Path(place.file).name, place.line) if place else (text, "", 0) for text, place in found]


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    with Lab.build(Network.of(LABS["router"])) as lab:
        yield Loaded(lab.device, tmp_path)


def test_a_rule_that_is_added_or_inserted_stands_at_its_command(loaded: Loaded) -> None:
    loaded.nft("# a comment", "insert rule inet t c tcp dport 1 drop", "", "add rule inet t c tcp dport 2 drop")
    assert loaded.places == [
        ("tcp dport 1 drop", "a.yaml", 102),
        ("tcp dport 22 accept", "a.nft", 5),
        ("tcp dport 80 accept", "a.nft", 6),
        ("tcp dport 2 drop", "a.yaml", 104),
    ]


def test_a_rule_that_is_replaced_or_deleted_leaves_the_others_where_they_are(loaded: Loaded) -> None:
    first, second = (rule.handle for rule in loaded.ruleset.rules)
    loaded.nft(f"replace rule inet t c handle {first} tcp dport 1 drop", "add rule inet t c tcp dport 2 drop")
    assert loaded.places == [
        ("tcp dport 1 drop", "a.yaml", 101),
        ("tcp dport 80 accept", "a.nft", 6),
        ("tcp dport 2 drop", "a.yaml", 102),
    ]
    loaded.nft(f"delete rule inet t c handle {second}")
    assert [text for text, _, _ in loaded.places] == ["tcp dport 1 drop", "tcp dport 2 drop"]


def test_a_chain_that_is_made_by_a_command_is_known(loaded: Loaded) -> None:
    ruleset = loaded.nft(
        "table inet t {", "  chain d {", "    type filter hook input priority 0; policy drop;", "    accept", "  }", "}"
    )
    chain = ruleset.chain("inet", "t", "d")
    assert chain is not None
    assert (chain.hook, chain.policy) == ("input", "drop")
    assert chain.position is not None
    assert chain.position.line == 103
    assert ("accept", "a.yaml", 104) in loaded.places


def test_a_table_that_is_made_anew_has_no_old_places(loaded: Loaded) -> None:
    loaded.nft("flush ruleset", "table inet t {", "  chain c {", "    tcp dport 22 accept", "  }", "}")
    assert loaded.places == [("tcp dport 22 accept", "a.yaml", 104)]


def test_commands_are_one_transaction(loaded: Loaded) -> None:
    with pytest.raises(ScenarioError, match="nowhere") as refused:
        loaded.nft("add rule inet t c tcp dport 1 drop", "  add rule inet t nowhere drop")
    assert refused.value.position[1:] == (102, 19)
    assert [text for text, _, _ in loaded.nft().rules and loaded.places] == [
        "tcp dport 22 accept",
        "tcp dport 80 accept",
    ]


def test_a_mistake_is_found_at_its_line_and_column(loaded: Loaded) -> None:
    with pytest.raises(ScenarioError, match="syntax error") as refused:
        loaded.nft("add rule inet t c tcp dport 1 drop", "add rule inet t c tcp dprt 1 drop")
    assert refused.value.position.line == 102


def test_elements_alone_leave_the_ruleset_as_it_is(loaded: Loaded) -> None:
    before = loaded.ruleset
    assert loaded.nft("add element inet t s { 192.0.2.1 }") is before


def test_variables_of_the_file_may_be_used(loaded: Loaded) -> None:
    loaded.files = Files(loaded.files.paths, loaded.files.project, {"port": "{ 1, 2 }"})
    loaded.nft("add rule inet t c tcp dport $port drop")
    assert loaded.places[-1] == ("tcp dport { 1, 2 } drop", "a.yaml", 101)


def test_nothing_outside_of_the_project_is_included(loaded: Loaded) -> None:
    with pytest.raises(ScenarioError, match="passwd"):
        loaded.nft('include "/etc/passwd"')


def test_what_the_kernel_does_not_support_is_a_skip(loaded: Loaded) -> None:
    """A masquerade is not possible at the input hook (nft_masq_validate in net/netfilter/nft_masq.c)."""
    with pytest.raises(
        Unsupported, match=r"a\.yaml:102:1: the kernel does not support this, for: add rule inet t n masquerade"
    ):
        loaded.nft(
            "add chain inet t n { type nat hook input priority 100; }",
            "add rule inet t n masquerade",
        )


def test_tables_of_the_harness_are_left_out(loaded: Loaded) -> None:
    ruleset = loaded.nft("table inet hidden { chain c { accept; }; }")
    assert {rule.table for rule in ruleset.rules} == {"t"}


def test_a_rule_may_not_end_the_trace(loaded: Loaded) -> None:
    with pytest.raises(ScenarioError, match="ends the trace") as refused:
        loaded.nft("insert rule inet t c meta nftrace set 0")
    assert refused.value.position.line == 101


def test_a_file_is_added_to_what_is_loaded_or_takes_its_place(loaded: Loaded, tmp_path: Path) -> None:
    more = tmp_path / "more.nft"
    more.write_text("table inet t {\n\tchain c {\n\t\ttcp dport 1 drop\n\t}\n}\n")
    loaded.apply(ReloadAction(reload=[str(more)]))
    assert [place[1:] for place in loaded.places] == [("a.nft", 5), ("a.nft", 6), ("more.nft", 3)]
    more.write_text("flush ruleset\n" + more.read_text())
    loaded.apply(ReloadAction(reload=[str(more)]))
    assert loaded.places == [("tcp dport 1 drop", "more.nft", 4)]


def test_a_file_that_is_refused_changes_nothing(loaded: Loaded, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.nft"
    wrong.write_text("flush ruleset\ntable inet t {\n\tchain c { acept; }\n}\n")
    with pytest.raises(ScenarioError) as refused:
        loaded.apply(ReloadAction(reload=[str(wrong)]))
    assert refused.value.position[:2] == (str(wrong), 3)
    assert len(loaded.nft("add rule inet t c accept").rules) == 3


@pytest.mark.parametrize("defines", [{}, {"port": "22"}])
def test_a_last_line_that_nft_does_not_read_is_refused(loaded: Loaded, tmp_path: Path, defines: dict[str, str]) -> None:
    """nft 1.0.6 refuses an include as the last line of a file, without a newline."""
    file = tmp_path / "end.nft"
    file.write_text('table inet x { }\n\ninclude "./none*.nft"')
    with pytest.raises(ScenarioError, match="end of file") as refused:
        Ruleset.load(loaded.device, file, defines=defines)
    assert refused.value.position[:2] == (str(file), 3)
    assert refused.value.remedy == "end the last line with a newline"
    file.write_text('table inet x { }\n\ninclude "./none*.nft"\n')
    Ruleset.load(loaded.device, file, defines=defines)
    file.write_text("table inet y { }")
    Ruleset.load(loaded.device, file, defines=defines)
