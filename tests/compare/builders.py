"""Values made by hand for tests of this room."""

from __future__ import annotations

from typing import Any

from harness.batch.messages import Effect, Effects, Loaded
from harness.compare.changes import Book, Change, compared
from harness.errors import Position
from harness.model.observation import Rule
from harness.model.result import Policy

FORWARD = ("inet", "t", "forward")


RULE, POLICY = (*FORWARD, 4), (*FORWARD, 0)


def book(file: str, text: str = "tcp dport 80 accept") -> Book:
    names = {"family": "inet", "table": "t", "chain": "forward"}
    rule = Rule(**names, handle=4, text=text, position=Position(file, 7, 3))
    policy = Policy(**names, hook="forward", verdict="drop", position=Position(file, 3, 3))
    return Book(Loaded(kernel="6.12", rules=(rule,), policies=(policy,)))


def effect(**values: Any) -> Effect:
    return Effect(**{"verdict": "accept", "decided": (RULE,), "met": (RULE,), **values})


DROPPED = effect(verdict="drop", decided=(POLICY,), met=(POLICY,))


BOOKS = book("old.nft"), book("new.nft")


def change(number: int, old: Effect, new: Effect, *, rules: bool = False, port: int = 80) -> Change | None:
    sends = ({"from": "client", "to": "server", "tcp": {"dport": port}},)
    about = number, sends, f"client → server tcp {port}"
    return compared(about, Effects(seen=(old,)), Effects(seen=(new,)), BOOKS, rules=rules)


def sure(found: Change | None) -> Change:
    assert found is not None
    return found
