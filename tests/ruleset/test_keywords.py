"""Misspelt keywords of nft."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from harness.ruleset.keywords import meant
from harness.ruleset.nft import Nft, NftError, complaint
from harness.ruleset.process import Reach


@pytest.mark.usefixtures("reads_rulesets")
@pytest.mark.parametrize(
    ("rule", "word", "keyword"),
    [
        ("tcp dport 22 acept", "acept", "accept"),
        ("tcp dport 22 drp; tcp dport 80 accept", "drp", "drop"),
        ("tcp dport 22 counter acept", "acept", "accept"),
        ("tcp dprt 22 accept", "dprt", "dport"),
        ("iifnam lo accept", "iifnam", "iifname"),
        ("tcp dport 22 jmp other", "jmp", "jump"),
        ("tcp dport 22 masquerad", "masquerad", "masquerade"),
    ],
)
def test_a_misspelt_keyword_is_named(tmp_path: Path, rule: str, word: str, keyword: str) -> None:
    file = tmp_path / "r.nft"
    file.write_text(f"table inet t {{\n  chain other {{ }}\n  chain c {{\n    {rule}\n  }}\n}}\n")
    with closing(Nft(None, Reach((tmp_path,)))) as reader, pytest.raises(NftError) as refused:
        reader.run('include "./r.nft"\n', tmp_path)
    found = complaint(refused.value, file, Path("r.nft"))
    assert found.remedy == f"'{word}' is not a keyword of nft: did you mean '{keyword}'?"
    assert found.position.line == 4


@pytest.mark.parametrize(
    ("line", "column", "end"),
    [
        ("tcp dport 22 accept", 1, 3),  # a keyword
        ("add element inet t hosts { 192.0.2.5 }", 20, 24),  # near none
        ("ip saddr 192.0.2.5", 19, 19),
        ("", 1, 1),
    ],
)
def test_no_keyword_is_guessed(line: str, column: int, end: int) -> None:
    assert meant(line, column, end) is None
