"""YAML files that are not taken are named in pytest's header."""

from __future__ import annotations

import pytest

from harness.pytest_plugin.selection import header, project, scenario_files

pytest_plugins = ["pytester"]
SCENARIO = "ruleset: edge.nft\nscenarios:\n  - {send: {from: client}, expect: {verdict: drop}}\n"


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\n")
    for name in ("scenarios/edge.yaml", "other/web.yaml", "other/mail.yaml", "other/dns.yaml", "other/ntp.yaml"):
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(SCENARIO)
    (pytester.path / "scenarios/manifest.yaml").write_text("kind: ConfigMap\n")
    return pytester


def test_the_files_of_a_session_and_those_left_alone(folder: pytest.Pytester) -> None:
    config = folder.parseconfig()
    assert [path.name for path in scenario_files(config).files] == ["edge.yaml"]
    left, elsewhere = header(config)
    assert left == "nft-harness: skipped: not scenario files: scenarios/manifest.yaml"
    assert elsewhere.startswith("nft-harness: not taken, for they are not below a folder scenarios (name them, or set")
    assert elsewhere.endswith("and 1 more (-v lists them)")


def test_all_are_named_with_v(folder: pytest.Pytester) -> None:
    _, elsewhere = header(folder.parseconfig("-v"))
    assert all(f"other/{name}.yaml" in elsewhere for name in ("web", "mail", "dns", "ntp"))


def test_a_header_without_any_says_nothing(pytester: pytest.Pytester) -> None:
    assert header(pytester.parseconfig()) == []


def test_settings_of_the_command_line_count(folder: pytest.Pytester) -> None:
    config = folder.parseconfig("-o", "nft_files=other/*.yaml")
    assert {path.name for path in scenario_files(config).files} == {"web.yaml", "mail.yaml", "dns.yaml", "ntp.yaml"}
    assert project(config).root == folder.path


def test_settings_that_cannot_be_read_end_the_session(folder: pytest.Pytester) -> None:
    config = folder.parseconfig()
    (folder.path / "tox.ini").unlink()
    (folder.path / "pyproject.toml").write_text("[tool.pytest\n")
    with pytest.raises(pytest.UsageError, match=r"nft-harness: .*pyproject\.toml: cannot be read"):
        project(config)
