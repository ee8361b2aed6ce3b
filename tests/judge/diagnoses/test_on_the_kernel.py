"""Causes on the real kernel: what a scenario provokes is what the failure says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.experiment.run import run
from harness.judge.advice import advise
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

pytestmark = pytest.mark.kernel

RULESET = """\
table ip first {
	chain forward { type filter hook forward priority -1; policy accept; tcp dport 22 accept; }
}
table inet f {
	set bad { type ipv4_addr; elements = { 192.0.2.9 }; }
	chain input {
		type filter hook input priority filter; policy accept
		tcp dport 22 reject with tcp reset
		ip saddr @bad drop comment "bad"
		ip saddr 203.0.113.5 drop comment "ban"
	}
	chain up_to {
		type filter hook input priority 1; policy drop
		udp dport != 78 accept
		meta l4proto != udp accept
		udp dport 78 quota 30 bytes accept
	}
	chain leaving { type filter hook postrouting priority filter; policy accept; udp dport 99 drop comment "leaves"; }
	chain output { type filter hook output priority filter; policy accept; tcp flags rst drop; }
	chain forward {
		type filter hook forward priority filter; policy accept
		ct state invalid drop
		ct state related accept
		tcp sport 20 drop
		tcp dport 22 drop
	}
}
"""
SCENARIOS = """\
lab: router
ruleset: causes.nft
scenarios:
  - name: another chain
    send: {from: client, to: server, tcp: {dport: 22}}
    expect: {verdict: accept, delivered: server}
  - name: own answer
    send: {from: client, to: device, tcp: {dport: 22}}
    expect: {reply: {tcp: {flags: RA}}}
  - name: other hook
    send: {from: client, to: server, tcp: {dport: 80}}
    expect: {verdict: drop, rule: ban}
  - name: no element
    send: {from: server, to: device, tcp: {dport: 80}}
    expect: {verdict: drop, rule: bad}
  - name: invalid
    steps:
      - send: {from: client, to: server, tcp: {dport: 443, flags: S, seq: 1000}}
      - send: {from: client, to: server, tcp: {dport: 443, flags: A, seq: 1001, ack: 5001}}
        expect: {verdict: accept}
  - name: no helper
    steps:
      - send: {from: client, to: server, tcp: {dport: 21, flags: S}}
      - send: {from: server, to: client, tcp: {sport: 20, dport: 30001, flags: S}}
        expect: {verdict: accept}
  - name: used up
    steps:
      - send: {from: server, to: device, udp: {dport: 78}}
      - send: {from: server, to: device, udp: {dport: 78}}
        expect: {verdict: accept}
  - name: leaves
    send: {from: server, to: device, udp: {dport: 99}}
    expect: {verdict: drop, rule: leaves}
  - name: as expected
    send: {from: client, to: server, tcp: {dport: 80}}
    expect: {verdict: accept, delivered: server}
"""
CAUSES = {
    "another chain": "an accept ends its own base chain only: inet f forward, of the same hook,",
    "own answer": "device made the answer, a TCP reset, and its own ruleset dropped it: inet f output",
    "other hook": "the packet was forwarded: a rule for it belongs at hook forward",
    "no element": "did not match because bad has no element for 10.0.2.2",
    "invalid": "the device has seen the SYN but not the SYN-ACK",
    "no helper": "has no helper, so nothing is related to it, and the kernel assigns none by itself: declare",
    "used up": "accepts such packets, but did not match this one because its quota was used up (`quota 30 bytes`)",
    "leaves": "is evaluated at hook postrouting, which what is for device itself does not pass",
    "as expected": "",
}


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(KernelCache(cache_dir())) as tracer:
        yield tracer


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("project") / "scenarios"
    folder.mkdir()
    (folder / "causes.nft").write_text(RULESET)
    (folder / "causes.yaml").write_text(SCENARIOS)
    return {case.name: case for case in load(Path(folder / "causes.yaml")) if isinstance(case, Case)}


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_said(name: str, cases: dict[str, Case], tracer: Tracer) -> None:
    (measurement,) = run(cases[name], tracer)
    text = "\n".join(advise(measurement.evidence))
    assert CAUSES[name] in text if CAUSES[name] else text == ""
