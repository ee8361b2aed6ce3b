"""What counts repeated runs keeps the count over calls, and names what did not always end in the same way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from harness.model import result
from harness.model.result import Result
from harness.scenario.load import load_all
from tests import repeat
from tests.repeat import Ended, Part, Session

RAN = Session(commit="c", seed=1, each=1, fresh=False, began="", seconds=1.0, load=0.5, status=0)


def test_the_chosen_scenarios_are_there() -> None:
    for chosen in repeat.CHOSEN:
        file, _, name = chosen.partition("::")
        assert name in {case.id for case in load_all(Path(__file__).parents[1] / file).cases}, chosen
    assert len(set(repeat.CHOSEN)) == 20


def test_what_ends_otherwise_than_before_is_odd_and_kept() -> None:
    part = Part()
    assert part.add(RAN, [Ended("a", "passed"), Ended("b", "skipped"), Ended("c", "failed")]) == [Ended("c", "failed")]
    assert part.odd() == {"c": {"failed": 1}}
    assert part.add(RAN, [Ended("a", "passed"), Ended("b", "passed")]) == [Ended("b", "passed")]
    assert part.odd() == {"b": {"skipped": 1, "passed": 1}, "c": {"failed": 1, "missing": 1}}
    assert part.least() == 2


def test_repetitions_in_one_session_are_of_one_scenario() -> None:
    part = Part()
    each = msgspec.structs.replace(RAN, each=3)
    ended = [Ended(f"f.yaml::a[{number}]", "passed", "6.12") for number in (1, 2)]
    assert part.add(each, [*ended, Ended("f.yaml::a[3]", "error", "6.12")]) == [Ended("f.yaml::a[3]", "error", "6.12")]
    assert part.outcomes == {"f.yaml::a 6.12": {"passed": 2, "error": 1}}
    assert repeat.scenario(Ended("f.yaml::port[1]", "passed"), 1) == "f.yaml::port[1]"


@pytest.fixture
def sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_result: Callable[..., Result]
) -> list[tuple[tuple[str, ...], str]]:
    """What pytest was asked for; each session stores what passed, the third one an error."""
    asked: list[tuple[tuple[str, ...], str]] = []

    def session(options: Sequence[str], seed: str, folder: Path) -> subprocess.CompletedProcess[str]:
        asked.append((tuple(options), seed))
        broken = len(asked) == 3
        result.store([make_result("a"), make_result("b", outcome="error" if broken else "passed")], folder)
        return subprocess.CompletedProcess([], 6 if broken else 0, "said", "")

    monkeypatch.setattr(repeat, "session", session)
    monkeypatch.chdir(tmp_path)
    return asked


def test_calls_go_on_where_the_last_one_ended(
    sessions: list[tuple[tuple[str, ...], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert repeat.main(["--times", "2", "scenarios", "-n", "2"]) == 0
    assert len(sessions) == 2
    assert repeat.main(["--times", "4", "scenarios", "-n", "2"]) == 1
    assert [options for options, _ in sessions] == [
        ("scenarios", "-n", "2"),
        ("scenarios", "-n", "2", "--nft-fresh-labs"),
    ] * 2
    assert len({seed for _, seed in sessions}) == 4
    out = capsys.readouterr().out
    assert "| `scenarios -n 2` | 4 | 2 | 4 | 7 | 0 | 1 |" in out
    assert "scenarios/edge.yaml::b 6.12.1: 1 error, 3 passed" in out
    (story,) = Path("build/repeat/tally").iterdir()
    (stored,) = story.glob(f"*{result.SUFFIX}")
    assert result.decode(stored.read_bytes()).outcome == "error"
    assert (story / "output.txt").read_text() == "said"
    capsys.readouterr()
    assert repeat.main([]) == 1
    assert len(sessions) == 4
    assert capsys.readouterr().out in out


def test_other_options_are_counted_apart(
    sessions: list[tuple[tuple[str, ...], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert repeat.main(["--times", "1", "scenarios"]) == 0
    assert repeat.main(["--times", "1", "--each", "1", "--chosen", "-n", "2"]) == 0
    assert [options for options, _ in sessions] == [("scenarios",), (*repeat.CHOSEN, "-n", "2")]
    assert "| `--chosen -n 2` | 1 | 2 | 1 | 2 | 0 | 0 |" in capsys.readouterr().out


def test_a_session_that_dies_is_told(
    sessions: list[tuple[tuple[str, ...], str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repeat, "session", lambda *_: subprocess.CompletedProcess([], 3, "", "INTERNALERROR"))
    assert repeat.main(["--times", "1", "scenarios"]) == 1
    assert "no scenario ran" in capsys.readouterr().out
    (story,) = Path("build/repeat/tally").iterdir()
    assert (story / "output.txt").read_text() == "INTERNALERROR"


def test_no_session_begins_after_the_time_is_up(sessions: list[tuple[tuple[str, ...], str]]) -> None:
    assert repeat.main(["--times", "1", "--minutes", "0", "scenarios"]) == 0
    assert not sessions
