"""Which scenarios show each place that their packets come to."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from harness.batch.sift import SiftStage
from harness.cache import cache_dir
from harness.experiment import run
from harness.mutate import measure
from harness.mutate.edits import Deleted
from harness.mutate.messages import AskedMutant, AskedMutants
from harness.mutate.running import baselines, is_followed, tried
from harness.scenario.case import Case
from harness.scenario.load import load, load_all
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

SEND = "send: {from: client, to: device, tcp: {dport: 22}}"
DROP = f"{{{SEND}, expect: {{verdict: drop}}}}"
LISTEN = "{listen: {on: server, tcp: 80}}"
CONNECT = "{connect: {from: client, to: server, tcp: 80}, expect: {verdict: accept}}"


@pytest.mark.parametrize(
    ("steps", "followed"),
    [
        ([DROP], True),
        ([LISTEN, CONNECT, DROP], True),
        ([f"{{{SEND}}}", DROP], False),
        ([DROP, "{nft: 'add element inet t s { 1.2.3.4 }'}", DROP], False),
        ([DROP, "{wait: {conntrack: none}}", DROP], False),
    ],
)
def test_packets_are_followed_where_something_is_expected_of_each(
    steps: list[str], followed: bool, tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "t.nft").write_text("table inet t { set s { type ipv4_addr; } }")
    lines = "".join(f"      - {step}\n" for step in steps)
    file = tmp_path / "t.yaml"
    file.write_text(f"lab: router\nruleset: t.nft\nscenarios:\n  - name: one\n    steps:\n{lines}")
    (case,) = load_all(file).cases
    assert isinstance(case, Case), case
    assert is_followed(case) is followed


LIMITED = """\
table inet t {
	chain c {
		type filter hook input priority 0; policy drop
		udp dport 9 accept
		tcp dport 80 limit rate 2/second burst 2 packets accept
	}
}
"""
COUNTED = """\
lab: host
ruleset: t.nft
scenarios:
  - name: one
    steps:
      - {send: {from: client, to: device, tcp: {dport: 80}, count: 2}, expect: {verdict: accept}}
      - {send: {from: client, to: device, tcp: {dport: 80}}, expect: {verdict: drop}}
"""


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Case, AskedMutants]:
    """A scenario, and a mutant that changes nothing about its packets."""
    (tmp_path / "t.nft").write_text(LIMITED)
    (tmp_path / "t.yaml").write_text(COUNTED)
    (case,) = load(tmp_path / "t.yaml")
    assert isinstance(case, Case)
    structure = measure.structure(case)
    mutant = AskedMutant(edit=Deleted(rule=structure.rules[0].place), cases=(0,))
    request = AskedMutants(
        cases=pickle.dumps([case]), mutants=(mutant,), objects=structure.objects, fixed=structure.fixed
    )
    return case, request


@pytest.mark.kernel
@pytest.mark.parametrize("slow", ["nothing", "mutant", "original"])
def test_a_slow_machine_kills_no_mutant_that_is_sifted(
    asked: tuple[Case, AskedMutants], slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, request = asked
    sight, packets = SiftStage.sight, 0

    def slowly(stage: SiftStage, *frame: Any) -> Any:
        nonlocal packets
        packets += 1
        if slow == ("original" if packets <= 3 else "mutant"):
            time.sleep(0.6)
        return sight(stage, *frame)

    monkeypatch.setattr(SiftStage, "sight", slowly)
    (found,) = tried([case], request, None)
    assert found.outcome == "survived", found.why
    assert found.broken == (() if slow == "nothing" else (0,))


@pytest.mark.kernel
def test_a_slow_machine_kills_no_mutant_and_makes_no_scenario_fail(
    asked: tuple[Case, AskedMutants], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, request = asked
    send = run.Experiment._send

    def slowly(*asked: Any) -> Any:
        time.sleep(0.6)
        return send(*asked)

    with Tracer(KernelCache(cache_dir())) as tracer:
        (found,) = tried([case], request, tracer)
        assert (found.outcome, found.broken) == ("survived", ())
        monkeypatch.setattr(run.Experiment, "_send", slowly)
        (found,) = tried([case], request, tracer)
        assert (found.outcome, found.broken) == ("survived", (0,)), found.why
        (baseline,) = baselines([case], tracer)
        assert "because they came later than the scenario asks" in baseline.error
