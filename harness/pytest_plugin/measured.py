"""What pytest-cov has measured in a guest: SQL, which coverage.py runs when it loads it (``CoverageData.loads``).

A guest may have been taken over, and SQL of SQLite can write to any file (``ATTACH``). So it is run here first, in
memory, where nothing is allowed but to make tables and fill them.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Mapping
from typing import Any, Final

from harness.errors import HarnessError

MAX_BYTES: Final = 64 << 20
STEPS: Final = 200_000_000
"""Instructions of SQLite's machine, which take some seconds."""

_ALLOWED: Final = frozenset(
    {
        *(sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE),
        *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_REINDEX),
    }
)
"""The actions of a dump (``sqlite3.Connection.iterdump``) without those that are refused anyway."""


def measured(output: Mapping[str, Any]) -> dict[str, Any]:
    """What pytest-cov finds in a worker's ``output``, if anything.

    Raises :class:`~harness.errors.HarnessError` for what pytest-cov did not put there.
    """
    found = {name: one for name in ("data", "path", "node_id") if (one := output.get(f"cov_worker_{name}")) is not None}
    data, path = found.get("data"), found.get("path", "")
    right = isinstance(path, str) and path.isprintable() and (data is None or isinstance(data, bytes))
    # The node's name becomes a part of a file's name.
    right = right and ("node_id" not in found or bool(re.fullmatch(r"\w[\w.+-]*", str(found["node_id"]))))
    if not right or (data is not None and not is_dump(data)):
        raise HarnessError("coverage that is not pytest-cov's")
    return {f"cov_worker_{name}": value for name, value in found.items()}


def is_dump(data: bytes) -> bool:
    """Whether ``data`` is what coverage.py's ``CoverageData.dumps`` makes."""
    unpack = zlib.decompressobj()
    try:
        script = unpack.decompress(data[1:], MAX_BYTES).decode() if data[:1] == b"z" else ""
    except (zlib.error, UnicodeDecodeError):
        return False
    if not script or not unpack.eof or unpack.unused_data:
        return False
    base = sqlite3.connect(":memory:")
    base.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
    steps = iter(range(STEPS // 1000))
    base.set_progress_handler(lambda: next(steps, None) is None, 1000)
    try:
        base.executescript(script)
    except (sqlite3.Error, ValueError, MemoryError):
        return False
    finally:
        base.close()
    return True
