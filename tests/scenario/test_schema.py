from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from harness.scenario import schema

REPOSITORY = Path(__file__).parents[2]
SHIPPED = sorted((REPOSITORY / "scenarios").glob("*.yaml"))


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_committed_schema_is_fresh() -> None:
    assert (REPOSITORY / "harness/scenario.schema.json").read_text("utf-8") == schema.as_json(), (
        "run: nft-harness schema > harness/scenario.schema.json"
    )


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items():
            yield f"{path}.{name}", value
        for key, value in node.items():
            if key not in ("examples", "default"):
                yield from properties(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from properties(value, path)


@pytest.mark.parametrize(("path", "node"), list(properties(schema.schema())))
def test_every_key_is_described_with_an_example_that_is_right(path: str, node: dict[str, Any]) -> None:
    assert node["description"].endswith(".")
    whole = schema.schema()
    validator = Draft7Validator({**node, "definitions": whole["definitions"]})
    assert node["examples"]
    for example in node["examples"]:
        validator.validate(example)


def test_it_is_a_schema_of_draft_7() -> None:
    Draft7Validator.check_schema(schema.schema())
    assert "null" not in json.dumps(schema.schema())


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_the_shipped_scenarios_are_valid(path: Path) -> None:
    Draft7Validator(schema.schema()).validate(read(path.read_text("utf-8")))


@pytest.mark.parametrize("name", ["unknown-key", "verdict", "no-port", "expects-nothing", "empty-expect", "bad-mac"])
def test_what_an_editor_can_know_is_wrong(name: str) -> None:
    text = (Path(__file__).with_name("broken") / f"{name}.yaml").read_text("utf-8")
    assert not Draft7Validator(schema.schema()).is_valid(read(text))
