"""Errors get their place in the scenario; what packets leave behind on hosts is in test_run.py and test_kept.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from harness.cache import cache_dir
from harness.errors import BrokenMeasurement, HarnessError, Position, ScenarioError, Unsupported
from harness.experiment import run
from harness.experiment.left_behind import placed
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer
from harness.wait import wait_for_turn

PLACE = Position("scenarios/edge.yaml", 7, 3)


def raised(error: Exception) -> Exception:
    with pytest.raises(Exception, match="refused") as caught, placed(PLACE):
        raise error
    return caught.value


def test_an_error_of_the_kernel_gets_the_place_of_the_step() -> None:
    error = raised(HarnessError("the kernel refused it", remedy="leave it out"))
    assert isinstance(error, ScenarioError)
    assert str(error) == "scenarios/edge.yaml:7:3: the kernel refused it; leave it out"


@pytest.mark.parametrize(
    "error",
    [ScenarioError("refused", Position("other.yaml", 1)), Unsupported("refused"), BrokenMeasurement("refused")],
)
def test_the_three_bad_ends_stay_what_they_are(error: HarnessError) -> None:
    assert raised(error) is error


def test_a_bug_stays_a_bug() -> None:
    assert type(raised(KeyError("refused"))) is KeyError


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("set_", "update", "is_refused"),
    [
        pytest.param("timeout 1s;", "", True, id="the-set-says-when"),
        pytest.param("flags dynamic, timeout;", " timeout 1s", True, id="the-rule-says-when"),
        pytest.param("timeout 1h;", "", False, id="later"),
        pytest.param("flags dynamic;", "", False, id="never"),
    ],
)
def test_what_may_have_expired_before_it_was_read_is_no_failure(
    set_: str, update: str, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, that is: here the join takes longer than the elements last."""
    (tmp_path / "t.nft").write_text(
        f"table inet t {{\n\tset s {{ type ipv4_addr; {set_} }}\n\tchain c {{\n"
        f"\t\ttype filter hook input priority 0\n\t\tadd @s {{ ip saddr{update} }}\n\t}}\n}}\n"
    )
    (tmp_path / "t.yaml").write_text(
        "lab: host\nruleset: t.nft\nscenarios:\n  - name: one\n    send: {from: client, to: device, udp: {dport: 53}}\n"
        "    expect: {verdict: accept, elements: {inet t s: [192.0.2.5]}}\n"
    )
    (case,) = load(tmp_path / "t.yaml")
    assert isinstance(case, Case)
    read_late(monkeypatch)
    with Tracer(KernelCache(cache_dir())) as tracer:
        if is_refused:
            with pytest.raises(BrokenMeasurement, match=r"inet t s was read .* and its elements expire after 1 s"):
                run.run(case, tracer)
        else:
            (measured,) = run.run(case, tracer)
            assert measured.observation.elements == {"inet t s": ("192.0.2.5",)}


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("policy", "sysctls", "expected", "said"),
    [
        ("1", "{}", "conntrack: {status: [CONFIRMED]}", "by the ct timeout short stays 1 s"),
        ("1", "{}", "connections: 1", "by the ct timeout short stays 1 s"),
        ("", "{net.netfilter.nf_conntrack_udp_timeout: 1}", "connections: 1", "nf_conntrack_udp_timeout stays 1 s"),
        ("1", "{}", "conntrack: none", ""),
        ("", "{}", "conntrack: {status: [CONFIRMED]}", ""),
        ("", "{}", "connections: 1", ""),
    ],
)
def test_a_connection_that_may_have_expired_before_it_was_read_is_no_failure(
    policy: str, sysctls: str, expected: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    define, use = "", "ct state new"
    if policy:
        define = f"\tct timeout short {{ protocol udp; policy = {{ unreplied : {policy}, replied : {policy} }}; }}\n"
        use = 'udp dport 53 ct timeout set "short"'
    (tmp_path / "t.nft").write_text(
        f"table ip t {{\n{define}\tchain c {{\n\t\ttype filter hook input priority 0\n\t\t{use}\n\t}}\n}}\n"
    )
    (tmp_path / "t.yaml").write_text(
        "lab:\n  hosts:\n    client: {interfaces: {eth0: [192.0.2.5/24]}}\n"
        f"    device: {{interfaces: {{eth0: [192.0.2.10/24]}}, sysctls: {sysctls}}}\n"
        '  links: [["client:eth0", "device:eth0"]]\n  device: device\n'
        "ruleset: t.nft\nscenarios:\n  - name: one\n    send: {from: client, to: device, udp: {dport: 53}}\n"
        f"    expect: {{verdict: accept, {expected}}}\n"
    )
    (case,) = load(tmp_path / "t.yaml")
    assert isinstance(case, Case), case
    read_late(monkeypatch)
    with Tracer(KernelCache(cache_dir())) as tracer:
        if said:
            with pytest.raises(
                BrokenMeasurement, match=rf"connections of device were read .* and a connection .*{said}"
            ):
                run.run(case, tracer)
        else:
            assert run.run(case, tracer)


def read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The join takes longer than what packets leave behind stays."""
    observe = run.observe

    def slowly(*arguments: Any, **more: Any) -> Any:
        wait_for_turn(time.monotonic() + 1.5, lambda: None)
        return observe(*arguments, **more)

    monkeypatch.setattr(run, "observe", slowly)
