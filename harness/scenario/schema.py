"""The JSON Schema of the language, made from the models."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from harness.scenario.models import ScenarioFile

Schema = dict[str, Any]

# What the models cannot say and JSON Schema can. The rest (hosts, names of layers, addresses) only
# the loader knows: nft-harness check.
_BEYOND_MODELS: Schema = {
    "Scenario": {"oneOf": [{"required": ["send", "expect"]}, {"required": ["steps"]}]},
    "Expect": {"minProperties": 1},
    "Sees": {"minProperties": 1},
}


def schema() -> Schema:
    """The JSON Schema of a scenario file: draft 7, which editors understand."""
    (root,), components = msgspec.json.schema_components([ScenarioFile], ref_template="#/definitions/{name}")
    definitions = {name: {**_clean(node), **_BEYOND_MODELS.get(name, {})} for name, node in components.items()}
    file = definitions.pop(root["$ref"].rpartition("/")[2])
    return {"$schema": "http://json-schema.org/draft-07/schema#", **file, "definitions": definitions}


def as_json() -> str:
    """The schema as the text of ``harness/scenario.schema.json``."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _clean(node: Any) -> Any:
    """``node`` without nulls, which the language does not have, and fit for draft 7."""
    if isinstance(node, list):
        return [_clean(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: value if key in ("examples", "enum", "default") else _clean(value) for key, value in node.items()}
    if node.get("default", ...) is None:
        del node["default"]
    if "description" in node and isinstance(node["description"], str):
        node["description"] = " ".join(inspect.cleandoc(node["description"]).split())
    if "enum" in node:
        node["enum"] = [value for value in node["enum"] if value is not None]
    if "anyOf" in node:
        kinds = [kind for kind in node.pop("anyOf") if kind != {"type": "null"}]
        node = {**kinds[0], **node} if len(kinds) == 1 else {**node, "anyOf": kinds}
    # JSON Schema draft 7, section 8.3: what stands beside $ref is ignored.
    if "$ref" in node and len(node) > 1:
        node = {**{key: value for key, value in node.items() if key != "$ref"}, "allOf": [{"$ref": node["$ref"]}]}
    return node
