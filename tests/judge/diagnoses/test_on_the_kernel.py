"""Causes on the real kernel: what a scenario provokes is what the failure says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.experiment.run import run
from harness.judge.advice import advise
from harness.judge.flow import compare_flow
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

pytestmark = pytest.mark.kernel

RULESET = """\
table ip first {
	chain forward { type filter hook forward priority -1; policy accept; tcp dport 22 accept; }
}
table ip nat {
	chain prerouting { type nat hook prerouting priority dstnat; policy accept; udp dport 6000 dnat to 10.0.2.2:5001; }
}
table inet f {
	flowtable fast { hook ingress priority filter; devices = { wan0, lan0 }; }
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
		udp dport { 5000, 5001 } ct state established flow add @fast
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
  - name: flowtable
    steps:
      - listen: {on: server, udp: 5000}
      - listen: {on: server, udp: 5001}
      - exchange: {from: client, to: server, udp: 5000}
      - exchange: {from: client, to: server, udp: 5000}
      - exchange: {from: client, to: server, udp: 5000}
      - exchange: {from: client, to: server, udp: 5000}
        expect: {verdict: accept}
  - name: flowtable by IPv6
    steps:
      - listen: {on: server, udp: 5000}
      - listen: {on: server, udp: 5001}
      - exchange: {from: client, to: server, udp: 5000, family: ip6}
      - exchange: {from: client, to: server, udp: 5000, family: ip6}
      - exchange: {from: client, to: server, udp: 5000, family: ip6}
      - exchange: {from: client, to: server, udp: 5000, family: ip6}
        expect: {verdict: drop}
  - name: flowtable behind NAT
    steps:
      - listen: {on: server, udp: 5000}
      - listen: {on: server, udp: 5001}
      - exchange: {from: client, to: 203.0.113.1, udp: 6000}
      - exchange: {from: client, to: 203.0.113.1, udp: 6000}
      - exchange: {from: client, to: 203.0.113.1, udp: 6000}
      - exchange: {from: client, to: 203.0.113.1, udp: 6000}
        expect: {rule: tcp sport 20 drop}
  - name: not offloaded yet
    steps:
      - listen: {on: server, udp: 5000}
      - listen: {on: server, udp: 5001}
      - exchange: {from: client, to: server, udp: 5000}
        expect: {verdict: accept}
  - name: another flow
    steps:
      - listen: {on: server, udp: 5000}
      - listen: {on: server, udp: 5001}
      - exchange: {from: client, to: server, udp: 5000}
      - exchange: {from: client, to: server, udp: 5000}
      - exchange: {from: client, to: server, udp: 5000}
      - send: {from: client, to: server, udp: {dport: 5000, sport: 41000}}
        expect: {verdict: drop}
  - name: another address
    steps:
      - answer: {on: server, with: [{udp: {}, src: 10.0.2.9}]}
      - exchange: {from: client, to: server, udp: 53}
        expect: {flow: answered}
  - name: another port
    steps:
      - answer: {on: server, with: [{udp: {}, sport: 5353}]}
      - exchange: {from: client, to: server, udp: 53}
        expect: {flow: answered}
  - name: only an error
    steps:
      - answer: {on: server, with: [{icmp: {type: time-exceeded}}]}
      - exchange: {from: client, to: server, udp: 53}
        expect: {flow: answered}
  - name: no route
    lab: &walled
      hosts:
        client: {interfaces: {eth0: [203.0.113.5/24]}}
        device:
          interfaces: {wan0: [203.0.113.1/24], lan0: []}
          routes:
            - {to: 10.1.0.0/16, type: unreachable}
            - {to: 10.2.0.0/16, type: prohibit}
            - {to: 10.3.0.0/16, type: blackhole}
          rules: [{mark: 77, type: prohibit}]
        server: {interfaces: {eth0: []}}
      links: [["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]]
    steps: [{connect: {from: device, to: 10.9.0.1, tcp: 80}, expect: {flow: connected}}]
  - name: a route that is unreachable
    lab: *walled
    steps: [{connect: {from: device, to: 10.1.0.1, tcp: 80}, expect: {flow: connected}}]
  - name: a route that is prohibited
    lab: *walled
    steps: [{connect: {from: device, to: 10.2.0.1, tcp: 80}, expect: {flow: connected}}]
  - name: a route into a black hole
    lab: *walled
    steps: [{connect: {from: device, to: 10.3.0.1, tcp: 80}, expect: {flow: timeout}}]
  - name: a datagram into a black hole
    lab: *walled
    steps: [{exchange: {from: device, to: 10.3.0.1, udp: 53}, expect: {flow: timeout}}]
  - name: an unreachable that nobody sent
    lab: *walled
    steps: [{connect: {from: device, to: 10.1.0.1, tcp: 80}, expect: {flow: unreachable}}]
  - name: nothing sent, as expected
    lab: *walled
    steps: [{connect: {from: device, to: 10.3.0.1, tcp: 80}, expect: {flow: unsent}}]
  - name: an errno that was expected
    lab: *walled
    steps: [{connect: {from: device, to: 10.9.0.1, tcp: 80}, expect: {flow: {error: ENETUNREACH}}}]
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
    "flowtable": "the flowtable fast forwarded it, because its flow had been offloaded by",
    "flowtable by IPv6": "the flowtable fast forwarded it, because its flow had been offloaded by",
    "flowtable behind NAT": "the flowtable fast forwarded it, because its flow had been offloaded by",
    "not offloaded yet": "",
    "another address": "server answered from 10.0.2.9, and 10.0.2.2 was called; a program takes answers only from",
    "another port": "server answered from port 5353, and port 53 was called; a program takes answers only from",
}
ABSENT = {
    "not offloaded yet": "flowtable",
    "another flow": "flowtable",
    "only an error": "answered from",
}
"""Near misses: what must not be said."""
ERRNOS = {
    "no route": "the call failed at once: ENETUNREACH",
    "a route that is unreachable": "the call failed at once: EHOSTUNREACH",
    "a route that is prohibited": "the call failed at once: EACCES",
    "a route into a black hole": "the call failed at once: EINVAL",
    "a datagram into a black hole": "the call failed at once: EINVAL",
    "an unreachable that nobody sent": "the call failed at once: EHOSTUNREACH",
    "nothing sent, as expected": "",
    "an errno that was expected": "",
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


@pytest.mark.parametrize("name", ABSENT)
def test_it_is_not_said_where_it_is_not_so(name: str, cases: dict[str, Case], tracer: Tracer) -> None:
    (measurement,) = run(cases[name], tracer)
    assert ABSENT[name] not in "\n".join(advise(measurement.evidence))


@pytest.mark.parametrize("name", ERRNOS)
def test_the_errno_of_a_call_is_said(name: str, cases: dict[str, Case], tracer: Tracer) -> None:
    (measurement,) = run(cases[name], tracer)
    notes = [note for _, _, _, note in compare_flow(measurement.evidence)]
    assert ERRNOS[name] in "\n".join(notes) if ERRNOS[name] else notes == []
