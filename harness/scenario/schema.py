"""The JSON Schema of the language, made from the models."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from harness.scenario.models.actions import KINDS, SENDS
from harness.scenario.models.file import ScenarioFile

Schema = dict[str, Any]

ID = "urn:nft-harness:scenario"
"""Of the schema: a name, not an address, as it is a part of the installed package."""

# What the models cannot say and JSON Schema can. The rest (hosts, names of layers, addresses) only
# the loader knows: nft-harness check.
_BEYOND_MODELS: Schema = {
    "Scenario": {"oneOf": [{"required": ["send", "expect"]}, {"required": ["steps"]}]},
    "ActionSpec": {
        "oneOf": [
            {"required": [key]} if key in SENDS else {"required": [key], "not": {"required": ["expect"]}}
            for key in KINDS
        ]
    },
    "Expect": {"minProperties": 1},
    "Sees": {"minProperties": 1},
}


_PARAMETER: Schema = {"type": "string", "pattern": r"^\$[A-Za-z_]\w*$"}
"""``$name``, which ``each`` and ``matrix`` replace by a value of any kind."""


def schema() -> Schema:
    """The JSON Schema of a scenario file: draft 7, which editors understand."""
    whole = models()
    inside = {name: _with_parameters(node) for name, node in whole["definitions"].items()}
    return {**whole, "definitions": inside}


def models() -> Schema:
    """The same without parameters, as the models say it."""
    (root,), components = msgspec.json.schema_components([ScenarioFile], ref_template="#/definitions/{name}")
    definitions = {name: {**_clean(node), **_BEYOND_MODELS.get(name, {})} for name, node in components.items()}
    file = definitions.pop(root["$ref"].rpartition("/")[2])
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$id": ID, **file, "definitions": definitions}


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


def _with_parameters(node: Schema) -> Schema:
    """``node``, a definition, with a parameter allowed for each value of it that is not text anyway."""

    def allow(value: Schema) -> Schema:
        outer: Schema = {key: value[key] for key in ("description", "examples", "default") if key in value}
        inner = {key: one for key, one in value.items() if key not in outer}
        if "items" in inner:
            inner["items"] = allow(inner["items"])
        if "additionalProperties" in inner and isinstance(inner["additionalProperties"], dict):
            inner["additionalProperties"] = allow(inner["additionalProperties"])
        if not inner or inner == {"type": "string"}:
            return {**outer, **inner}
        kinds = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
        return {**outer, "anyOf": [*kinds, _PARAMETER]}

    properties = {
        key: value if key in ("name", "each", "matrix") else allow(value) for key, value in node["properties"].items()
    }
    return {**node, "properties": properties}
