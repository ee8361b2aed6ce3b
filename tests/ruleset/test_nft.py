from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from harness.ruleset import nft
from harness.ruleset.nft import Nft, NftError, complaint
from harness.ruleset.process import Reach


def test_the_name_of_a_host_is_answered_by_what_to_write() -> None:
    said = (
        "/p/r.nft:1:35-53: Error: Could not resolve hostname: Temporary failure in name resolution\n"
        "table inet t { chain c { ip daddr www.example.invalid accept; }; }\n"
        "                                  ^^^^^^^^^^^^^^^^^^^"
    )
    error = complaint(NftError(said), Path("/p/r.nft"), Path("r.nft"))
    assert str(error).startswith("r.nft:1:35: nft: Could not resolve hostname")
    assert str(error).endswith("names of hosts are not resolved here: write the address")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            "Could not process rule: No such file or directory",
            "a table, chain, set, helper or interface that it names does not exist",
        ),
        ("Could not process rule: File exists", "it exists already"),
        ("Could not process rule: Device or resource busy", "it is still in use"),
        ("Could not process rule: Numerical result out of range", ""),
        ("syntax error, unexpected end of file, expecting newline", "end the last line with a newline"),
    ],
)
def test_an_error_code_of_the_kernel_is_explained(error: str, remedy: str) -> None:
    said = f"r.nft:2:5-9: Error: {error}\ntable inet t\n    ^^^^^"
    found = complaint(NftError(said), Path("/p/r.nft"), Path("r.nft"))
    assert found.position == ("r.nft", 2, 5)
    assert found.remedy == remedy


def test_a_syntax_error_names_the_version_of_nft_that_has_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "own_version", lambda: "1.0.6")
    said = "r.nft:1:1-7: Error: syntax error, unexpected string\nfrobnicate table inet t\n^^^^^^^"
    found = complaint(NftError(said), Path("/p/r.nft"), Path("r.nft"))
    assert found.remedy.startswith("nft 1.0.6 of this machine read it")


@pytest.mark.usefixtures("reads_rulesets")
def test_a_text_can_also_be_opened_by_its_name(tmp_path: Path) -> None:
    # As libnftables 1.0.9 does; others read it from the descriptor, so it is included once more here.
    with closing(Nft(None, Reach((tmp_path,)))) as reader:
        for comment in ("", f"# {'x' * (1 << 20)}\n"):
            with pytest.raises(NftError, match=r"In file included from /dev/stdin.*\n.*redefinition of symbol 'A'"):
                reader.change(f'{comment}include "/dev/stdin"', tmp_path, {"A": "1"})
