"""``nft-harness mutate``: pytest's selection, and whole runs on this kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.batch.session import BatchSession
from harness.cache import cache_dir
from harness.cli import main
from harness.errors import HarnessError
from harness.mutate import command, measure, output, ruleset, survivors
from harness.mutate.command import Interrupted, MutateRequest
from harness.mutate.results import RulesetResult
from harness.scenario.load import load_all
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

RULESET = """\
table inet fw {
	set web { type inet_service; elements = { 80, 443 }; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established accept
		iifname "wan0" tcp dport 22 accept comment "ssh"
		iifname "wan0" tcp dport @web accept
	}
}
"""
SCENARIOS = """\
lab: router
ruleset: fw.nft
scenarios:
  - name: ssh
    send: {from: client, to: server, tcp: {dport: 22}}
    expect: {verdict: accept, rule: ssh, path: [ip_rcv, ip_forward]}
  - name: telnet
    send: {from: client, to: server, tcp: {dport: 23}}
    expect: {verdict: drop}
  - name: web
    send: {from: client, to: server, tcp: {dport: 80}}
    expect: {verdict: accept}
  - name: wrong
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: drop}
"""
RESULT = RulesetResult(name="fw.nft", kernel="6.12", nft="1.1", watched="rules", texts={}, scenarios=())


class Here:
    """The session in this process."""

    measured = BatchSession.measured

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.asked: list[str] = []

    def answers(self, request: Any, _: Any) -> Iterator[Any]:
        self.asked.append(type(request).__name__)
        yield from measure.answers(request, lambda: self._tracer)

    def run(self, cases: Any, frames: Any) -> Iterator[Any]:
        from harness.batch.messages import AskedCases

        yield from self.answers(AskedCases.of(cases, frames), None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NFT_KERNEL", "host")
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/fw.yaml").write_text(SCENARIOS)
    (tmp_path / "scenarios/fw.nft").write_text(RULESET)
    return tmp_path


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Here]]:
    opened: list[Here] = []
    monkeypatch.setattr(survivors, "SIMULATED", 100)  # the controller's work, which is slow in a guest
    monkeypatch.setattr(survivors, "POOLED", 60)
    monkeypatch.setattr(survivors, "MORE", 4)
    monkeypatch.setattr("harness.mutate.known.cache_dir", lambda: project / "cache")  # nothing is known yet
    with Tracer(KernelCache(cache_dir())) as tracer:

        @contextmanager
        def session(*_: str) -> Iterator[Here]:
            opened.append(Here(tracer))
            yield opened[-1]

        monkeypatch.setattr("harness.batch.session.BatchSession.open", session)
        yield opened


def run(*arguments: str, **more: Any) -> RulesetResult:
    request = MutateRequest(selection=arguments or ("scenarios",), kernel="host", **more)
    (found,), failures = command.run(request, lambda _: None)
    assert not failures
    return found


def statuses(found: RulesetResult) -> dict[tuple[int, str], str]:
    return {(one.position.line if one.position else 0, one.name): one.status for one in found.mutants}


@pytest.mark.kernel
def test_a_whole_run_tells_what_is_guarded_and_a_second_one_knows_it(here: list[Here], project: Path) -> None:
    found = run("scenarios", save=project / "scenarios/more.yaml")
    seen = statuses(found)
    assert seen[6, "rule deleted"] == "killed"
    assert seen[6, "port off by one: tcp dport 22 → 23"] == "killed"
    assert seen[4, "policy turned: policy drop → accept"] == "killed"
    assert seen[7, "element removed: @web without 80"] == "killed"
    # The scenario for 443 is wrong, so nothing guards that element: a packet shows it.
    assert seen[7, "element removed: @web without 443"] == "survived"
    (survivor,) = (one for one in found.mutants if one.what == "@web without 443")
    assert survivor.witness is not None
    assert survivor.witness.sends[-1]["tcp"]["dport"] == 443
    assert survivor.witness.difference == "accept → drop"
    assert survivor.witness.confirmed == "functions"
    assert seen[6, "rules swapped: swapped with the rule after it"] == "equivalent"
    assert [one.split(": ")[0] for one in found.unused] == ["scenarios/fw.yaml::wrong"]
    # What was saved guards it, and only what is new is run.
    saved = [case.name for case in load_all(project / "scenarios/more.yaml").cases]
    assert any("dport 443" in name for name in saved)
    again = run("scenarios")
    assert statuses(again)[7, "element removed: @web without 443"] == "killed"
    assert "AskedStructure" not in here[-1].asked
    opened = len(here)
    assert statuses(run("scenarios")) == statuses(again)
    assert len(here) == opened, "all is known, so nothing was started"


@pytest.mark.kernel
def test_a_search_that_is_interrupted_keeps_what_it_found_and_is_done_again(
    here: list[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(survivors.Searching, "confirm", confirm)
        with pytest.raises(Interrupted) as interrupted:
            run("scenarios")
    (found,) = interrupted.value.results
    (shown,) = (one for one in found.mutants if one.what == "@web without 443")
    assert shown.witness is not None
    assert (shown.status, shown.witness.difference, shown.witness.confirmed) == ("survived", "accept → drop", "")
    # One that no packet has told yet is not called equivalent.
    assert statuses(found)[6, "rules swapped: swapped with the rule after it"] == "survived"
    said = output.text([found])
    assert "packet  not found yet: the search was interrupted" in said
    assert said.count("no packet was found yet for ") == 1
    again = run("scenarios")
    (shown,) = (one for one in again.mutants if one.what == "@web without 443")
    assert shown.witness is not None
    assert shown.witness.confirmed == "functions"
    assert statuses(again)[6, "rules swapped: swapped with the rule after it"] == "equivalent"
    assert "AskedMutants" not in here[-1].asked


@pytest.mark.kernel
def test_a_scenario_does_not_meet_what_the_one_before_it_has_used_up(here: list[Here], project: Path) -> None:
    """With a priority of the kernel's own the ruleset is not loaded anew in place."""
    (project / "scenarios/fw.nft").write_text(
        "table inet fw {\n\tchain forward {\n\t\ttype filter hook forward priority -400; policy drop;\n"
        "\t\ttcp dport 25 drop\n\t\tudp dport 53 quota until 60 bytes accept\n\t}\n}\n"
    )
    once = "send: {from: client, to: server, udp: {dport: 53}}, expect: {verdict: accept}"
    (project / "scenarios/fw.yaml").write_text(
        f"lab: router\nruleset: fw.nft\nscenarios:\n  - {{name: one, {once}}}\n  - {{name: other, {once}}}\n"
    )
    seen = statuses(run("scenarios"))
    assert seen[5, "rule deleted"] == "killed"
    assert seen[4, "rule deleted"] == "equivalent"


@pytest.mark.kernel
def test_of_more_mutants_than_asked_for_some_are_drawn_and_that_is_said(here: list[Here]) -> None:
    found = run("scenarios", mutants=5)
    assert len(found.mutants) + found.none == 5
    assert [one for one in found.left_out if one.startswith("5 of ") and "drawn by seed 1" in one]
    assert len(here) == 1


@pytest.mark.kernel
def test_of_a_large_ruleset_fewer_are_tested_and_packets_are_made_around_each_change(
    here: list[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruleset, "LISTED", 66)
    monkeypatch.setattr(survivors, "MANY", 2)
    said: list[str] = []
    request = MutateRequest(selection=("scenarios",), kernel="host")
    (found,), _ = command.run(request, said.append)
    assert len(found.mutants) + found.none == 22
    assert [one for one in said if re.match(r"  22 of \d+ mutants of 3 rules are tested, drawn by seed 1; ", one)]
    assert [one for one in found.left_out if one.startswith("22 of ")]
    shown = [one for one in found.mutants if one.status == "survived"]
    assert shown
    assert all(one.witness is not None and one.witness.confirmed == "functions" for one in shown)
    # A number that is asked for counts, whatever the size.
    more = run("scenarios", mutants=24)
    assert len(more.mutants) + more.none == 24


def test_arguments_that_pytest_refuses_and_selections_without_a_ruleset_are_sentences(project: Path) -> None:
    with pytest.raises(HarnessError, match=r"pytest could not collect the scenarios: Wrong expression passed to '-k'"):
        run("scenarios", "-k", "((")
    with pytest.raises(HarnessError, match="-k and -m leave out 4 scenarios, and none is left"):
        run("scenarios", "-k", "nobody")
    with pytest.raises(HarnessError, match=r"more\.txt is not called scenarios"):
        run("scenarios", save=project / "more.txt")
    (project / "scenarios/more.yaml").write_text("scenarios: [\n")
    with pytest.raises(HarnessError, match=r"scenarios/more\.yaml:2:1: a value is missing here"):
        run("scenarios", save=Path("scenarios/more.yaml"))
    with pytest.raises(HarnessError, match=r"no selected scenario loads other.nft.*they load scenarios/fw.nft"):
        run("scenarios", rulesets=("other.nft",))
    assert project.is_dir()


@pytest.mark.kernel
def test_scenarios_of_which_none_passes_are_said_before_any_mutant(here: list[Here], project: Path) -> None:
    with pytest.raises(
        HarnessError, match=r"the only scenario does not pass with scenarios/fw.nft as it is: .*::wrong: "
    ):
        run("scenarios", "-k", "wrong")
    assert here[-1].asked == ["AskedStructure", "AskedBaselines"]


def test_a_report_that_cannot_be_written_is_an_error_after_the_text(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run", lambda *_: command.Mutated([RESULT], []))
    arguments = ["--json", "/proc/nowhere.json", "--html", str(project / "scenarios")]
    assert main(["mutate", "scenarios", *arguments]) == 2
    said = capsys.readouterr()
    assert "mutation score none" in said.out
    assert "error: /proc/nowhere.json can't be written: " in said.err
    assert "scenarios can't be written: Is a directory" in said.err


def test_a_ruleset_that_this_kernel_cannot_load_leaves_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "scenarios/other.yaml").write_text(SCENARIOS.replace("fw.nft", "other.nft"))
    (project / "scenarios/other.nft").write_text(RULESET)
    said: list[str] = []

    class Refusing:
        is_begun = False

        def __init__(self, subject: Any, *_: Any, **__: Any) -> None:
            self.subject = subject

        def run(self) -> None:
            if self.subject.name == "scenarios/fw.nft" or everything:
                raise HarnessError("the kernel has no flowtables")

        def result(self, _: float) -> str:
            return str(self.subject.name)

    monkeypatch.setattr(command, "MutatedRuleset", Refusing)
    monkeypatch.setattr(command, "_described", lambda *_: "a kernel")
    everything = False
    found: Any = command.run(MutateRequest(selection=("scenarios",), kernel="host"), said.append)
    assert found.results == ["scenarios/other.nft"]
    assert found.failures == ["scenarios/fw.nft was not mutated: the kernel has no flowtables"]
    assert "  not done: the kernel has no flowtables" in said
    everything = True
    with pytest.raises(HarnessError, match=r"no ruleset could be mutated; scenarios/fw.nft was not mutated: the"):
        command.run(MutateRequest(selection=("scenarios",), kernel="host"), said.append)


def test_scenarios_that_cannot_be_saved_are_an_error_after_the_report(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Done:
        is_begun = False

        def __init__(self, subject: Any, *_: Any, **__: Any) -> None:
            self.subject = subject

        def run(self) -> None:
            pass

        def result(self, _: float) -> RulesetResult:
            return msgspec.structs.replace(RESULT, name=self.subject.name)

    def save(*_: object) -> None:
        raise HarnessError("more.yaml can't be written: No space left on device")

    monkeypatch.setattr(command, "MutatedRuleset", Done)
    monkeypatch.setattr(command, "_described", lambda *_: "a kernel")
    monkeypatch.setattr("harness.mutate.saving.save", save)
    assert main(["mutate", "scenarios", "--nft-kernel", "host", "--save", "scenarios/more.yaml"]) == 2
    said = capsys.readouterr()
    assert "scenarios/fw.nft" in said.out
    assert (
        "nft-harness: error: scenarios for scenarios/fw.nft were not saved: "
        "more.yaml can't be written: No space left on device\n" in said.err
    )


@pytest.mark.parametrize(("signal", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_pytest_selects_and_broken_scenarios_are_said(
    signal: BaseException, status: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "scenarios/fw.yaml").write_text(SCENARIOS + "  - name: broken\n    send: {}\n    expect: drop\n")
    chosen: list[list[str]] = []
    said: list[str] = []

    class Counting:
        is_begun = False

        def __init__(self, subject: Any, *_: Any, **__: Any) -> None:
            chosen.append([case.name for case in subject.cases])

        def run(self) -> None:
            raise signal

    monkeypatch.setattr(command, "MutatedRuleset", Counting)
    monkeypatch.setattr(command, "_described", lambda *_: "a kernel")
    with pytest.raises(Interrupted) as interrupted:
        command.run(MutateRequest(selection=("scenarios", "-k", "ssh or web or broken"), kernel="host"), said.append)
    assert chosen == [["ssh", "web"]]
    assert (interrupted.value.results, interrupted.value.status) == ([], status)
    assert [one for one in said if one.startswith("not used: scenarios/fw.yaml:17")]
