"""Syntax that a later nft reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ruleset import nft
from harness.ruleset.nft import NftError, complaint


@pytest.mark.parametrize(
    ("version", "line", "remedy"),
    [
        (
            "1.0.6",
            "destroy table inet fw",
            "nft 1.0.6 of this machine is older than this syntax, which nft 1.1.3 reads",
        ),
        ("1.0.6", "chain o { type nat hook output priority dstnat; };", "which nft 1.1.3 reads: --nft-program 6.12"),
        ("1.1.3", "fib saddr . mark . iif check missing drop", "which nft 1.1.7 reads: --nft-program 7.2"),
        ("1.1.3", "destroy table inet fw extra", "nft 1.1.3 of this machine read it"),
        ("1.1.7", "fib saddr . mark . iif check missing drop", "nft 1.1.7 of this machine read it"),
    ],
)
def test_what_a_later_nft_reads_is_said(monkeypatch: pytest.MonkeyPatch, version: str, line: str, remedy: str) -> None:
    monkeypatch.setattr(nft, "own_version", lambda: version)
    said = f"r.nft:1:1-7: Error: syntax error, unexpected table\n{line}\n^^^^^^^"
    assert remedy in complaint(NftError(said), Path("/p/r.nft"), Path("r.nft")).remedy
