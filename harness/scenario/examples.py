"""Examples of the models as a scenario file would have them."""

from __future__ import annotations

import json
import re
from typing import Any

_PLAIN = re.compile(r"(?![0-9]+([.][0-9]*)?$|.*: |.*:$)[A-Za-z0-9][\w ./|:-]*")


def in_flow_style(value: Any) -> str:
    """``value``, of the types of JSON, as YAML on one line: ``{type: echo-request}``.

    Source: YAML 1.2.2, chapter 7.4.
    """
    match value:
        case dict():
            return "{" + ", ".join(f"{in_flow_style(key)}: {in_flow_style(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(in_flow_style, value)) + "]"
        case str() if _PLAIN.fullmatch(value) and value not in ("true", "false", "null"):
            return value
    return json.dumps(value)
