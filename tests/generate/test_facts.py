"""What nft's JSON says of a ruleset, whichever nft has written it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ScenarioError
from harness.generate import facts
from harness.generate.facts import with_lists

FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        # tcp flags & (fin|syn|rst) == fin|syn: nft 1.1 and 1.0
        (
            {"op": "==", "left": {"&": [FLAGS, {"|": ["fin", "syn", "rst"]}]}, "right": {"|": ["fin", "syn"]}},
            {"op": "==", "left": {"&": [FLAGS, ["fin", "syn", "rst"]]}, "right": ["fin", "syn"]},
        ),
        (
            {"op": "==", "left": {"&": [FLAGS, ["fin", "syn", "rst"]]}, "right": ["fin", "syn"]},
            {"op": "==", "left": {"&": [FLAGS, ["fin", "syn", "rst"]]}, "right": ["fin", "syn"]},
        ),
        ({"set": [{"|": ["fin", "syn"]}, "ack"]}, {"set": [["fin", "syn"], "ack"]}),
        # meta mark set meta mark | 0x10
        ({"|": [{"meta": {"key": "mark"}}, 16]}, {"|": [{"meta": {"key": "mark"}}, 16]}),
    ],
)
def test_flags_are_lists_of_names(written: Any, read: Any) -> None:
    assert with_lists(written) == read


@pytest.mark.kernel
def test_flags_of_a_loaded_ruleset_are_lists_of_names(tmp_path: Path) -> None:
    file = tmp_path / "r.nft"
    rule = "tcp flags & (fin|syn|rst) == fin|syn drop"
    file.write_text(f"table inet t {{\n\tchain c {{ type filter hook input priority 0; {rule}\n\t}}\n}}\n")
    (match,) = (one["rule"]["expr"][0]["match"] for one in facts.load(file).objects if "rule" in one)
    assert match["left"]["&"][1] == ["fin", "syn", "rst"]
    assert match["right"] == ["fin", "syn"]


@pytest.mark.kernel
@pytest.mark.parametrize(
    "given", [lambda file: file, lambda file: Path(file.name), lambda file: Path("..", "sub", file.name)]
)
def test_a_ruleset_that_nft_refuses_is_called_as_seen_from_here(
    given: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    file = tmp_path / "sub/r.nft"
    file.write_text("table inet t { chain c { typo; } }\n")
    shown = "../sub/r.nft" if given(file).parts[0] == ".." else "r.nft"
    with pytest.raises(ScenarioError, match=rf"^{re.escape(shown)}:1:"):
        facts.load(given(file))
