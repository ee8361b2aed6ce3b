"""Functions by address."""

from __future__ import annotations

import pickle

import pytest

from harness.linux.modules import Module
from harness.tracer import symbols
from harness.tracer.base import BaseTracer
from harness.tracer.symbols import Symbols

TEXT = b"""\
ffffffff81000000 T _stext
ffffffff81000100 t kfree_skb
ffffffff81000180 d data
ffffffff81000200 W last
ffffffffc0001000 t bpf_prog_1_a\t[bpf]
ffffffffc0000000 t nft_do_chain\t[nf_tables]
"""
LATER = TEXT + b"ffffffffc0002000 t nft_late\t[late]\n"


def test_an_address_within_a_function_has_its_name() -> None:
    found = pickle.loads(pickle.dumps(Symbols(TEXT)))
    assert [found.name(one) for one in (0, 0xFFFFFFFF810001A0, 0xFFFFFFFFC0000008)] == ["", "kfree_skb", "nft_do_chain"]


def test_the_range_of_a_function_ends_where_the_next_begins() -> None:
    assert Symbols(TEXT).range("kfree_skb") == (0xFFFFFFFF81000100, 0xFFFFFFFF81000200)
    assert Symbols(TEXT).range("nft_do_chain") == (0xFFFFFFFFC0000000, 0xFFFFFFFFC0001000)
    assert Symbols(TEXT).range("no_such") == (0, 0)


def test_functions_far_apart_and_of_one_address_are_told_apart() -> None:
    text = b"""\
0000000000000000 A fixed_percpu_data
ffffffff80000000 T early
ffffffff81fffff0 t long
ffffffff83000000 t of_two_names
ffffffff83000000 T a_second_name
ffffffffa0000000 t of_a_module\t[one]
"""
    found = Symbols(text)
    assert found.name(0xFFFFFFFF82123456) == "long"
    assert found.name(0xFFFFFFFF83000010) == "a_second_name"
    assert found.name(0xFFFFFFFF81FFFFEF) == "early"
    assert found.name(0xFFFFFFFFFFFFFFFF) == "of_a_module"
    assert found.name(0x7FFFFFFFFFFFFFFF) == ""
    assert found.range("long") == (0xFFFFFFFF81FFFFF0, 0xFFFFFFFF83000000)
    assert found.range("of_a_module") == (0xFFFFFFFFA0000000, 0xFFFFFFFFFFFFFFFF)
    assert [found.know(one) for one in (0xFFFFFFFF80000000, 0xFFFFFFFF83000000)] == [True, True]
    assert not Symbols(text, [Module("no_such", 0xFFFFFFFFA0000000)]).know(0xFFFFFFFFA0000000)


def test_a_module_that_was_loaded_later_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = BaseTracer.__new__(BaseTracer)
    loaded = [Module("nf_tables", 0xFFFFFFFFC0000000)]
    texts = iter([TEXT, LATER])
    monkeypatch.setattr(symbols.Path, "read_bytes", lambda _: next(texts))
    monkeypatch.setattr(symbols.modules, "listed", lambda: tuple(loaded))
    monkeypatch.setattr(symbols, "_running", [])
    assert tracer.symbol(0xFFFFFFFF81000110) == "kfree_skb"
    loaded.append(Module("late", 0xFFFFFFFFC0002000))
    assert tracer.symbol(0xFFFFFFFF81000110) == "kfree_skb"  # not read again for that
    assert tracer.symbol(0xFFFFFFFFC0000010) == "nft_do_chain"  # nor for a module that was there
    assert tracer.symbol(0xFFFFFFFFC0002004) == "nft_late"
    assert tracer.symbol(0xFFFFFFFFC0002004) == "nft_late"


@pytest.mark.parametrize(
    "now",
    [
        pytest.param([Module("other", 0xFFFFFFFFC0000000)], id="another-module-in-its-place"),
        pytest.param([Module("nf_tables", 0xFFFFFFFFC0000000), Module("late", 0)], id="addresses-not-shown"),
        pytest.param([], id="unloaded"),
    ],
)
def test_an_address_whose_module_may_be_another_is_not_known(
    now: list[Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = all(module.address for module in now)
    then = Module("nf_tables", 0xFFFFFFFFC0000000 if shown else 0)
    found = Symbols(TEXT, [then])
    monkeypatch.setattr(symbols.modules, "listed", lambda: tuple([then, *now[1:]] if not shown else now))
    assert not found.know(0xFFFFFFFFC0000008)
    assert found.know(0xFFFFFFFF81000110)
