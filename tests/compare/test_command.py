"""Two rulesets on the kernel: changes that were planted are found, and a refactoring shows none."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.batch.effects import effects, optimized
from harness.batch.messages import Effects, Loaded
from harness.cache import cache_dir
from harness.compare import command
from harness.compare.command import Request
from harness.compare.output import Comparison
from harness.generate import facts
from harness.generate.facts import Facts
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

OLD = """\
table inet fw {
	set seen { type ipv4_addr; flags dynamic; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established accept
		iifname "wan0" tcp dport 22 accept
		iifname "wan0" tcp dport 80 accept
		iifname "wan0" udp dport 53 add @seen { ip saddr } accept
		iifname "wan0" icmp type echo-request limit rate 1/hour burst 2 packets accept
	}
}
"""
REFACTORED = """\
table inet fw {
	set seen { type ipv4_addr; flags dynamic; }
	set web { type inet_service; elements = { 22, 80 }; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept }
		iifname "wan0" goto from_wan
	}
	chain from_wan {
		icmp type echo-request limit rate 1/hour burst 2 packets accept
		udp dport 53 add @seen { ip saddr } accept
		tcp dport @web accept
	}
}
"""


class Here:
    """The session in this process."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def look(self, paths: Sequence[Path]) -> Facts:
        return facts.load(*paths)

    def effects(self, side: Any, packets: Any) -> Iterator[Loaded | Effects]:
        return effects(pickle.dumps(side), packets, self.tracer)

    def optimized(self, side: Any) -> str:
        return optimized(pickle.dumps(side)).listing


@pytest.fixture
def diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with Tracer(KernelCache(cache_dir())) as tracer:

        @contextmanager
        def here(*_: str) -> Iterator[Here]:
            yield Here(tracer)

        monkeypatch.setattr("harness.batch.session.Session.open", here)
        monkeypatch.setattr(command, "ROUNDS", 1)  # each measures more packets
        monkeypatch.chdir(tmp_path)
        (tmp_path / "pytest.ini").touch()
        (tmp_path / "old.nft").write_text(OLD)

        def compare(new: str) -> Comparison:
            (tmp_path / "new.nft").write_text(new)
            request = Request(rulesets=("old.nft", "new.nft"), packets=12)
            (found,) = command.run(request, lambda _: None)
            assert not found.broken
            return found

        yield compare


@pytest.mark.kernel
def test_planted_changes_are_found_and_a_refactoring_shows_none(diff: Any) -> None:
    same = diff(REFACTORED)
    assert not same.changes
    assert same.met == ((6, 6), (6, 6))
    # One change of each kind: a port, a limit, and what a rule leaves behind.
    new = OLD.replace("dport 80", "dport 81").replace("burst 2", "burst 3").replace("add @seen { ip saddr } ", "")
    kinds = {(one.kind, one.new.position.line) for one in diff(new).changes}
    assert {("accept → drop", 4), ("drop → accept", 7), ("drop → accept", 9), ("accept, sets differently", 8)} <= kinds
