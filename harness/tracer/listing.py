"""The functions of a kernel as a table, as JSON and as configuration: ``nft-harness discover``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase

import msgspec

from harness.errors import HarnessError
from harness.model import layers
from harness.text import counted
from harness.tracer.discover import Function, Functions, Untraceable


def select(functions: Functions, *, layer: str | None, priority: int | None, match: str | None) -> Functions:
    """Functions of one layer, of ``priority`` or more important, whose name matches the glob ``match``; None is all.

    Raises :class:`HarnessError` when there is no such layer, or no function at all is left.
    """
    if layer is not None and layer not in (*layers.NAMES, layers.UNKNOWN):
        near = get_close_matches(layer.title(), layers.NAMES, 1) or layers.NAMES
        raise HarnessError(f"there is no layer {layer!r}", remedy=f"use {' or '.join(near)}")

    def wanted(function: Function | Untraceable) -> bool:
        place = layers.classify(function.name)
        return (
            layer in (None, place.layer)
            and (priority is None or place.priority <= priority)
            and (match is None or fnmatchcase(function.name, match))
        )

    chosen = Functions(
        tuple(function for function in functions.traceable if wanted(function)),
        tuple(function for function in functions.untraceable if wanted(function)),
    )
    if not chosen.traceable and not chosen.untraceable:
        near = functions.near(match.strip("*")) if match else []
        raise HarnessError(
            f"no function that takes a packet {f'matches {match!r}' if match else 'is of this layer and priority'}",
            remedy=f"did you mean {', '.join(near)}?" if near else "nft-harness discover lists all",
        )
    return chosen


def to_json(functions: Functions) -> bytes:
    """``{"traceable": [...], "untraceable": [...]}``, one member a line."""
    return msgspec.json.format(msgspec.json.encode(functions)) + b"\n"


def most_informative(functions: Iterable[Function], most: int | None = None) -> list[Function]:
    """The ``most`` functions that are most informative about a packet's path, or all, the best first.

    Ordered by priority; within one, Netfilter first, because it decides, then all layers in turn, so that no part of
    the path is left out. Within a layer functions with short names come first: they are its entries and exits.
    """
    places: Counter[tuple[int, str]] = Counter()

    def rank(function: Function) -> tuple[int, int, bool]:
        places[function.priority, function.layer] += 1
        place = 0 if function.layer == "Netfilter" else places[function.priority, function.layer]
        return function.priority, place, function.layer != "Netfilter"

    by_name = sorted(functions, key=lambda function: (function.name.startswith("__"), len(function.name)))
    return sorted(by_name, key=rank)[:most]


def config(functions: Functions, most: int | None = None) -> bytes:
    """A file for ``nft-harness trace --config``: ``{"functions": [...]}`` with the ``most`` best ones, or all."""
    chosen_functions = most_informative(functions, most)
    return msgspec.json.format(msgspec.json.encode({"functions": chosen_functions})) + b"\n"


def to_lines(functions: Functions) -> Iterator[str]:
    """A table in the order of the layers, then untraceable functions with reasons, then totals."""
    order = {layer: number for number, layer in enumerate(layers.NAMES)}

    def rank(function: Function) -> tuple[int, int, str]:
        return order.get(function.layer, len(order)), function.priority, function.name

    yield f"{'LAYER':12}{'PRIORITY':10}{'ARGUMENT':18}{'MODULE':18}FUNCTION"
    for function in sorted(functions, key=rank):
        argument = f"{function.position + 1}: {function.carries}"
        yield f"{function.layer:12}{function.priority:<10}{argument:18}{function.module:18}{function.kernel_name}"
    for missing in sorted(functions.untraceable, key=lambda function: function.name):
        yield f"not traceable: {missing.name}: {missing.reason}"
    yield f"{counted(len(functions), 'function')} can be traced, {len(functions.untraceable)} can't"
