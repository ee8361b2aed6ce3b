"""Every file of broken/ is wrong; the .txt beside it is what its author reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.scenario.load import load, load_all
from harness.scenario.problems import problems

FILES = sorted(Path(__file__).with_name("broken").glob("*.yaml"))
LAYERS = ("Device", "IPv4", "Netfilter", "Routing", "Xmit")


def reported(path: Path) -> str:
    return "".join(f"{error}\n" for error in problems(path, layers=LAYERS))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_what_the_author_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    expected = path.with_suffix(".txt").read_text("utf-8").replace("PROJECT", str(Path(__file__).parents[2]))
    assert reported(Path(path.name)) == expected


def test_there_are_enough() -> None:
    assert len(FILES) >= 100


def test_a_missing_file(tmp_path: Path) -> None:
    assert reported(tmp_path / "edge.yaml") == f"{tmp_path}/edge.yaml: cannot be read: no such file or directory\n"
    with pytest.raises(ScenarioError, match="cannot be read: is a directory"):
        load(tmp_path)


def test_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_bytes(b"# " + b"x" * (1 << 20))
    assert reported(path) == f"{path}: is larger than 1 MiB; split it\n"


def test_a_file_of_mistakes_ends(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    (tmp_path / "edge.nft").touch()
    path.write_text("ruleset: edge.nft\nscenarios:\n" + "  - {nam: x}\n" * 5000)
    assert reported(path).startswith(f"{path}:1:1: has more than 100 mistakes; repair these first\n")
    assert len(problems(path)) == 101


def test_a_wrong_scenario_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()
    path = tmp_path / "edge.yaml"
    good = "  - {name: %s, send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}}\n"
    path.write_text("ruleset: edge.nft\nscenarios:\n" + good % "a" + "  - {name: b, marks: [slow]}\n" + good % "c")
    one, broken, three = load(path)
    assert (one.id, broken.id, three.id) == ("a", "b", "c")
    assert broken.marks == ("slow",)
    assert str(broken.errors[0]).startswith(f"{path}:4:5: sends nothing")
    assert broken.position == (str(path), 4, 5)
    assert three.where(0, "send") == (str(path), 5, 21)


def test_a_wrong_file_stops_all(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text("ruleset: edge.nft\nscenarios: [{name: a}]\n")
    with pytest.raises(ScenarioError, match=r"edge\.yaml:1:10: ruleset: 'edge\.nft' does not exist"):
        load(path)
    assert not load_all(path).cases


def test_hostile_keys_and_paths(tmp_path: Path) -> None:
    """Nothing written in a file gets into the reading of msgspec's messages, or out as a traceback."""
    (tmp_path / "circle.nft").symlink_to("circle.nft")
    (tmp_path / "edge.nft").touch()
    path = tmp_path / "edge.yaml"
    path.write_text("""\
"x - at $.scenarios.foo": 1
"$[9]": 1
"a\\nb": 1
ruleset: edge.nft
scenarios: [{name: a, "key in $.lab": 1}]
""")
    assert [error.position.line for error in problems(path)] == [1, 2, 3, 5]
    path.write_text("'x` - at `$.scenarios.foo': 1\n")
    assert reported(path) == f"{path}:1:1: a key cannot hold a '`'\n"
    for ruleset in ("circle.nft", "x" * 5000):
        path.write_text(f"ruleset: {ruleset}\nscenarios: [{{name: a}}]\n")
        words = "cannot be a path; name an nft file or a folder of them, relative to the scenario file"
        assert reported(path) == f"{path}:1:10: ruleset: {words}\n"


def test_two_scenarios_of_one_line_and_name(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()
    path = tmp_path / "edge.yaml"
    one = "{name: a, send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}}"
    path.write_text(f"ruleset: edge.nft\nscenarios: [{one}, {one}]\n")
    assert reported(path) == f"{path}:2:102: name: the scenario in line 2 has the same name\n"
