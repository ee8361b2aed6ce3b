"""Many packets in one lab: each is measured as if it were alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from harness.batch import effects, measure, sighting
from harness.batch.messages import Effect, Effects, Seen
from harness.batch.sift import sifted
from harness.cache import cache_dir
from harness.packets.frames import build
from harness.scenario.case import Case
from harness.scenario.load import load_all
from harness.scenario.models.actions import SendAction
from harness.tracer.base import BaseTracer
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

RULESET = """\
table inet t {
	set seen {
		type ipv4_addr
		flags dynamic
	}
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established accept
		ip saddr @seen drop
		udp dport 53 add @seen { ip saddr } accept
		udp dport 54 limit rate 1/hour burst 1 packets accept
		tcp dport 25 accept
	}
}
"""


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(KernelCache(cache_dir())) as tracer:
        yield tracer


def drafts(folder: Path, *sends: str, ruleset: str = RULESET) -> list[Case]:
    """A scenario for each of ``sends``."""
    (folder / "pytest.ini").touch()
    (folder / "t.nft").write_text(ruleset)
    file = folder / "scenarios" / "draft.yaml"
    file.parent.mkdir()
    lines = [f"  - {{name: packet {n}, send: {send}}}\n" for n, send in enumerate(sends)]
    file.write_text("".join(["lab: host\nruleset: ../t.nft\nscenarios:\n", *lines]))
    cases = [case for case in load_all(file, recording=True).cases if isinstance(case, Case)]
    assert len(cases) == len(sends)
    return cases


def met(seen: Seen) -> list[str]:
    """The rules and policies that the packet of a scenario met."""
    (sent,) = seen.sent
    return [step.rule.text if step.rule else "policy" for step in sent.seen.steps if step.kind != "return"]


@pytest.mark.kernel
def test_a_packet_meets_what_it_would_meet_alone(tracer: Tracer, tmp_path: Path) -> None:
    first = "{from: client, to: device, udp: {dport: 53}}"
    limited = "{from: client, to: device, udp: {dport: 54}}"
    ping = "{from: client, to: device, tcp: {dport: 25}}"
    seen = list(measure.run(drafts(tmp_path, first, first, limited, limited, ping, ping), tracer))
    assert [one.error for one in seen] == [""] * 6
    for one, again in zip(seen[::2], seen[1::2], strict=True):
        assert met(one) == met(again) != ["policy"]
    assert seen[0].rules
    assert not seen[1].rules


@pytest.mark.kernel
def test_a_ruleset_that_does_not_load_is_said_once(tracer: Tracer, tmp_path: Path) -> None:
    ruleset = "table inet t {\n\tchain c { type filter hook input priority 0; jump nowhere; }\n}\n"
    send = "{from: client, to: device, tcp: {dport: 25}}"
    (seen,) = measure.run(drafts(tmp_path, send, send, ruleset=ruleset), tracer)
    assert seen.is_general
    assert "t.nft:2" in seen.error


@pytest.mark.kernel
def test_a_flowtable_is_not_taken_for_a_set(tracer: Tracer, tmp_path: Path) -> None:
    ruleset = """\
table inet t {
	flowtable ft { hook ingress priority 0; devices = { eth0 }; }
	set seen { type ipv4_addr; flags dynamic; }
	chain forward { type filter hook forward priority 0; meta l4proto tcp flow add @ft; }
	chain input { type filter hook input priority 0; add @seen { ip saddr }; }
}
"""
    send = "{from: client, to: device, tcp: {dport: 25}}"
    seen = list(measure.run(drafts(tmp_path, send, send, ruleset=ruleset), tracer))
    assert [one.error for one in seen] == ["", ""]
    assert met(seen[0]) == met(seen[1]) == ["add @seen { ip saddr }", "policy"]


FORWARDING = "table inet t { chain c { type filter hook forward priority 0; ct mark 1 accept; }; }"
TO_NOBODY = """\
lab: router
ruleset: t.nft
scenarios:
  - {name: nobody, send: {from: client, to: 10.0.2.77, tcp: {dport: 443}}}
"""


def thrice(folder: Path, tracer: Callable[[], BaseTracer] | None) -> list[Effect]:
    """What becomes of the same packet three times; without a tracer it is sifted."""
    (folder / "pytest.ini").touch()
    (folder / "t.nft").write_text(FORWARDING)
    (folder / "t.yaml").write_text(TO_NOBODY)
    (case,) = load_all(folder / "t.yaml", recording=True).cases
    assert isinstance(case, Case)
    (action,) = case.actions
    assert isinstance(action, SendAction)
    side = pickle.dumps((case.network, case.rulesets[case.network.device]))
    packets = [[build(action.send, case.network)]] * 3
    answers = effects.effects(side, packets, tracer) if tracer else sighting.effects(sifted(side, packets), packets)
    found = [one for one in answers if isinstance(one, Effects)]
    assert [one.error for one in found] == [""] * 3
    return [msgspec.structs.replace(effect, age_s=0.0) for one in found for effect in one.seen]


@pytest.mark.kernel
@pytest.mark.parametrize("is_sifted", [True, False])
def test_a_packet_that_nobody_has_the_address_of_shows_the_same_each_time(
    is_sifted: bool, tracer: Tracer, tmp_path: Path
) -> None:
    first, *others = thrice(tmp_path, None if is_sifted else lambda: tracer)
    assert others == [first] * 2
    # Not even the question for the neighbour.
    assert (first.verdict, first.arrived, first.answers) == ("accept", (), ())
