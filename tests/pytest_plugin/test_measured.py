"""Coverage that a guest has measured."""

from __future__ import annotations

import zlib
from pathlib import Path

import coverage
import pytest

from harness.errors import HarnessError
from harness.pytest_plugin.measured import measured

pytest_plugins = ["pytester"]


def dumped(folder: Path, script: str = "") -> bytes:
    """What pytest-cov sends, with more SQL behind it."""
    data = coverage.CoverageData(str(folder / "c"))
    data.add_lines({"/a.py": [1, 2]})
    data.add_file_tracers({"/a.py": "x"})
    text = zlib.decompress(data.dumps()[1:]).decode()
    return b"z" + zlib.compress((text + script).encode())


def test_coverage_of_a_guest_is_loaded(tmp_path: Path) -> None:
    data = dumped(tmp_path)
    reported = {"cov_worker_data": data, "cov_worker_path": "/p", "cov_worker_node_id": "gw0"}
    assert measured(reported) == reported
    assert measured({}) == {}
    loaded = coverage.CoverageData(str(tmp_path / "d"))
    loaded.loads(data)
    assert loaded.lines("/a.py") == [1, 2]


@pytest.mark.parametrize(
    "script",
    [
        "ATTACH DATABASE 'called' AS x; CREATE TABLE x.y (z);",
        "VACUUM INTO 'called';",
        "PRAGMA journal_mode = wal;",
        "CREATE VIRTUAL TABLE v USING fts5(x);",
        "CREATE TRIGGER t AFTER INSERT ON file BEGIN SELECT 1; END;",
        "SELECT load_extension('x');",
        "INSERT INTO file (path) WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r;",
        "nonsense",
    ],
)
def test_sql_of_a_guest_makes_tables_and_fills_them(tmp_path: Path, script: str) -> None:
    reported = {"cov_worker_data": dumped(tmp_path, script), "cov_worker_path": "/p", "cov_worker_node_id": "gw0"}
    with pytest.raises(HarnessError):
        measured(reported)
    with pytest.raises(HarnessError):
        measured({**reported, "cov_worker_data": dumped(tmp_path), "cov_worker_node_id": "../../x"})
