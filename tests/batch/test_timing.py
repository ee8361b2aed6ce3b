"""From when on time decides about packets, by steps made by hand, and what a loaded ruleset says about that."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

import msgspec
import pytest

from harness.batch.messages import Timed
from harness.batch.timing import TICK_S, Timing, timed
from harness.lab.lab import Lab
from harness.model.observation import Rule, Step
from harness.ruleset.load import Ruleset
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests import builders

SIZE = 100
SLOW = "limit rate 2/minute burst 2 packets"


def certain(rule: Rule, packets: int, known: Timed | None = None, sizes: Sequence[int] = (SIZE,)) -> list[float]:
    """For each of several packets that came to ``rule``."""
    timing = Timing([rule], known or Timed())
    step = msgspec.structs.replace(builders.step("accept"), headers=builders.frame()[14:])
    return [timing.certain([step], sizes) for _ in range(packets)]


@pytest.mark.parametrize(
    ("text", "surely", "seconds"),
    [
        ("limit rate 20/second accept", 5, 0.05),
        ("limit rate 20/second burst 2 packets accept", 2, 0.05),
        ("limit rate over 3/minute burst 3 packets drop", 3, 20),
        ('limit rate 1/week burst 1 packets log prefix "limit rate 100/second "', 1, 604800),
        ("add @seen { ip saddr limit rate over 2/minute burst 2 packets } drop", 2, 30),
        # A bucket of bytes has room for the rate and the burst.
        ("limit rate 400 bytes/minute burst 100 bytes accept", 5, 15),
        ("limit rate 1 kbytes/second drop", 10, 76 / 1024),
        ('limit name "web" accept', 2, 6),
        # Others may have taken the tokens of the limit that the map chooses.
        ('limit name ip saddr map { 192.0.2.1 : "web" } accept', 0, 6),
        ('limit name ip saddr map { 192.0.2.1 : "other" } accept', 0, 6),
        ("add @slow { ip saddr } accept", 2, 30),
        ("ip saddr @slow accept", 2, 30),
    ],
)
def test_a_limit_is_certain_until_its_tokens_are_used_up_and_one_may_be_back(
    text: str, surely: int, seconds: float
) -> None:
    known = Timed(limits={"inet filter web": "limit rate 10/minute burst 2 packets", "inet filter @slow": SLOW})
    found = certain(builders.rule(text), surely + 2, known)
    assert found == [*[inf] * surely, *[pytest.approx(seconds)] * 2]


@pytest.mark.parametrize(
    ("written", "surely", "seconds"),
    [
        ("-A INPUT -m hashlimit --hashlimit-upto 4/sec --hashlimit-burst 3 --hashlimit-name x -j ACCEPT", 3, 0.25),
        ("-A INPUT -m hashlimit --hashlimit-above 6/min --hashlimit-name x -j DROP", 5, 10),
        ("-A INPUT -m hashlimit --hashlimit-above 512kb/s --hashlimit-name x -j DROP", 0, 0),
        ("-A INPUT -m rateest --rateest eth0 --rateest-gt --rateest-bps 1mbit -j DROP", 0, 0),
        ("-A INPUT -m recent --name x --rcheck --seconds 60 --hitcount 4 -j DROP", 0, 60 - TICK_S),
    ],
)
def test_limits_of_iptables(written: str, surely: int, seconds: float) -> None:
    rule = msgspec.structs.replace(builders.rule('xt match "hashlimit" accept'), written=written)
    assert certain(rule, surely + 1) == [*[inf] * surely, pytest.approx(seconds)]


def test_packets_that_cannot_have_come_to_a_limit_take_no_tokens() -> None:
    assert set(certain(builders.rule("udp dport 53 limit rate 20/second burst 1 packets accept"), 5)) == {inf}
    assert certain(builders.rule("tcp dport 443 limit rate 20/second burst 1 packets accept"), 2)[1] < 1


def test_a_named_limit_is_shared_by_its_rules() -> None:
    rules = [builders.rule('limit name "web" accept', handle=handle) for handle in (1, 2)]
    timing = Timing(rules, Timed(limits={"inet filter web": "limit rate 10/minute burst 3 packets"}))
    assert [timing.certain([builders.step("accept")], [SIZE]) for _ in range(2)] == [inf, pytest.approx(6)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("ip saddr @banned drop", 90),
        ("ip saddr @knocked accept", 5),
        ("tcp dport 7000 add @knocked { ip saddr timeout 2s500ms } drop", 2.5),
        ("tcp dport 7000 update @knocked { ip saddr timeout 4ms } drop", TICK_S),
        ("ip saddr @stays drop", inf),
    ],
)
def test_elements_are_certain_while_they_stay(text: str, seconds: float) -> None:
    known = Timed(elements={"inet filter banned": 90, "inet filter knocked": 5, "ip filter stays": 1})
    rule = builders.rule(text.replace("dport 7000", "dport 443"))
    assert certain(rule, 2, known) == [pytest.approx(seconds - TICK_S)] * 2


def test_the_next_packet_begins_with_full_limits() -> None:
    timing = Timing([builders.rule("limit rate 20/second burst 1 packets accept")], Timed())
    step: Step = builders.step("accept")
    for _ in range(2):
        timing.begin()
        assert [timing.certain([step], [SIZE]) < inf for _ in range(2)] == [False, True]


LOADED = """\
table inet t {
	limit web { rate over 10 kbytes/second burst 5 kbytes; }
	limit ping { rate 5/minute; }
	set plain { type ipv4_addr; elements = { 192.0.2.1 }; }
	set usual { type ipv4_addr; timeout 90s; elements = { 192.0.2.1 timeout 10s, 192.0.2.2 }; }
	set later { type ipv4_addr; flags timeout, dynamic; size 9; }
	map own { type ipv4_addr : verdict; flags timeout; elements = { 192.0.2.1 timeout 70s : drop, 192.0.2.2 : drop }; }
	chain input {
		limit name "web" drop
		limit name "ping" accept
	}
}
"""


@pytest.mark.kernel
def test_what_time_changes_of_a_loaded_ruleset(tmp_path: Path) -> None:
    (path := tmp_path / "a.nft").write_text(LOADED)
    with Lab.build(Network.of(LABS["host"])) as lab:
        found = timed(Ruleset.load(lab.device, path))
    assert found.elements == {"inet t usual": 10, "inet t own": 70}
    assert found.loaded == 10
    assert found.limits.keys() == {"inet t web", "inet t ping"}
    rules = [builders.rule(f'limit name "{name}" accept', chain="inet t input") for name in ("web", "ping")]
    step = builders.step("accept", chain="inet t input")
    of_bytes, of_packets = (Timing([rule], found) for rule in rules)
    assert [of_bytes.certain([step], [7000]) for _ in range(3)] == [inf, inf, pytest.approx(5640 / 10240)]
    assert [of_packets.certain([step], [7000]) for _ in range(6)] == [*[inf] * 5, pytest.approx(12)]
