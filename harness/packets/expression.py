"""A packet as a scapy expression, read and never evaluated: ``IP(dst="10.0.2.2")/TCP(dport=[80, 443])``.

Python's parser gives the syntax tree; what of it stands for layers and plain values is taken over,
and everything else refused with its place. Nothing is looked up here, neither layers nor fields:
:mod:`harness.packets.long` knows those.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from harness.bounds import EXPRESSION_BYTES
from harness.model.problem import Problem
from harness.untrusted import syntax_tree

MAX_CHARACTERS = 4096
MAX_LAYERS = 32
MAX_DEPTH = 8
"""Layers in values of layers, lists in lists."""
MAX_BYTES = 65535
"""A text or byte string, repeated by its factor."""
MAX_NUMBER = 1 << 128
"""An IPv6 address as a number is the largest that a field takes."""


Counted = TypeVar("Counted")


class Layer(NamedTuple):
    """``TCP(dport=443)``."""

    name: str
    fields: Mapping[str, FieldValue]
    offset: int
    """Where it begins in the expression, in characters."""


class FieldValue(NamedTuple):
    """``dport=443``."""

    value: object
    """An int, float, str, bytes or None; a list or tuple of values; a :class:`Stack` of layers."""
    key: int
    """Where its name stands; the value's place if it has none."""
    offset: int
    """Where its value begins."""


class Stack(NamedTuple):
    """``IP()/TCP()``: layers from the outermost to the innermost."""

    layers: tuple[Layer, ...]


def parse(text: str) -> Stack:
    """The layers that ``text`` is made of.

    Raises :class:`~harness.model.problem.Problem`, with the place in ``text``, for anything that
    is not made of layers and plain values.
    """
    if len(text) > MAX_CHARACTERS:
        raise Problem(f"has {len(text):,} characters, and {MAX_CHARACTERS:,} is the limit")
    source = text.replace("\n", " ").rstrip()  # one line, and every place stays
    start = len(source) - len(source.lstrip())
    try:
        tree = syntax_tree(source[start:], "eval")
        assert isinstance(tree, ast.Expression)
    except SyntaxError as error:
        raise Problem(f"is not a packet: {_words(error)}", offset=start + max((error.offset or 1) - 1, 0)) from None
    except (ValueError, MemoryError, RecursionError):  # a null character, thousands of signs or brackets
        raise Problem("is not a packet", remedy="write layers, as in IP()/TCP(dport=443)") from None
    return _Reader(source, start).stack(tree.body, 0)


class _Reader:
    """From the syntax tree to layers; ``start`` characters stand before what was parsed."""

    def __init__(self, source: str, start: int) -> None:
        self._bytes = source[start:].encode()
        self._texts = 0
        self._start = start

    def stack(self, node: ast.expr, depth: int) -> Stack:
        """Layers joined by ``/``."""
        parts: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts.append(node.right)
            node = node.left
        parts.append(node)
        if len(parts) > MAX_LAYERS:
            raise self.problem(f"has {len(parts)} layers, and {MAX_LAYERS} is the limit", node)
        return Stack(tuple(layer for part in reversed(parts) for layer in self.layers(part, depth)))

    def layers(self, node: ast.expr, depth: int) -> Iterator[Layer]:
        """A layer; or text or bytes, which are a layer Raw; or several in brackets."""
        if isinstance(node, ast.Call):
            yield self.layer(node, depth)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            if depth >= MAX_DEPTH:
                raise self.problem(f"is nested more than {MAX_DEPTH} deep", node)
            yield from self.stack(node, depth + 1).layers
        elif isinstance(load := self.value(node, depth), str | bytes):
            yield Layer("Raw", {"load": FieldValue(load, self.place(node), self.place(node))}, self.place(node))
        else:
            raise self.problem("is not a layer", node, "write its name and its fields, as in TCP(dport=443)")

    def layer(self, node: ast.Call, depth: int) -> Layer:
        """A name with fields in round brackets."""
        if not isinstance(node.func, ast.Name):
            raise self.problem("calls something that is not a layer", node)
        name = node.func.id
        fields: dict[str, FieldValue] = {}
        for argument in node.args:
            if name != "Raw" or len(node.args) > 1 or isinstance(argument, ast.Starred):
                remedy = f"as in {name}(…=…)" if name != "Raw" else 'as in Raw("text")'
                raise self.problem(f"{name} is given a value without a field's name", argument, remedy)
            fields["load"] = FieldValue(self.value(argument, depth + 1), self.place(argument), self.place(argument))
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.problem("'**' has no meaning here", keyword.value, "write each field with its value")
            if keyword.arg in fields:
                raise self.problem(f"{name}.{keyword.arg} is given twice", keyword.value)
            value = self.value(keyword.value, depth + 1)
            fields[keyword.arg] = FieldValue(value, self.place(keyword), self.place(keyword.value))
        return Layer(name, fields, self.place(node))

    def value(self, node: ast.expr, depth: int) -> object:
        """What may stand behind ``=``."""
        if depth > MAX_DEPTH:
            raise self.problem(f"is nested more than {MAX_DEPTH} deep", node)
        match node:
            case ast.Constant(value=value):
                if isinstance(value, int) and value >= MAX_NUMBER:
                    raise self.problem("is a larger number than any field takes", node)
                if isinstance(value, bool) or not isinstance(value, int | float | str | bytes | None):
                    raise self.problem(f"{ast.unparse(node)} is not a value for a field", node)
                return self.counted(value, node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                return self.repeated(node, left, right)
            case ast.List(elts=elements):
                return [self.value(element, depth + 1) for element in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.value(element, depth + 1) for element in elements)
            case ast.Call():
                return Stack((self.layer(node, depth),))
            case ast.BinOp(op=ast.Div()):
                return self.stack(node, depth)
        raise self.problem(_refusal(node), node, "a packet is made of layers, numbers, texts, bytes, lists and ranges")

    def repeated(self, node: ast.expr, left: ast.expr, right: ast.expr) -> str | bytes:
        """``"A" * 100``."""
        match left, right:
            case ast.Constant(value=str() | bytes() as text), ast.Constant(value=int() as times):
                pass
            case ast.Constant(value=int() as times), ast.Constant(value=str() | bytes() as text):
                pass
            case _:
                raise self.problem("'*' repeats a text or bytes, and nothing else", node)
        if isinstance(times, bool) or len(text) * times > MAX_BYTES:
            raise self.problem(f"is longer than {MAX_BYTES:,} bytes, the longest packet", node)
        return self.counted(text * times, node)

    def counted(self, value: Counted, node: ast.expr) -> Counted:
        """``value``; all texts together have a limit."""
        self._texts += len(value) if isinstance(value, str | bytes) else 0
        if self._texts > EXPRESSION_BYTES:
            raise self.problem(f"its texts have more than {EXPRESSION_BYTES:,} bytes together", node)
        return value

    def place(self, node: ast.expr | ast.keyword) -> int:
        """Where ``node`` begins, in characters; the tree counts bytes."""
        return self._start + len(self._bytes[: node.col_offset].decode())

    def problem(self, sentence: str, node: ast.expr, remedy: str = "") -> Problem:
        return Problem(sentence, remedy=remedy, offset=self.place(node))


_KINDS: Mapping[type[ast.expr], str] = {
    ast.Name: "a name",
    ast.Attribute: "an attribute",
    ast.Subscript: "an index",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.Lambda: "a function",
    ast.IfExp: "a condition",
    ast.Starred: "a '*' before a value",
    ast.Dict: "a mapping",
    ast.Set: "a set",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.BinOp: "a calculation",
    ast.BoolOp: "a calculation",
    ast.UnaryOp: "a calculation",
    ast.Compare: "a comparison",
}


def _refusal(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return f"'{node.id}' is a name, and only layers and their fields have names here"
    return f"{_KINDS.get(type(node), 'this')} has no meaning here: it is not evaluated"


def _words(error: SyntaxError) -> str:
    """Python's words, without its advice to programmers."""
    said = error.msg.partition(". ")[0].partition(", maybe")[0].removeprefix("invalid syntax").lstrip(". ")
    return said or "a bracket, comma or '/' is missing or superfluous"
