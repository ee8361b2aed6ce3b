from __future__ import annotations

from pathlib import Path

from harness.ruleset.nft import RefusedError, complaint


def test_the_name_of_a_host_is_answered_by_what_to_write() -> None:
    said = (
        "/p/r.nft:1:35-53: Error: Could not resolve hostname: Temporary failure in name resolution\n"
        "table inet t { chain c { ip daddr www.example.invalid accept; }; }\n"
        "                                  ^^^^^^^^^^^^^^^^^^^"
    )
    error = complaint(RefusedError(said), Path("/p/r.nft"), Path("r.nft"))
    assert str(error).startswith("r.nft:1:35: nft: Could not resolve hostname")
    assert str(error).endswith("names of hosts are not resolved here: write the address")
