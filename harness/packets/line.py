"""A packet on one line, for a shell: ``client > server ip ttl 3 tcp dport 22 flags SA``.

::

    line  = FROM [ ">" TO ] { layer | "payload" TEXT | "payload" "hex" DIGITS | "count" NUMBER }
    layer = NAME { FIELD VALUE }

FROM is a host of the lab, TO a host or an address. NAME and FIELD are those of ``send`` in a scenario file
(:mod:`harness.packets.spec`): ``ether arp ip ip6 tcp udp sctp gre icmp icmpv6``, and ``tcp`` has ``sport``, ``dport``,
``flags`` and so on. A value is a word, or a text in quotes; of a list it is words joined by commas. The line
becomes the ``send`` that it stands for, each value with its column, so that what is wrong with it is said there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from harness.errors import Position, ScenarioError
from harness.model.node import LineColumn, Node
from harness.model.problem import did_you_mean
from harness.packets import spec

MAX_CHARACTERS: Final = 4096

LAYERS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "ether": spec.Ether,
    "arp": spec.ARP,
    "ip": spec.IPv4,
    "ip6": spec.IPv6,
    "tcp": spec.TCP,
    "udp": spec.UDP,
    "sctp": spec.SCTP,
    "gre": spec.GRE,
    "icmp": spec.ICMP,
    "icmpv6": spec.ICMPv6,
}
"""The layers of a packet, as ``send`` names them."""
FIELDS: Final = {name: msgspec.structs.fields(layer) for name, layer in LAYERS.items()}
LISTS: Final = frozenset({("ip", "options"), ("ip6", "headers")})
"""Fields whose value is a list."""
ARROWS: Final = (">", "→")

_WORD: Final = re.compile(r""""[^"]*"|'[^']*'|>|→|[^\s>→]+""")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|\d+")


class _Word(NamedTuple):
    text: str
    column: int
    """From 1."""
    quoted: bool

    @property
    def place(self) -> LineColumn:
        return LineColumn(1, self.column)

    @property
    def node(self) -> Node:
        """A number where it looks like one, else text."""
        is_number = not self.quoted and _NUMBER.fullmatch(self.text)
        return Node(int(self.text, 0) if is_number and not _is_octal(self.text) else self.text, self.place)


def _is_octal(text: str) -> bool:
    """Whether Python would not take a number as decimal: with zeros in front."""
    return len(text) > 1 and text[0] == "0" and text[1] in "0123456789"


def parse(text: str, name: str) -> Node:
    """The ``send`` that a packet on one line means; ``name`` is what positions call the line.

    Raises :class:`~harness.errors.ScenarioError` with the column of what cannot be read. Whether the values are right
    is for the language to say.
    """
    if len(text) > MAX_CHARACTERS:
        raise ScenarioError(f"has {len(text):,} characters, and {MAX_CHARACTERS:,} is the limit", Position(name))
    return _Reader(list(_words(text)), text, name).send()


def _words(text: str) -> Iterator[_Word]:
    for found in _WORD.finditer(text):
        word = found[0]
        quoted = len(word) > 1 and word[0] in "\"'"
        yield _Word(word[1:-1] if quoted else word, found.start() + 1, quoted)


class _Reader:
    """Takes the words of a line one by one."""

    def __init__(self, words: list[_Word], text: str, name: str) -> None:
        self._words = words
        self._end = len(text.rstrip()) + 1
        self._name = name
        self._send = Node({}, LineColumn(1, 1))

    def send(self) -> Node:
        self._ends()
        while self._words:
            word = self._words.pop(0)
            if word.text in LAYERS and not word.quoted:
                self._layer(word)
            elif word.text in _OTHERS and not word.quoted:
                _OTHERS[word.text](self, word)
            else:
                raise self._problem(f"'{word.text}' is not a layer", word, did_you_mean(word.text, [*LAYERS, *_OTHERS]))
        return self._send

    def _ends(self) -> None:
        """``FROM > TO``."""
        if not self._words or self._words[0].text in (*ARROWS, *LAYERS):
            place = self._words[0] if self._words else None
            raise self._problem("the sender is missing", place, "begin with a host, as in client > server tcp dport 22")
        sender = self._words.pop(0)
        self._put("from", sender, Node(sender.text, sender.place))
        if self._words and self._words[0].text in ARROWS:
            arrow = self._words.pop(0)
            receiver = self._next(f"'{arrow.text}' is not followed by a destination", "name a host or an address")
            self._put("to", receiver, Node(receiver.text, receiver.place))

    def _layer(self, name: _Word) -> None:
        layer = Node({}, name.place)
        fields = [one.encode_name for one in FIELDS[name.text]]
        while self._words and (word := self._words[0]).text not in (*LAYERS, *_OTHERS):
            self._words.pop(0)
            if word.text not in fields:
                here = did_you_mean(word.text, [*fields, *LAYERS])
                raise self._problem(f"'{word.text}' is neither a field of {name.text} nor a layer", word, here)
            if word.text in layer.children:
                raise self._problem(f"{name.text} {word.text} is given twice", word)
            value = self._next(f"{name.text} {word.text} has no value", "write its value after it")
            layer.put(word.text, word.place, self._value(name.text, word.text, value))
        self._put(name.text, name, layer)

    @staticmethod
    def _value(layer: str, field: str, value: _Word) -> Node:
        if (layer, field) not in LISTS:
            return value.node
        found = Node([], value.place)
        for number, one in enumerate(value.text.split(",")):
            found.put(number, value.place, Node(one, value.place))
        return found

    def _payload(self, name: _Word) -> None:
        text = self._next("payload has no value", "write a text, or hex and digits")
        if text.text != "hex" or text.quoted or not self._words:
            self._put("payload", name, Node(text.text, text.place))
            return
        digits = self._words.pop(0)
        self._put("payload", name, Node.of({"hex": digits.text}, digits.place))

    def _count(self, name: _Word) -> None:
        self._put("count", name, self._next("count has no value", "write a number").node)

    def _next(self, sentence: str, remedy: str) -> _Word:
        if not self._words:
            raise self._problem(sentence, None, remedy)
        return self._words.pop(0)

    def _put(self, key: str, name: _Word, value: Node) -> None:
        if key in self._send.children:
            raise self._problem(f"{key} is given twice", name)
        self._send.put(key, name.place, value)

    def _problem(self, sentence: str, word: _Word | None, remedy: str = "") -> ScenarioError:
        return ScenarioError(sentence, Position(self._name, 1, word.column if word else self._end), remedy=remedy)


_OTHERS: Final[Mapping[str, Any]] = {"payload": _Reader._payload, "count": _Reader._count}
"""What may stand beside layers."""
