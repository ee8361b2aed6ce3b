"""The command: where it writes, and what it reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from harness.batch.saving import put_schema
from harness.errors import HarnessError
from harness.init.command import run
from harness.scenario import schema
from harness.scenario.files import rulesets
from tests.listings import facts


def test_a_file_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fw.nft").touch()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/fw.yaml").touch()
    with pytest.raises(HarnessError, match=r"scenarios/fw\.yaml already exists"):
        run([Path("fw.nft")], None, kernel="6.12", measure=False, progress=print)
    with pytest.raises(HarnessError, match="is not called scenarios/"):
        run([Path("fw.nft")], Path("fw.yaml"), kernel="6.12", measure=False, progress=print)
    with pytest.raises(HarnessError, match=r"none\.nft is neither a file nor a folder"):
        rulesets("fw.nft,none.nft")


def test_a_rule_without_a_packet_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.init.command.look", lambda *_: facts("gateway"))
    (tmp_path / "gateway.nft").touch()
    said: list[str] = []
    assert run([Path("gateway.nft")], None, kernel="6.12", measure=False, progress=said.append) == 1
    missing = [line for line in said if line.startswith("no scenario for ")]
    assert missing
    for line in missing:
        place, _, reason = line.removeprefix("no scenario for ").partition(": ")
        assert f"{place}:" not in reason, line
    written = (tmp_path / "scenarios/gateway.yaml").read_text()
    assert all(f"#   {line.removeprefix('no scenario for ')}\n" in written for line in missing)


def test_of_a_large_ruleset_rules_without_a_packet_are_named_and_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.init.command.look", lambda *_: facts("gateway"))
    monkeypatch.setattr("harness.init.command.EVALUATED_AT_MOST", 40)
    (tmp_path / "gateway.nft").touch()
    said: list[str] = []
    assert run([Path("gateway.nft")], None, kernel="6.12", measure=False, progress=said.append) == 1
    left_out = [line for line in said if line.endswith(": no packet was made for it, as the rulesets are large")]
    written = re.search(r"scenarios for (\d+) of (\d+) rules and policies$", said[-1])
    assert written
    assert 0 < int(written[1]) <= int(written[2]) - len(left_out) < int(written[2])


def test_a_file_without_a_base_chain_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = facts("gateway")
    chains = tuple(one for one in found.chains if not one.is_base)
    monkeypatch.setattr("harness.init.command.look", lambda *_: msgspec.structs.replace(found, chains=chains))
    (tmp_path / "part.nft").touch()
    with pytest.raises(HarnessError, match=r"part\.nft has no base chain, so no packet reaches its rules"):
        run([Path("part.nft")], None, kernel="6.12", measure=False, progress=print)


def test_the_schema_is_beside_a_new_file_and_named_by_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.init.command.look", lambda *_: facts("gateway"))
    (tmp_path / "gateway.nft").touch()
    run([Path("gateway.nft")], None, kernel="6.12", measure=False, progress=lambda _: None)
    first = (tmp_path / "scenarios/gateway.yaml").read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=scenario.schema.json"
    beside = tmp_path / "scenarios/scenario.schema.json"
    assert json.loads(beside.read_text()) == schema.schema()
    beside.write_text(json.dumps({"$id": schema.ID}))  # of another version
    put_schema(beside.parent)
    assert json.loads(beside.read_text()) == schema.schema()
    beside.write_text('{"mine": 1}')
    put_schema(beside.parent)
    assert beside.read_text() == '{"mine": 1}'


def test_an_interface_that_no_rule_names_is_added_where_a_rule_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.init.command.look", lambda *_: facts("guarded"))
    (tmp_path / "guarded.nft").touch()
    said: list[str] = []
    run([Path("guarded.nft")], None, kernel="6.12", measure=False, progress=said.append)
    assert "other0" in next(line for line in said if line.startswith("lab: "))
    assert not any('oifname "virbr0" reject' in line for line in said)
    written = (tmp_path / "scenarios/guarded.yaml").read_text()
    assert 'forward: oifname \\"virbr0\\" reject' in written
    assert "write steps with listen: and connect:" in written
