"""Files of a ruleset and what they include."""

from __future__ import annotations

from pathlib import Path

from harness.ruleset.texts import Texts, includes


def local() -> Texts:
    """All files, as nft without a sandbox would read them."""
    return Texts(
        lambda path: path.read_text(errors="surrogateescape"), lambda name: sorted(Path("/").glob(name.lstrip("/")))
    )


def test_every_include_is_known_before_nft_reads_it(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.nft").write_text('include "parts/b.nft"\ninclude "main.nft"\n')
    (tmp_path / "parts/b.nft").write_text('table t { chain c { include "/etc/no[n]e/x" } }\nlog prefix "never closed')
    main = tmp_path / "main.nft"
    main.write_text('# include "x"\ninclude "parts/[a]*.nft"; include "not-there.nft"\n')
    found = [(str(one.position), one.name) for one in includes(main, local(), lambda path: path.name)]
    assert found == [
        ("main.nft:2:1", f"{tmp_path}/parts/[a]*.nft"),
        ("main.nft:2:27", f"{tmp_path}/not-there.nft"),
        ("a.nft:1:1", f"{tmp_path}/parts/b.nft"),
        ("a.nft:2:1", f"{tmp_path}/main.nft"),
        ("b.nft:1:21", "/etc/no[n]e/x"),
    ]
