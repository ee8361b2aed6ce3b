"""Functions that scenarios name, against what the last run on a kernel found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.check import functions
from harness.check.command import check
from harness.check.functions import Surveyed
from harness.check.planned import Planned
from harness.tracer.survey import Memory, Part

Write = Callable[..., Path]
KNOWN = Surveyed(
    "6.12", frozenset({"ip_rcv", "ip_forward", "nft_do_chain"}), ("bridge", "br_netfilter", "ip_gre", "vxlan")
)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("ip_rcv", ""),
        ("ip_rvc", "Linux 6.12 has no function ip_rvc that takes a packet and can be traced; did you mean ip_rcv?"),
        (
            "frobnicate",
            "Linux 6.12 has no function frobnicate that takes a packet and can be traced; nft-harness discover",
        ),
        ("ip_rvc | ip_rcv", ""),
        ("br_forward", ""),  # of a module that was not loaded then
        ("vxlan_rcv", ""),
        ("ipgre_rcv", ""),
        ("ip_rvc: {optional: true}", ""),
    ],
)
def test_what_is_warned_of(project: Write, monkeypatch: pytest.MonkeyPatch, entry: str, sentence: str) -> None:
    monkeypatch.setattr(functions, "surveys", lambda where: [KNOWN])
    entry = f"{{{entry}}}" if ":" in entry else entry
    found = check([project(f"{{path: [nft_do_chain, {entry}]}}")])
    assert found.errors == ()
    said = [str(one) for one in found.warnings]
    assert len(said) == bool(sentence)
    assert not said or said[0].startswith(f"edge.yaml:6:35: expect.path[1]: {sentence}")


def test_no_survey_no_warning(project: Write) -> None:
    assert check([project("{path: [frobnicate]}")]).warnings == ()


def test_survey_of_a_kernel_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert functions.surveys(Planned((), natively=False)) == []
    place = tmp_path / "nft-harness/guests/6.12.9"
    place.mkdir(parents=True)
    modules = tmp_path / "lib/modules/6.12.9"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/net/bridge/bridge.ko: kernel/net/llc/llc.ko\nkernel/fs/ext4.ko:\n")
    function = {
        "name": "ip_rcv",
        "kernel_name": "ip_rcv",
        "position": 0,
        "carries": "sk_buff",
        "layer": "",
        "priority": 0,
    }
    part = msgspec.convert({"identity": "x", "functions": [function]}, Part)
    (place / "survey.json").write_bytes(msgspec.json.encode(Memory(identity="x", parts={"vmlinux": part})))
    assert Surveyed.read("6.12.9", "guests", tmp_path) == Surveyed("6.12.9", frozenset({"ip_rcv"}), ("bridge",))
    (place / "survey.json").write_text("damaged")
    assert Surveyed.read("6.12.9", "guests", tmp_path) is None
