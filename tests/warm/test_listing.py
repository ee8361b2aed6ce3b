"""The files of a template are those that its Python opens or looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LISTED = """
import sys
from scapy import data
data.MANUFDB._name = sys.argv[1]
from harness.warm import listing
print(*listing.files(), sep="\\n")
"""


def test_what_scapy_looks_for_without_opening_it_is_in_the_template(tmp_path: Path) -> None:
    """scapy keeps what it has read of Wireshark's file, and takes that only where the file is still there."""
    (manufacturers := tmp_path / "manuf").write_text("00:00:00\tXerox\tXerox Corporation\n")
    program = [sys.executable, "-c", LISTED, str(manufacturers)]
    listed = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert str(manufacturers) in listed
    assert any(name.endswith("harness/warm/program.py") for name in listed)
    assert "scapy/manufdb" not in listed
