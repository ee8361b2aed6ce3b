"""Two rulesets on the kernel: changes that were planted are found, and a refactoring shows none."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.batch import sighting
from harness.batch.effects import _nft, effects, optimized
from harness.batch.messages import Effect, Effects, Loaded
from harness.batch.session import BatchSession
from harness.batch.sift import sifted
from harness.cache import cache_dir
from harness.compare import command, sides
from harness.compare.changes import HOOKS, Book, Change, Decider, Witness
from harness.compare.command import DiffRequest, Sent
from harness.compare.output import Comparison
from harness.compare.sides import Side
from harness.errors import HarnessError
from harness.generate import facts, lab, pool
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.pool import Pool
from harness.generate.simulate import SimulatedRuleset
from harness.project import Project
from harness.scenario.case import Files
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer
from tests.listings import match, table

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

    def effects(self, side: Any, packets: Any, *, sift: bool) -> Iterator[Loaded | Effects]:
        if sift:
            return sighting.effects(sifted(pickle.dumps(side), packets), packets)
        return effects(pickle.dumps(side), packets, lambda: self.tracer)

    def optimized(self, side: Any) -> str:
        return optimized(pickle.dumps(side)).listing


@pytest.fixture
def diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with Tracer(KernelCache(cache_dir())) as tracer:

        @contextmanager
        def here(*_: str) -> Iterator[Here]:
            yield Here(tracer)

        monkeypatch.setattr("harness.batch.session.BatchSession.open", here)
        monkeypatch.setattr(command, "ROUNDS", 1)  # each measures more packets
        monkeypatch.setattr(pool, "TRIED_AT_MOST", 50)  # the controller's work, which is slow in a guest
        monkeypatch.chdir(tmp_path)
        (tmp_path / "pytest.ini").touch()
        (tmp_path / "old.nft").write_text(OLD)

        def compare(new: str, *, sift: str = command.KERNEL) -> Comparison:
            (tmp_path / "new.nft").write_text(new)
            request = DiffRequest(rulesets=("old.nft", "new.nft"), packets=12, sift=sift)
            (found,) = command.run(request, lambda _: None)
            assert not found.broken
            assert not found.disagreements
            return found

        yield compare


@pytest.mark.kernel
def test_planted_changes_are_found_and_a_refactoring_shows_none(diff: Any) -> None:
    # Functions watch every packet, many in one recording.
    same = diff(REFACTORED, sift=command.NOWHERE)
    assert not same.changes
    assert same.met == ((6, 6), (6, 6))
    # One change of each kind: a port, a limit, and what a rule leaves behind.
    new = OLD.replace("dport 80", "dport 81").replace("burst 2", "burst 3").replace("add @seen { ip saddr } ", "")
    found = diff(new)
    kinds = {(one.kind, one.new.position.line) for one in found.changes}
    assert {
        ("accept → drop", 4),
        ("drop → accept", 7),
        ("drop → accept", 9),
        ("accept, other elements", 8),
    } <= kinds
    assert found.kernels == found.sifted == same.kernels


@pytest.mark.kernel
def test_what_nft_optimize_makes_keeps_the_elements_of_sets(tmp_path: Path) -> None:
    """Without them every packet that a set decides about would seem to change."""
    (tmp_path / "pytest.ini").touch()
    file = tmp_path / "fw.nft"
    file.write_text(
        OLD.replace("flags dynamic; }", "flags dynamic; }\n\tset web { type inet_service; elements = { 8080 }; }")
    )
    network = lab.given("router").network
    made = optimized(pickle.dumps((network, sides.of(str(file)).files))).listing
    assert "8080" in made
    assert made.count("dport") < OLD.count("dport")  # rules have become one


def effect(verdict: str, hooks: str = "forward") -> Effect:
    return Effect(verdict=verdict, decided=(), met=(), hooks=(hooks,))


def test_what_functions_do_not_show_is_no_change_and_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of each change up to three packets are measured again."""
    nobody = Decider(chain="", text="")

    def change(*ports: int, kind: str = "drop → accept") -> Change:
        first, *more = (
            Witness(port, ({"tcp": {"dport": port}},), f"tcp {port}", effect("drop"), effect("accept"))
            for port in ports
        )
        return Change(kind=kind, old=nobody, new=nobody, witness=first, spare=more, packets=9)

    measured: list[list[int]] = []

    def functions(packets: list[Sent], *_: object, sift: bool, failed: dict[str, str]) -> list[Change]:
        assert not sift
        ports = [int(one.sends[0]["tcp"]["dport"]) for one in packets]
        measured.append(ports)
        failed.update((repr(one.sends), "lost") for one in packets if one.sends[0]["tcp"]["dport"] in (31, 51, 52))
        return [change(port, kind="drop → reject") for port in ports if port in (1, 22)]

    monkeypatch.setattr(command, "_made", lambda sends, _: Sent(sends, ()))
    side = Side("a.nft", Files((tmp_path,), Project(root=tmp_path)))
    nothing: Any = None
    comparing = command._Comparing(
        DiffRequest(rulesets=()), (side, side), (nothing, nothing), (nothing, nothing), lambda _: None, ""
    )
    monkeypatch.setattr(comparing, "_changes", functions)
    sifted = [change(1), change(21, 22, 23), change(31, 32, 33), change(41, kind=HOOKS), change(51, 52)]
    found = [(one.kind, one.witness.number, one.unconfirmed) for one in comparing._confirmed(sifted, nothing)]
    # What cannot be measured again is a change as before; what functions contradict is none.
    assert found == [("drop → reject", 1, ""), ("drop → reject", 22, ""), ("drop → accept", 51, "lost")]
    assert measured == [[1, 21, 31, 41, 51], [22, 32, 52], [33]]
    assert comparing.disagreements == ["drop → accept: tcp 33"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.nft"], "two rulesets are needed, and 1 is given"),
        (["a.nft", "none.nft"], "none.nft is neither a file nor a folder"),
        (["a.nft", "empty"], "empty has no file NAME.nft"),
        (["a.nft", "--permute"], "--permute needs several files"),
        (["a.nft", "--optimize", "--permute"], "--base, --optimize, --permute and --kernels are about different sides"),
        (["a.nft", "--approve"], "--approve needs a file"),
        (["a.nft", "--base", "main"], "git rev-parse: not a git repository"),
        (["a.nft", "a.nft", "--accept", "a.yaml"], "a.yaml:1:1: has no list accepted:"),
        (["a.nft", "a.nft", "--save", "a.yaml"], "a.yaml is not called scenarios/*.yaml"),
        (
            ["a.nft", "--optimize", "--save", "scenarios/a.yaml"],
            "--save writes scenarios of a ruleset that is one file",
        ),
        (
            ["a.nft", "--kernels", "6.1", "7.2", "--sift", "host"],
            "--kernels compares two kernels, and this machine has",
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Callable[[Sequence[str], str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "a.nft").touch()
    (tmp_path / "a.yaml").write_text("x: 1\n")
    (tmp_path / "empty").mkdir()
    refuses(["diff", *arguments], words)


def test_a_rule_whose_packets_were_not_sent_is_not_said_to_have_none() -> None:
    never = [match("tcp", "dport", 81), match("tcp", "dport", 82), {"accept": None}]
    ruleset = SimulatedRuleset(table([match("tcp", "dport", 80), {"accept": None}], never))
    device = SimulatedDevice(ruleset, Network.of(LABS["router"]))
    generator = Pool([device], 1)
    generator.packets(1)
    rules = [rule.key for chain in ruleset.chains.values() for rule in chain.rules]
    book = SimpleNamespace(places=rules, met=set(), named=lambda place: place[3])
    sent, none = command._unmet([cast("Book", book)], [device], generator)
    assert sent == "2: packets were made for it; none of those that were sent met it (--packets sends more)"
    assert none.startswith("3: no packet was found")
    one_file = cast("list[Book]", [book, book])
    assert command._unmet(one_file, [device, device], generator) == (sent, none)


@pytest.mark.parametrize(
    ("side", "sentence"),
    [
        ({"given": (Path("../old.nft"),)}, "../old.nft:1:2: nft: syntax error"),
        ({}, "old.nft:1:2: nft: syntax error"),
        ({"is_made": True}, "edge.nft at main: old.nft:1:2: nft: syntax error"),
    ],
)
def test_a_ruleset_that_nft_refuses_is_called_as_the_user_calls_it(side: dict[str, Any], sentence: str) -> None:
    def look(paths: Sequence[Path]) -> None:
        raise HarnessError(f"{paths[0]}:1:2: nft: syntax error")

    made = bool(side.get("is_made"))
    files = Files((Path("unpacked/old.nft" if made else "old.nft"),), Project(root=Path("/")))
    with pytest.raises(HarnessError) as found:
        command._looked(
            cast("BatchSession", SimpleNamespace(look=look)), Side("edge.nft at main", files, **side), "unpacked/"
        )
    assert str(found.value) == sentence


@pytest.mark.kernel
def test_what_a_packet_meets_behind_the_loopback_is_met(diff: Any, tmp_path: Path) -> None:
    ruleset = (
        "table ip t {\n chain out { type filter hook postrouting priority 0; }\n"
        " chain in { type filter hook input priority 0; policy drop; iif lo accept; tcp dport 22 accept; }\n}\n"
    )
    (tmp_path / "old.nft").write_text(ruleset)
    found = diff(ruleset)
    assert not found.changes
    assert not any("iif lo" in one for one in found.unmet)


def test_an_nft_that_crashes_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\necho Merging: >&2\necho 'optimize.c: failed' >&2\nkill -ABRT $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(HarnessError, match=r"nft --optimize crashed \(SIGABRT\): optimize.c: failed"):
        _nft("--optimize", "--file", "a.nft")
