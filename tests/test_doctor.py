from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness import doctor
from harness.cli import main
from harness.linux import features
from harness.linux.features import Support
from harness.vm.accelerator import Accelerator


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "function_probes", lambda: Support(False, "the host's kernel has no function probes"))
    # Its trial boots a guest.
    monkeypatch.setattr(doctor, "accelerator", lambda image: Accelerator("tcg", "there is no /dev/kvm"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_one_line_for_each_capability(no_probes: None, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    *findings, _ = lines(capsys)
    assert all(line.startswith(("yes ", "no  ", "NO  ")) for line in findings)
    reported = " ".join(line[4:21].strip() for line in findings)
    for what in ("root", "kprobe.multi", "kprobe", "BTF", "BCC", "nftables", "QEMU", "busybox", "kernel images"):
        assert what in reported


@pytest.mark.usefixtures("no_probes")
def test_what_is_missing_for_the_main_job_is_told_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor"]) == 1
    *findings, last = lines(capsys)
    assert "NO  QEMU             qemu-system-x86_64 is missing; run apt-get install qemu-system-x86" in findings
    assert "NO  busybox          busybox is missing; run apt-get install busybox-static" in findings
    assert [line for line in findings if line.startswith("NO  kernel images") and "apt-get is missing" in line]
    assert last == "scenarios cannot run here: QEMU, busybox, kernel images"


@pytest.mark.usefixtures("no_probes")
def test_a_kernel_that_is_not_here_yet_is_no_obstacle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get here to fetch a kernel with")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    main(["doctor"])
    assert any("kernel images" in line and "is fetched at the first run" in line for line in lines(capsys))


def test_a_host_with_probes_needs_no_microvm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(features, "function_probes", lambda: Support(True))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    main(["doctor"])
    found = lines(capsys)
    assert "no  QEMU             qemu-system-x86_64 is missing; run apt-get install qemu-system-x86" in found


def test_a_cache_that_cannot_be_written_to(
    no_probes: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nft-harness").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    main(["doctor"])
    assert any(line.startswith("no  cache folder") and "set XDG_CACHE_HOME" in line for line in lines(capsys))


@pytest.mark.usefixtures("no_probes")
def test_json_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["able"], found["place"]) == (False, "")
    assert {
        "what": "QEMU",
        "able": False,
        "needed": True,
        "found": "qemu-system-x86_64 is missing",
        "remedy": "run apt-get install qemu-system-x86",
    } in found["findings"]
    assert all(one["remedy"] == "" for one in found["findings"] if one["able"])


@pytest.mark.usefixtures("no_probes")
def test_colours_in_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Capability("QEMU", False, "none", needed=True)])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    main(["doctor"])
    assert "\x1b[31mNO  QEMU" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(["doctor"])
    assert "\x1b" not in capsys.readouterr().out
