"""Examples as YAML on one line."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from harness.scenario.examples import in_flow_style


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"type": "echo-request"}, "{type: echo-request}"),
        ({"src": ["192.0.2.1", "443"], "ttl": 1}, '{src: [192.0.2.1, "443"], ttl: 1}'),
        ({"from": "true", "to": "a: b", "x": None}, '{from: "true", to: "a: b", x: null}'),
    ],
)
def test_is_read_as_what_it_was(value: Any, written: str) -> None:
    assert in_flow_style(value) == written
    assert YAML(typ="safe", pure=True).load(written) == value


@pytest.mark.parametrize(
    "value", ["client", "10.0.2.1/24", "client:eth0", "02:00:00:00:00:01", "443", "1.5", "a: b", "é"]
)
def test_a_text_is_read_as_a_text(value: str) -> None:
    assert YAML(typ="safe", pure=True).load(f"[{in_flow_style(value)}]") == [value]
