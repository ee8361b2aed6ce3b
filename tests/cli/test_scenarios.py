"""``nft-harness check`` and ``nft-harness schema``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.cli import main

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.usefixtures("reads_rulesets")
def test_check_says_what_it_found_right(capsys: pytest.CaptureFixture[str]) -> None:
    folder = REPOSITORY / "scenarios"
    assert main(["check", "--nft-program", "host", str(folder)]) == 0  # an image's may not be there yet
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"{len(list(folder.glob('*.yaml')))} files, \d+ scenarios OK\n", out)
    assert not err


@pytest.mark.usefixtures("reads_rulesets")
def test_check_tells_all_mistakes_of_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenarios/more").mkdir(parents=True)
    Path("scenarios/more/b.yml").write_text("ruleset: edge.nft\n")
    Path("a.yaml").write_text("- a\n")
    Path("scenarios/more/notes.txt").write_text("- a\n")
    assert main(["check", "--nft-program", "host", "a.yaml", "scenarios", "missing.yaml"]) == 1
    out, err = capsys.readouterr()
    places = [line.partition(": ")[0] for line in out.splitlines()]
    assert places == ["a.yaml:1:1", "scenarios/more/b.yml:1:1", "scenarios/more/b.yml:1:10", "missing.yaml"]
    assert not err


def test_check_knows_the_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edge.nft").touch()
    (tmp_path / "edge.yaml").write_text("""\
ruleset: edge.nft
scenarios:
  - name: a ping
    send: {from: client, to: server, icmp: {}}
    expect: {layers: [IPv4, Netfiler]}
""")
    assert main(["check", str(tmp_path / "edge.yaml")]) == 1
    assert capsys.readouterr().out == (
        f"{tmp_path}/edge.yaml:5:29: expect.layers[1]: 'Netfiler' is not a layer; did you mean 'Netfilter'?\n"
    )


def test_check_of_a_folder_without_scenarios_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().out == (
        f"{tmp_path}: has no scenario file, that is, none that matches scenarios/*.yaml scenarios/*.yml; "
        "name the file, or set nft_files in the project's pytest settings\n"
    )


def test_schema_prints_what_is_committed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "harness/scenario.schema.json").read_text("utf-8")
    assert main(["schema", "--markdown"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "docs/scenarios.md").read_text("utf-8")
