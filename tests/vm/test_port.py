"""What a process in a guest knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.vm import port


def test_a_port_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device, name in (("vport1p1", "stdin"), ("vport1p2", "news")):
        (tmp_path / device).mkdir()
        (tmp_path / device / "name").write_text(f"{name}\n")
    monkeypatch.setattr(port, "PORTS", tmp_path)
    assert port.port("news") == Path("/dev/vport1p2")
    with pytest.raises(FileNotFoundError, match="the host has opened no port other"):
        port.port("other")


@pytest.mark.parametrize("there", [True, False])
def test_a_guest_is_known_by_a_folder(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "GUEST", tmp_path if there else tmp_path / "none")
    assert port.in_guest() is there
