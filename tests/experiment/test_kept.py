"""A lab that is kept for the next scenario: only where that begins as in a new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.cache import cache_dir
from harness.errors import HarnessError
from harness.experiment import kept
from harness.experiment.kept import KeptLab, is_harmless, leaves_nothing, stays
from harness.experiment.run import Experiment
from harness.judge.expectations import judge
from harness.packets.frames import build
from harness.ruleset.process import Child, Reply
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.topology.parts import HostPlan
from harness.topology.spec import LabSpec
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer
from tests import builders

RULES = """\
table inet t {
  counter seen { }
  set knocked { type ipv4_addr; flags dynamic; }
  chain input {
    type filter hook input priority filter; policy drop;
    counter name seen
    ct state invalid drop
    tcp dport 22 limit rate 1/minute burst 1 packets accept
    tcp dport 80 add @knocked { ip saddr } accept
    ip saddr @knocked accept
    udp dport { 67, 69 } accept
    udp dport 53 quota 60 bytes accept
    include "more/*.nft"
  }
}
"""
FILE = """\
lab: host
ruleset: rules.nft
scenarios:
  - name: one in a minute
    send: {from: client, to: device, tcp: {dport: 22}}
    expect: {verdict: accept, counters: {inet t seen: 1}}
  - name: one knocks
    send: {from: client, to: device, tcp: {dport: 80}}
    expect: {verdict: accept, elements: {inet t knocked: [192.0.2.5]}}
  - name: nobody has knocked
    send: {from: client, to: device, tcp: {dport: 81}}
    expect: {verdict: drop, elements: {inet t knocked: []}}
  - name: one connection
    send: {from: client, to: device, udp: {dport: 67}}
    expect: {verdict: accept, connections: 1}
  - name: one other
    send: {from: client, to: device, udp: {dport: 69}}
    expect: {verdict: accept, connections: 1}
  - name: sixty bytes
    send: {from: client, to: device, udp: {dport: 53}}
    expect: {verdict: accept}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/rules.nft").write_text(RULES)
    (tmp_path / "scenarios/a.yaml").write_text(FILE)
    (tmp_path / "scenarios/more").mkdir()
    return tmp_path / "scenarios"


def cases(file: Path) -> list[Case]:
    found = load(file)
    assert all(isinstance(one, Case) for one in found), found
    return [one for one in found if isinstance(one, Case)]


def written(folder: Path, scenario: str) -> list[Case]:
    """A file with one scenario."""
    expected = "" if "steps" in scenario or "expect" in scenario else "    expect: {verdict: drop}\n"
    text = f"lab: host\nruleset: rules.nft\nscenarios:\n  - name: a\n{scenario}{expected}"
    (folder / "a.yaml").write_text(text)
    return cases(folder / "a.yaml")


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(KernelCache(cache_dir())) as tracer:
        yield tracer


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """The labs that were built, as they were planned."""
    found: list[Network] = []
    open_ = Experiment.open

    def counted(network: Network, *more: Any) -> AbstractContextManager[Experiment]:
        found.append(network)
        return open_(network, *more)

    monkeypatch.setattr(Experiment, "open", counted)
    return found


def is_since_linux(*version: int) -> bool:
    return tuple(map(int, os.uname().release.split(".")[:2])) >= version


def is_as_expected(lab: KeptLab, case: Case, tracer: Tracer) -> bool:
    measured = lab.run(case, tracer)
    assert measured
    return not any(judge(one.expect, one.observation, one.packet, at=builders.place) for one in measured)


@pytest.mark.kernel
def test_every_scenario_begins_as_in_a_new_lab(folder: Path, tracer: Tracer, opened: list[Network]) -> None:
    lab = KeptLab()
    try:
        for case in [one for one in cases(folder / "a.yaml") for _ in range(2)]:
            assert is_as_expected(lab, case, tracer), case.name
        # Of twelve. One is spoiled by the question whether a neighbour could have been resolved, others by what an
        # interface that has just come up sends of itself.
        assert 1 <= len(opened) <= 4
    finally:
        lab.close()


@pytest.mark.kernel
@pytest.mark.parametrize("source", ["02:00:00:00:00:77", ""], ids=["another", "that of the other side"])
def test_a_bridge_that_has_learned_an_address_is_not_kept(
    folder: Path, tracer: Tracer, opened: list[Network], source: str
) -> None:
    mac = source or Network.of(LABS["bridge"]).hosts["server"].interfaces["eth0"].mac
    chain = "chain c { type filter hook forward priority 0; policy accept; }"
    (folder / "rules.nft").write_text(f"table bridge t {{ {chain}; }}\n")
    (folder / "a.yaml").write_text(
        "lab: bridge\nruleset: rules.nft\nscenarios:\n"
        "  - name: as planned\n    send: {from: client, to: server, udp: {dport: 67}}\n"
        "    expect: {verdict: accept, delivered: server}\n"
        f"  - name: spoofed\n    send: {{from: client, to: device, ether: {{src: '{mac}', dst: "
        "'02:00:00:00:00:78'}, udp: {dport: 67}}\n"
        "    expect: {delivered: server}\n"
    )
    planned, spoofed = cases(folder / "a.yaml")
    lab = KeptLab()
    try:
        for _ in range(4):
            lab.run(planned, tracer)
        assert (labs := len(opened)) < 4  # for what spoils one see above
        lab.run(spoofed, tracer)
        before = len(opened)
        lab.run(planned, tracer)
        assert len(opened) == before + 1
        assert before <= labs + 1
    finally:
        lab.close()


@pytest.mark.kernel
def test_a_lab_is_built_for_each_where_that_is_asked_for(folder: Path, tracer: Tracer, opened: list[Network]) -> None:
    lab = KeptLab(fresh=True)
    for case in cases(folder / "a.yaml")[:3]:
        assert is_as_expected(lab, case, tracer)
    assert len(opened) == 3


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("rules.nft", RULES.replace("{ 67, 69 }", "{ 69, 70 }")),
        ("rules.nft", RULES.replace("    udp dport 53", "\n\n    udp dport 53")),
        ("more/ban.nft", "udp dport 70 drop\n"),
    ],
    ids=["another rule", "another line", "another file of a pattern"],
)
def test_a_ruleset_that_was_written_meanwhile_is_read_anew(
    folder: Path, tracer: Tracer, opened: list[Network], file: str, text: str
) -> None:
    lab = KeptLab()
    _, _, silent, connects, *_ = cases(folder / "a.yaml")
    try:
        for case in (silent, silent, connects):
            assert is_as_expected(lab, case, tracer)
        before = len(opened)
        (folder / file).write_text(text)
        assert is_as_expected(lab, connects, tracer) is ("69, 70" not in text)
        assert len(opened) == before + 1
    finally:
        lab.close()


@pytest.mark.kernel
@pytest.mark.parametrize("statement", ["", "counter"])
def test_a_ruleset_that_packets_do_not_change_is_not_loaded_anew(
    folder: Path, tracer: Tracer, opened: list[Network], monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    if statement and not is_since_linux(6, 5):
        pytest.skip("counters of rules cannot be reset before Linux 6.5")
    rules = (
        "table inet t {\n  chain input {\n    type filter hook input priority filter; policy drop;\n"
        f"    ct state new udp dport 67 {statement} accept\n  }}\n}}\n"
    )
    (folder / "rules.nft").write_text(rules)
    (case,) = written(folder, "    send: {from: client, to: device, udp: {dport: 67}}\n    expect: {verdict: accept}\n")
    asked: list[dict[str, Any]] = []
    ask = Child.ask

    def noted(child: Child, request: dict[str, Any], text: bytes | None = None) -> Reply:
        asked.append(request)
        return ask(child, request, text)

    monkeypatch.setattr(Child, "ask", noted)
    lab = KeptLab()
    try:
        requests = []
        for _ in range(5):
            (seen,) = lab.run(case, tracer)
            assert list(seen.observation.counts.values()) == ([1] if statement else [])
            requests.append(len(asked))
        assert len(opened) < 5  # for what spoils one see above
        assert len({*requests}) == len(opened)  # nft is asked where a lab is new
        (folder / "rules.nft").write_text(rules.replace("67", "68"))
        (seen,) = lab.run(case, tracer)
        assert [step.verdict for step in seen.packet.steps][-1:] == ["drop"]
    finally:
        lab.close()


@pytest.mark.kernel
def test_a_lab_in_which_something_failed_is_not_kept(
    folder: Path, tracer: Tracer, opened: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise HarnessError("no more")

    lab = KeptLab()
    case = cases(folder / "a.yaml")[2]
    try:
        assert is_as_expected(lab, case, tracer)
        before = len(opened)
        with monkeypatch.context() as patched:
            patched.setattr(kept, "perform", fail)
            with pytest.raises(HarnessError):
                lab.run(case, tracer)
        assert is_as_expected(lab, case, tracer)
        assert len(opened) > before
    finally:
        lab.close()


def first_functions(lab: KeptLab, case: Case, tracer: Tracer) -> list[str]:
    """Of netfilter's functions at the first hook those that the first packet met, in their order."""
    one, *_ = lab.run(case, tracer)
    named = [hop.function for hop in one.observation.packets[0].hops]
    return [name for name in named if name in ("ipv4_conntrack_defrag", "nft_do_chain_inet", "ipv4_conntrack_in")]


@pytest.mark.kernel
def test_a_chain_does_not_change_places_with_a_hook_of_the_kernel(
    folder: Path, tracer: Tracer, opened: list[Network]
) -> None:
    early = "chain early { type filter hook prerouting priority -400; }\n"
    (folder / "rules.nft").write_text(RULES.replace("  chain input", f"  {early}  chain input"))
    named = "path: [ipv4_conntrack_defrag, ipv4_conntrack_in]"  # which Linux 6.1 traces where they are named
    packet = "send: {from: client, to: device, tcp: {dport: 81}}"
    (silent,) = written(folder, f"    {packet}\n    expect: {{verdict: drop, {named}}}\n")
    lab = KeptLab()
    try:
        first, second = (first_functions(lab, silent, tracer) for _ in range(2))
    finally:
        lab.close()
    assert {"ipv4_conntrack_defrag", "ipv4_conntrack_in"} <= set(first)
    assert first == second
    assert len(opened) == 2


HOSTS = {"client": {"interfaces": {"eth0": ["192.0.2.5/24"]}}, "device": {"interfaces": {"eth0": ["192.0.2.10/24"]}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"vlans": {"eth0.5": {"link": "eth0", "id": 5}}}, True),
        ({"bridges": {"br0": ["eth0"]}, "interfaces": {"eth0": [], "br0": ["192.0.2.10/24"]}}, True),
        ({"sysctls": {"net.ipv4.conf.all.rp_filter": "1"}}, True),
        ({"sysctls": {"net.ipv4.icmp_ratelimit": "1000"}}, False),
        ({"modules": ["br_netfilter"]}, True),
        ({"modules": ["br_netfilter", "nf_nat_ftp"]}, False),
        ({"netem": {"eth0": {"delay": 0.01}}}, False),
    ],
)
def test_a_lab_stays_where_nothing_in_it_remembers_packets(change: dict[str, Any], expected: bool) -> None:
    made = {name: [] for name in (*change.get("vlans", ()), *change.get("bridges", ()))}
    device = HOSTS["device"] | {"interfaces": HOSTS["device"]["interfaces"] | made} | change
    spec = {"hosts": HOSTS | {"device": device}, "links": [["client:eth0", "device:eth0"]], "device": "device"}
    assert stays(Network.of(msgspec.convert(spec, LabSpec))) is expected


def test_a_lab_with_a_host_that_answers_does_not_stay() -> None:
    router = Network.of(LABS["router"])
    assert stays(router)
    assert not stays(Network.of(LABS["router"], loading=["server"]))


def test_what_a_host_of_a_lab_can_have_was_thought_of() -> None:
    """A new field of a plan may be something that remembers packets: see ``stays``, then add it here."""
    assert set(HostPlan.__struct_fields__) == {
        *("name", "interfaces", "made", "routes", "rules", "neighbours", "forwarding", "sysctls", "silent"),
        *("speaking", "netem", "modules", "checksum_offload", "ipsec", "down", "nexthops"),
    }


PACKETS = {
    "tcp: {dport: 22}": True,
    "udp: {dport: 53}": True,
    "icmp: {type: echo-request}": True,
    "icmp: {type: destination-unreachable, code: 4}": False,
    "icmp: {type: redirect}": False,
    "icmpv6: {type: nd-neighbor-solicit}": False,
    "icmpv6: {type: echo-request}": True,
    "packet: Ether() / IP(src='192.0.2.5', dst='192.0.2.10', flags='MF') / UDP(dport=53)": False,
    "packet: Ether() / IP(src='192.0.2.5', dst='192.0.2.10', frag=3) / UDP(dport=53)": False,
    "packet: Ether() / IPv6(src='fe80::1', dst='fe80::2') / IPv6ExtHdrFragment(m=1) / UDP(dport=53)": False,
    "packet: Ether() / Dot1Q(vlan=5) / IP(src='192.0.2.5', dst='192.0.2.10', frag=3) / UDP(dport=53)": False,
    "packet: Ether() / Dot1Q(vlan=5) / IP(src='192.0.2.5', dst='192.0.2.10') / UDP(dport=53)": True,
    "packet: Ether() / IPv6(src='fe80::1', dst='fe80::2') / IPv6ExtHdrHopByHop() / UDP(dport=53)": True,
    "packet: Ether() / ARP(psrc='192.0.2.5', pdst='192.0.2.10')": False,
    "packet: Ether() / IP(src='192.0.2.5', dst='192.0.2.10', proto=50) / Raw(b'12345678')": False,
}


@pytest.mark.parametrize(("words", "expected"), PACKETS.items())
def test_a_packet_is_harmless_if_it_changes_connections_and_rulesets_alone(
    folder: Path, words: str, expected: bool
) -> None:
    more = "" if words.startswith("packet") else "      to: device\n"
    (case,) = written(folder, f"    send:\n      from: client\n{more}      {words}\n")
    ((sent, network),) = case.sends
    (frame,) = build(sent, network)
    assert is_harmless(frame.data) is expected
    assert leaves_nothing(case, [frame.data]) is expected


def test_a_frame_that_is_cut_off_is_not_harmless() -> None:
    assert is_harmless(builders.frame())
    assert not is_harmless(builders.frame()[:30])


STEPS = ["connect: {from: client, to: device, tcp: 22}", "flush: conntrack", "nft: add table ip x"]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_no_packet_may_leave_something(folder: Path, step: str) -> None:
    sent = "{send: {from: client, to: device, tcp: {dport: 22}}, expect: {verdict: drop}}"
    (case,) = written(folder, f"    steps:\n      - {step}\n      - {sent}\n")
    assert not leaves_nothing(case, [])
