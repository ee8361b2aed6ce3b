from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def complexity() -> ModuleType:
    pytest.importorskip("radon", reason="radon is not installed")
    spec = importlib.util.spec_from_file_location("complexity", Path(__file__).with_name("complexity.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source(branches: int, docstring: str = "Nothing.", indent: str = "") -> str:
    lines = ["def one(x):", f'    """{docstring}"""', *(f"    if x == {n}: return {n}" for n in range(branches))]
    return "\n".join(indent + line for line in lines)


@pytest.mark.parametrize("wrap", ["", "class Some:\n", "def outer():\n", "class Some:\n    class Inner:\n"])
def test_a_function_above_is_found_wherever_it_stands(complexity: ModuleType, wrap: str) -> None:
    text = wrap + source(20, indent="    " * wrap.count(":"))
    assert [found for _, _, found in complexity.findings(text)].count(21) == 1


def test_one_that_is_not_above_is_none(complexity: ModuleType) -> None:
    assert not list(complexity.findings(source(19)))


def test_a_reason_in_the_docstring_is_one(complexity: ModuleType) -> None:
    assert not list(complexity.findings(source(30, "Nothing.\n\n    Complexity: one case for each number.\n    ")))
