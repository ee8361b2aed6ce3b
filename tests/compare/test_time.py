"""Rulesets by which time or chance decides, on this machine's own kernel.

The same ruleset in other words shows no change, and a change is found.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.compare import command
from harness.compare.command import DiffRequest
from harness.compare.output import Comparison
from harness.generate import pool
from harness.linux import features
from harness.vm import placement

PACKETS = 80
DECLARED = {
    "limit": "",
    "named": "limit quick { rate 3000/second burst 2 packets; }",
    "of an element": "set seen { type ipv4_addr; flags dynamic; size 99; }",
    "elements": "set seen { type ipv4_addr; flags timeout, dynamic; size 99; timeout 4ms; }",
    "loaded": "set seen { type ipv4_addr; flags timeout; elements = { 203.0.113.5 timeout 300ms }; }",
    "log": "",
}
RULES = {
    "limit": "tcp dport 22 limit rate 3000/second burst 2 packets accept",
    "named": "tcp dport 22 limit name quick accept",
    "of an element": "tcp dport 22 add @seen { ip saddr limit rate 3000/second burst 2 packets } accept",
    "elements": "tcp dport 7000 add @seen { ip saddr } drop; ip saddr @seen tcp dport 22 accept",
    "loaded": "ip saddr @seen tcp dport 22 accept",
    "log": 'tcp dport 22 numgen random mod 2 == 0 log prefix "half "; tcp dport 22 accept',
}
WHOLE = """\
table inet t {{
	{declared}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		ct state established accept
		{rules}
		tcp dport 80 accept
	}}
}}
"""
SPLIT = WHOLE.replace("\t\t{rules}", "\t\tjump more\n\t}}\n\tchain more {{\n\t\t{rules}")


def compared(old: str, new: str) -> Comparison:
    if os.geteuid():
        pytest.skip("needs root, for network namespaces with nf_tables' trace")
    for name, text in (("old.nft", old), ("new.nft", new)):
        Path(name).write_text(text.replace("; ip saddr @seen", "\n\t\tip saddr @seen").replace("; tcp", "\n\t\ttcp"))
    request = DiffRequest(
        rulesets=("old.nft", "new.nft"), packets=PACKETS, kernel=placement.HOST, tracer=features.TRACEPOINTS
    )
    (found,) = command.run(request, lambda _: None)
    assert not found.broken
    return found


@pytest.fixture(autouse=True)
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "TRIED_AT_MOST", 2 * PACKETS)  # the simulation only orders packets


@pytest.mark.parametrize("by", RULES)
def test_the_same_in_other_words_shows_no_change_by_time_or_chance(by: str) -> None:
    said = {"declared": DECLARED[by], "rules": RULES[by]}
    found = compared(WHOLE.format(**said), SPLIT.format(**said))
    assert not found.changes
    assert not found.disagreements


def test_a_larger_burst_is_found_however_quickly_tokens_come_back() -> None:
    one, other = (WHOLE.format(declared="", rules=RULES["limit"].replace("burst 2", f"burst {n}")) for n in (2, 9))
    found = compared(one, other)
    assert {change.kind for change in found.changes} == {"drop → accept"}


def test_an_element_that_soon_expires_is_there_for_each_packet() -> None:
    said = {"rules": RULES["loaded"]}
    one = WHOLE.format(declared=DECLARED["loaded"], **said)
    other = WHOLE.format(declared="set seen { type ipv4_addr; flags timeout; }", **said)
    found = compared(one, other)
    assert {change.kind for change in found.changes} == {"accept → drop"}
    assert found.changes[0].packets > 3
