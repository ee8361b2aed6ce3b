"""A packet that was asked about becomes a scenario of a file that then holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.batch import drafts, saving
from harness.batch.messages import Seen
from harness.errors import HarnessError
from harness.generate.lab import ChosenLab
from harness.model.node import LineColumn, Node
from harness.model.observation import Loss
from harness.model.result import Result
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.topology.builtin import LABS
from harness.topology.network import Network

Make = Callable[..., Result]
LAB = ChosenLab("router", {}, Network.of(LABS["router"]))
SEND = {"from": "client", "to": "server", "tcp": {"dport": 443}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "edge.nft").touch()
    (tmp_path / "scenarios").mkdir()
    return tmp_path


def save(make_result: Make, path: str = "scenarios/edge.yaml", *, loss: Loss | None = None) -> str:
    case = drafts.case(LAB, [Path("edge.nft")], "packet", [Node.of({"send": SEND}, LineColumn(1, 1))])
    result = make_result()
    (sent,) = result.sent
    observation = msgspec.structs.replace(sent.observation, loss=loss or sent.observation.loss)
    assert result.ruleset is not None
    seen = Seen(
        name="packet",
        kernel="6.12",
        sent=(msgspec.structs.replace(sent, observation=observation),),
        rules=result.ruleset.rules,
    )
    return saving.save(Path(path), "HTTPS", case, seen, LAB)


def test_a_file_is_begun_with_its_schema_beside_it(folder: Path, make_result: Make) -> None:
    assert save(make_result) == "scenarios/edge.yaml: begun with the scenario 'HTTPS'"
    (case,) = load(folder / "scenarios/edge.yaml")
    assert isinstance(case, Case)
    assert case.actions[0].expect.verdict == "accept"  # type: ignore[union-attr]
    assert (folder / "scenarios/scenario.schema.json").exists()


def test_another_is_appended_under_a_name_of_its_own(folder: Path, make_result: Make) -> None:
    save(make_result)
    before = (folder / "scenarios/edge.yaml").read_text()
    assert save(make_result) == "scenarios/edge.yaml: now has the scenario 'HTTPS (2)'"
    text = (folder / "scenarios/edge.yaml").read_text()
    assert text.startswith(before)
    assert [case.name for case in load(folder / "scenarios/edge.yaml")] == ["HTTPS", "HTTPS (2)"]


IN_ONE_LINE = f"""\
ruleset: ../edge.nft
lab: router
scenarios: [{{name: web, send: {SEND}, expect: {{verdict: drop}}}}]
"""
OF_ANOTHER_LAB = """\
lab: host
ruleset: ../edge.nft
scenarios:
- name: a
  send: {from: client, to: device, icmp: {}}
  expect: {verdict: accept}
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (IN_ONE_LINE, "has no list of scenarios that can be added to"),
        (OF_ANOTHER_LAB, ""),
    ],
)
def test_a_file_of_another_lab_gets_the_lab_and_one_of_another_form_is_left_alone(
    folder: Path, make_result: Make, text: str, why: str
) -> None:
    file = folder / "scenarios/edge.yaml"
    file.write_text(text)
    if why:
        with pytest.raises(HarnessError, match=why):
            save(make_result)
        assert file.read_text() == text
    else:
        save(make_result)
        assert file.read_text().startswith(text)
        assert "lab: router" in file.read_text()


def test_what_pytest_would_not_take_is_refused(folder: Path, make_result: Make) -> None:
    with pytest.raises(HarnessError, match=r"other/edge\.yaml is not called scenarios/\*\.yaml"):
        save(make_result, "other/edge.yaml")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"scenarios: [\n", "edge.yaml:2:1: a value is missing here"),
        (b"lab: [1\n", "edge.yaml:1:6: the ']' that closes this is missing"),
        (b"- x\n", "edge.yaml:1:1: must be a mapping, not a list"),
        (b"", "edge.yaml: is empty"),
        (b"\tlab: router\n", "edge.yaml:1:1: a tab cannot indent"),
        (b"lab: router\nlab: router\n", "edge.yaml:2:1: 'lab' occurs twice"),
        (b"lab: \xff\n", "edge.yaml:1:6: byte 0xff is not UTF-8"),
        (None, "edge.yaml cannot be read: is a directory"),
    ],
)
def test_a_file_in_which_something_is_wrong_is_refused_with_the_place(
    folder: Path, content: bytes | None, sentence: str
) -> None:
    file = folder / "scenarios/edge.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(HarnessError) as refused:
        saving.existing(Path("scenarios/edge.yaml"))
    assert sentence in str(refused.value)


def test_of_a_file_that_can_be_added_to_the_names_are_known(folder: Path) -> None:
    file = folder / "scenarios/edge.yaml"
    assert saving.existing(file)[1:] == (None, set())
    file.write_text(IN_ONE_LINE)
    assert saving.existing(file)[1:] == (IN_ONE_LINE, {"web"})
