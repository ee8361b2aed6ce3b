"""What stands at the top level of a scenario file, and what no model may have: msgspec reads wrong memory for it."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import Meta

import harness

PATTERNED = Annotated[str, Meta(pattern="^a$")]
READS = """
import gc, sys
from pathlib import Path
from harness.model import layers
from harness.scenario.load import load_all

assert load_all(Path(sys.argv[1]), layers=layers.NAMES).cases
gc.collect()
"""


def structs(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for one in base.__subclasses__():
        yield one
        yield from structs(one)


def alternatives(kind: Any, metas: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each type that a value of ``kind`` may have, with what is annotated to it."""
    if get_origin(kind) is Annotated:
        yield from alternatives(kind.__origin__, metas + kind.__metadata__)
    elif get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from alternatives(one)
    else:
        yield kind, metas


def is_misread(kind: Any) -> bool:
    """Whether somewhere in ``kind`` a value may be a text with a pattern or a container."""
    choices = list(alternatives(kind))
    patterned = any(one is str and any(getattr(meta, "pattern", None) for meta in metas) for one, metas in choices)
    origins = [get_origin(one) for one, _ in choices]
    containers = any(isinstance(origin, type) and issubclass(origin, Collection) for origin in origins)
    inner = [arg for one, _ in choices for arg in get_args(one) if arg is not ...]
    return (patterned and containers) or any(map(is_misread, inner))


@pytest.mark.parametrize(
    ("kind", "misread"),
    [
        (PATTERNED | list[int], True),
        (dict[str, PATTERNED | int | Annotated[list[str], Meta(min_length=1)]], True),
        (list[tuple[PATTERNED | dict[str, int], ...]], True),
        (PATTERNED | int | None, False),
        (list[PATTERNED], False),
        (dict[PATTERNED, list[PATTERNED]], False),
        (str | list[PATTERNED], False),
    ],
)
def test_what_is_misread_is_found(kind: Any, misread: bool) -> None:
    assert is_misread(kind) is misread


def test_no_model_has_a_value_that_msgspec_misreads() -> None:
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if ".warm" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    models = [one for one in structs(msgspec.Struct) if one.__module__.startswith("harness.")]
    assert len(models) > 100
    for model in models:
        try:
            hints = get_type_hints(model, include_extras=True)
        except NameError:  # imported for type checking only: msgspec can't read such a model either
            continue
        for name, kind in hints.items():
            assert not is_misread(kind), f"{model.__module__}.{model.__qualname__}.{name}"


def test_a_garbage_collection_after_reading_scenarios_reads_no_wrong_memory(tmp_path: Path) -> None:
    (tmp_path / "t.nft").write_text("table ip t { }\n")
    (tmp_path / "t.yaml").write_text(
        "ruleset: t.nft\ndefines: {a: b, c: [d, 1]}\n"
        "scenarios: [{name: a, send: {from: client, to: server, icmp: {}}, expect: {verdict: accept}}]\n"
    )
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    done = subprocess.run(
        [sys.executable, "-c", READS, str(tmp_path / "t.yaml")], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
