"""The reference of the language, docs/scenarios.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from harness.scenario import reference, schema

REPOSITORY = Path(__file__).parents[2]


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_committed_reference_is_fresh() -> None:
    assert (REPOSITORY / "docs/scenarios.md").read_text("utf-8") == reference.reference(), (
        "run: nft-harness schema --markdown > docs/scenarios.md"
    )


def test_the_example_of_the_reference_is_valid() -> None:
    Draft7Validator(schema.schema()).validate(read(reference.EXAMPLE))
