"""What may stand in a command for nft; see also tests/ruleset/test_process.py, where nft reads it."""

from __future__ import annotations

import pytest

from harness import nft_syntax

OUT = [
    'x;include"/etc/hostname";',
    'x"\ninclude "/etc/hostname"\n"',
    "x\ninclude",
    "x } }",
    "x }; add rule ip t c accept",
    "x\0y",
    "x\r\ny",
    "x\u2028y",
    "x # comment",
    "x \\\n y",
    "$(reboot)",
    "`reboot`",
    "$variable",
    '"open',
    "{ 1",
    'include "/etc/hostname"',
]
"""Each would end the command, a block or a string, or is no text."""


@pytest.mark.parametrize("text", ["t", "_t", "filter-2", "a.b/c", "x" * 255])
def test_names(text: str) -> None:
    assert nft_syntax.is_name(text)
    assert nft_syntax.is_object(f"inet {text} {text}")


@pytest.mark.parametrize("text", ["", "1a", "a b", "ä", "x" * 256, "a\n", "a;b", '"a"', "a:b", *OUT])
def test_what_is_no_name(text: str) -> None:
    assert not nft_syntax.is_name(text)
    assert not nft_syntax.is_object(f"inet t {text}")
    assert not nft_syntax.is_object(f"inet {text} s")


@pytest.mark.parametrize(
    "command",
    [
        "add element inet t s { 192.0.2.1, 192.0.2.2 }",
        'create element inet t s { 192.0.2.1 timeout 1h comment "a; b } # c" : "eth0" }',
        "flush set inet t s",
        " flush map  ip t m ",
    ],
)
def test_changes(command: str) -> None:
    assert nft_syntax.is_change(command)


@pytest.mark.parametrize(
    "command",
    [
        "add rule inet t c accept",
        "flush ruleset",
        "flush set inet t s; flush ruleset",
        "add element inet t s { 1.1.1.1 } }",
        "add element inet t s { 1.1.1.1 }, { 1.1.1.2 }",
        "add element inet t s {\r}",
        "add element inet t\ns { 1 }",
        "add element nonsense t s { 1 }",
        *(f"add element inet t s {{ {text} }}" for text in OUT),
        *(f"add element inet t {text} {{ 1 }}" for text in OUT),
    ],
)
def test_what_is_no_change(command: str) -> None:
    assert not nft_syntax.is_change(command)


@pytest.mark.parametrize(
    "text", ["eth0", "{ 192.0.2.1, 10.0.0.0/8 }", '{ "eth0", "wan; 0" }', "tcp . 80", "{ 1 : { 2 } }"]
)
def test_pieces(text: str) -> None:
    assert nft_syntax.is_piece(text)


@pytest.mark.parametrize("text", OUT)
def test_what_is_more_than_a_piece(text: str) -> None:
    assert not nft_syntax.is_piece(text)


def test_a_string_that_would_end_is_refused() -> None:
    assert nft_syntax.quoted("wan0.7") == '"wan0.7"'
    for text in ('a"b', "a\nb", "a\0b"):
        with pytest.raises(ValueError, match="can't be written as a string of nft"):
            nft_syntax.quoted(text)


@pytest.mark.parametrize(
    ("listed", "read"),
    [
        ('127.0.0.1 . "lo"', "127.0.0.1 . lo"),
        ('"eth0"', "eth0"),
        ("0x00000010", "16"),
        ("10.0.0.1 . 0x0000ff00", "10.0.0.1 . 65280"),
        ('10.0.0.1 timeout 1h expires 59m59s968ms comment "the : first"', "10.0.0.1"),
        ("10.0.0.1 counter packets 0 bytes 0", "10.0.0.1"),
        ("10.0.0.1 . 443 : drop", "10.0.0.1 . 443"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("02:00:00:00:0x:01", "02:00:00:00:0x:01"),
        ("80-90", "80-90"),
        ('"a timeout 1s"', "a timeout 1s"),
    ],
)
def test_an_element_as_nft_lists_it_is_one_as_its_json_has_it(listed: str, read: str) -> None:
    assert nft_syntax.element(listed) == read
