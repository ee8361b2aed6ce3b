"""Packets as scapy expressions: what is read, and that nothing is run."""

from __future__ import annotations

from contextlib import suppress

import pytest

from harness.model.problem import Problem
from harness.packets.expression import MAX_CHARACTERS, Stack, parse


def values(text: str) -> dict[str, object]:
    """The fields of the first layer."""
    return {name: field.value for name, field in parse(text).layers[0].fields.items()}


def test_layers_from_the_outermost_in() -> None:
    assert [layer.name for layer in parse('IP()/TCP(dport=80)/"GET /"').layers] == ["IP", "TCP", "Raw"]
    assert [layer.name for layer in parse("Ether()/(IP()/UDP())/b'x'").layers] == ["Ether", "IP", "UDP", "Raw"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("443", 443),
        ("0x1bb", 443),
        ("-1", -1),
        ('"S"', "S"),
        ("b'\\x01'", b"\x01"),
        ("None", None),
        ("[80, (1, 3)]", [80, (1, 3)]),
        ('"ab" * 3', "ababab"),
        ("2 * b'ab'", b"abab"),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    assert values(f"TCP(x={text})") == {"x": value}


def test_a_layer_in_a_field() -> None:
    value = values('DNS(qd=DNSQR(qname="a")/"x")')["qd"]
    assert isinstance(value, Stack)
    assert [layer.name for layer in value.layers] == ["DNSQR", "Raw"]


def test_places_count_characters() -> None:
    layer = parse("IP()/Raw(load='é')/TCP( dport=80)").layers[-1]
    assert (layer.offset, layer.fields["dport"].key, layer.fields["dport"].offset) == (19, 24, 30)


def test_a_text_of_several_lines_is_one_expression() -> None:
    assert [layer.name for layer in parse("IP()/\n  TCP()\n").layers] == ["IP", "TCP"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "#",
        "IP()\0",
        "(" * 500,
        "-" * 4000 + "1",
        "IP()/" * 800 + "IP()",
        "[" * 90 + "]" * 90,
        "IP(x=" * 90 + "1" + ")" * 90,
        "x" * (MAX_CHARACTERS + 1),
        "IP(ttl=...)",
        "IP(ttl=1j)",
        "IP(ttl=True)",
        "IP(ttl=yield)",
        "IP(ttl=await x)",
        "IP(ttl=lambda: 0)",
        "IP(ttl=1 if 1 else 2)",
        "IP(ttl=1 < 2)",
        "IP(ttl={1})",
        "IP(ttl={1: 2})",
        "IP(ttl=not 1)",
        "IP(ttl=~1)",
        "IP(ttl=x)",
        "IP(ttl=os.getpid())",
        "IP(ttl=IP().ttl)",
        "IP(ttl=__import__('os').getpid())",
        "IP(ttl=open('/etc/passwd'))",
        "IP(ttl=[x for x in (1, 2)])",
        "IP(ttl=(x for x in (1, 2)))",
        "IP(ttl=(x := 1))",
        "IP(load=f'{1}')",
        "IP(*[1])",
        "IP(**{'ttl': 1})",
        "IP(ttl='%d' % 1)",
        "IP(ttl='a' * 'b')",
        "IP(ttl='a' * 100000)",
        "IP(ttl='a' * True)",
        "IP(ttl=[1] * 3)",
        "IP()()",
        "IP().TCP()",
        "IP()[0]",
        "IP()//TCP()",
        "IP(); TCP()",
        "IP(ttl=1, ttl=2)",
        "import os",
        "80",
        "IP()/80",
        "IP()/[UDP()]",
    ],
)
def test_everything_else_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse(text)
    assert 0 <= refused.value.offset <= max(len(text), 1)


@pytest.mark.parametrize("text", ["IP(ttl=1and 2)", "IP(ttl=0x1for x)", r"IP()/Raw('\-')", r"IP()/Raw(b'\-')"])
def test_python_warns_of_nothing(text: str, recwarn: pytest.WarningsRecorder) -> None:
    with suppress(Problem):
        parse(text)
    assert not recwarn.list
