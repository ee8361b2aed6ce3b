"""Where the rules stand in the text that the user wrote.

nft does not report positions of what it loads, so this parses the files a second time, with as little
grammar as that requires: what opens a table or chain, what ends a statement, which statements are
rules. It follows ``src/scanner.l`` and ``src/parser_bison.y`` of nftables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from harness.bounds import INCLUDE_DEPTH
from harness.errors import Position
from harness.netfilter import FAMILY_NAMES
from harness.ruleset.texts import Texts, Token, UnclearError, bare, has_magic, named, tokens
from harness.untrusted import Unreadable

ChainKey = tuple[str, str, str]
"""Family, table and chain."""


class SourceRule(NamedTuple):
    """A rule where it is written."""

    position: Position
    text: str
    """As it stands there, white space folded."""
    comment: str
    block: tuple[SourceRule, ...] = ()
    """The rules in braces after its jump or goto."""


class Source(NamedTuple):
    """What is written where."""

    rules: dict[ChainKey, list[SourceRule]]
    """By chain, in the order of loading. A chain changed by a command that takes rules away is left out."""
    policies: dict[ChainKey, Position]
    """The policy of a base chain, or its hook where no policy is written."""
    replaced: dict[tuple[ChainKey, int], SourceRule] = {}
    """Of commands the rules that take the place of others, also by the handles of these."""
    unclear: frozenset[ChainKey] = frozenset()
    """The chains that are left out."""
    objects: frozenset[tuple[str, str, str, str]] = frozenset()
    """Kind, family, table and name of sets, maps and counters."""


_SEPARATORS: Final = ("\n", ";")
_NAMED_OBJECTS: Final = ("set", "map", "counter")
_VARIABLES: Final = ("define", "redefine", "undefine")
_OF_CHAIN: Final = ("type", "policy", "flags", "device", "devices", "comment")
"""Words that begin a statement about the chain itself."""
_OTHER_OBJECTS: Final = (
    *("set", "map", "element", "flowtable", "counter", "quota", "limit", "secmark", "synproxy"),
    *("ct", "monitor", "list", "reset", "export", "import", "describe", "rename"),
)


def read(paths: Iterable[Path], texts: Texts, show: Callable[[Path], str]) -> Source:
    """The rules and policies written in ``paths``, loaded in this order, and what they include.

    Included files are looked for in the folder of the main file. ``show`` turns a path into the
    name for the user. Raises :class:`UnclearError`.
    """
    walk = _Walk(texts, lambda token: Position(show(token.file), token.line, token.column))
    for path in paths:
        walk.file(path)
    rules = {key: found for key, found in walk.chains.items() if key not in walk.unclear}
    policies = {key: place for key, place in walk.policies.items() if key in walk.chains}
    return Source(rules, policies, unclear=frozenset(walk.unclear), objects=frozenset(walk.objects))


def read_commands(path: Path, texts: Texts, place: Callable[[Path, int, int], Position]) -> Source:
    """The rules and policies that the commands in ``path`` add to a ruleset; a rule that replaces another is new.

    ``place`` gives the position of a file's line and column. Raises :class:`UnclearError`.
    """
    walk = _Walk(texts, lambda token: place(token.file, token.line, token.column), changing=True)
    walk.file(path)
    return Source(walk.chains, walk.policies, walk.replaced)


class _Walk:
    """One pass over the text; each method consumes what its name says and leaves the rest."""

    def __init__(self, texts: Texts, position: Callable[[Token], Position], *, changing: bool = False) -> None:
        self._position = position
        self._changing = changing
        """Whether the text changes rules that are not in it."""
        self.replaced: dict[tuple[ChainKey, int], SourceRule] = {}
        self.chains: dict[ChainKey, list[SourceRule]] = {}
        self.unclear: set[ChainKey] = set()
        self.policies: dict[ChainKey, Position] = {}
        self.objects: set[tuple[str, str, str, str]] = set()
        self._texts = texts
        self._folder = Path()
        self._sources: list[Iterator[Token]] = []

    def file(self, path: Path) -> None:
        self._folder = path.parent
        self._sources = [self._tokens(path)]
        while (token := self._token()) is not None:
            if token.text in _SEPARATORS:
                continue
            if not self._common(token):
                self._command(token)

    # Tokens

    def _token(self) -> Token | None:
        """The next token; a file included is read in place, as nft's scanner does."""
        while self._sources:
            if (token := next(self._sources[-1], None)) is not None:
                return token
            self._sources.pop()
        return None

    def _tokens(self, path: Path) -> Iterator[Token]:
        try:
            return tokens(path, self._texts.text(path))
        except Unreadable as reason:
            raise UnclearError(path) from reason

    def _put_back(self, token: Token) -> None:
        self._sources.append(iter((token,)))

    def _statement(self, first: Token) -> list[Token]:
        """``first`` and what follows up to the end of the statement; braces inside are part of it."""
        statement = []
        depth = 0
        token: Token | None = first
        while token is not None:
            if depth == 0 and token.text in _SEPARATORS:
                break
            if depth == 0 and token.text == "}":
                self._put_back(token)
                break
            depth += (token.text == "{") - (token.text == "}")
            statement.append(token)
            token = self._token()
        return statement

    def _head(self) -> tuple[list[str], bool]:
        """The words up to the end of the statement or a brace, and whether the brace opened a block."""
        words: list[str] = []
        while (token := self._token()) is not None and token.text not in _SEPARATORS:
            if token.text == "{":
                return words, True
            if token.text == "}":
                self._put_back(token)
                break
            words.append(bare(token.text))
        return words, False

    # Statements

    def _common(self, token: Token) -> bool:
        """Read what may stand anywhere: an include or a variable."""
        if token.text == "include":
            statement = self._statement(token)
            self._include(statement[1].text if len(statement) > 1 else "")
        elif token.text in _VARIABLES:
            self._statement(token)
        else:
            return False
        return True

    def _include(self, name: str) -> None:
        if len(self._sources) > INCLUDE_DEPTH:
            raise UnclearError(f"{name} is included too deep")
        found = self._texts.match(named(self._folder, name))
        if not found and not has_magic(name):
            raise UnclearError(f"{name} is not found")
        self._sources += [self._tokens(path) for path in reversed(found)]

    def _command(self, first: Token) -> None:
        verb = first.text
        if verb == "replace" and self._changing:
            self._replace(self._statement(first))
            return
        if verb in ("flush", "delete", "destroy", "replace"):
            self._take_away([bare(token.text) for token in self._statement(first)])
            return
        kind = first
        if verb in ("add", "create", "insert"):
            following = self._token()
            if following is None:
                return
            kind = following
        if kind.text == "table":
            words, block = self._head()
            if block:
                self._table(_table_key(words))
        elif kind.text == "chain":
            words, block = self._head()
            if block:
                self._chain(_chain_key(words))
        elif kind.text in _OTHER_OBJECTS:
            words = [bare(token.text) for token in self._statement(kind)]
            if kind.text in _NAMED_OBJECTS:
                self.objects.add((kind.text, *_chain_key(words[1:])))
        else:
            statement = self._statement(kind)
            words = [bare(token.text) for token in statement]
            key = _chain_key(words[1:] if kind.text == "rule" else words)
            self._rule(key, statement if kind is first else [first, *statement])

    def _table(self, key: tuple[str, str]) -> None:
        while (token := self._token()) is not None and token.text != "}":
            if token.text in _SEPARATORS or self._common(token):
                continue
            if token.text == "chain":
                words, block = self._head()
                if block:
                    self._chain((*key, words[0] if words else ""))
            else:
                words = [bare(token.text) for token in self._statement(token)]
                if token.text in _NAMED_OBJECTS and len(words) > 1:
                    self.objects.add((token.text, *key, words[1]))

    def _chain(self, key: ChainKey) -> None:
        self.chains.setdefault(key, [])
        while (token := self._token()) is not None and token.text != "}":
            if token.text in _SEPARATORS or self._common(token):
                continue
            statement = self._statement(token)
            if token.text not in _OF_CHAIN:
                self._rule(key, statement)
            elif token.text == "policy" or (token.text == "type" and key not in self.policies):
                self.policies[key] = self._position(token)

    def _rule(self, key: ChainKey, statement: list[Token]) -> None:
        self.chains.setdefault(key, []).append(self._written(statement))

    def _replace(self, statement: list[Token]) -> None:
        """A command that puts a rule in the place of another."""
        words = [bare(token.text) for token in statement]
        key = _chain_key(words[2:])
        self._rule(key, statement)
        with suppress(ValueError, IndexError):
            self.replaced[key, int(words[words.index("handle") + 1])] = self.chains[key][-1]

    def _written(self, statement: list[Token]) -> SourceRule:
        start = statement[0]
        words = [token.text for token in statement]
        block: tuple[SourceRule, ...] = ()
        for place, (word, following) in enumerate(itertools.pairwise(words)):
            if word in ("jump", "goto") and following == "{":
                end = len(words) - words[::-1].index("}") - 1
                block = tuple(self._written(inside) for inside in _split(statement[place + 2 : end]))
                break
        comment = bare(words[-1]) if words[-2:-1] == ["comment"] else ""
        return SourceRule(self._position(start), " ".join(words), comment, block)

    def _take_away(self, words: list[str]) -> None:
        """Forget what a command removes; where it removes single rules, nothing is certain any more."""
        what = words[1] if len(words) > 1 else ""
        if what == "ruleset":
            self._forget(lambda key: not words[2:] or key[0] == words[2])
            self.objects = {one for one in self.objects if words[2:] and one[1] != words[2]}
        elif what == "table":
            table = _table_key(words[2:])
            self._forget(lambda key: key[:2] == table)
            if words[0] != "flush":
                self.objects = {one for one in self.objects if one[1:3] != table}
        elif what == "chain":
            chain = _chain_key(words[2:])
            self._forget(lambda key: key == chain)
        elif what == "rule":
            self.unclear.add(_chain_key(words[2:]))

    def _forget(self, gone: Callable[[ChainKey], bool]) -> None:
        for key in [key for key in self.chains if gone(key)]:
            del self.chains[key]


def _table_key(words: list[str]) -> tuple[str, str]:
    """Family, ip unless given, and table at the start of ``words``."""
    family, *rest = words if words and words[0] in FAMILY_NAMES else ("ip", *words)
    if not rest or rest[0] == "handle":
        raise UnclearError(" ".join(words))
    return family, rest[0]


def _chain_key(words: list[str]) -> ChainKey:
    """Family, ip unless given, table and chain at the start of ``words``."""
    family, table = _table_key(words)
    rest = words[2 if words[0] in FAMILY_NAMES else 1 :]
    if not rest or rest[0] == "handle":
        raise UnclearError(" ".join(words))
    return family, table, rest[0]


def _split(tokens: list[Token]) -> Iterator[list[Token]]:
    """The statements of a block."""
    statement: list[Token] = []
    depth = 0
    for token in tokens:
        depth += (token.text == "{") - (token.text == "}")
        if depth == 0 and token.text in _SEPARATORS:
            if statement:
                yield statement
            statement = []
        elif token.text != "\n":
            statement.append(token)
    if statement:
        yield statement
