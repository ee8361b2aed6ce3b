"""Where the rules stand in the text that the user wrote.

nft tells no positions of what it loads, so this reads the files a second time, with as little
grammar as that takes: what opens a table or chain, what ends a statement, which statements are
rules. It follows ``src/scanner.l`` and ``src/parser_bison.y`` of nftables.
"""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from harness.bounds import INCLUDE_DEPTH
from harness.errors import Position
from harness.netfilter import FAMILY_NAMES
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


class UnclearError(Exception):
    """The text cannot be followed with certainty, so no position may be told."""


class _Token(NamedTuple):
    text: str
    file: Path
    line: int
    column: int


_TOKEN = re.compile(
    r"(?P<skip>[ \t\r]+|\\\r?\n|\#[^\n]*)"  # a backslash before the end of a line continues it
    r'|(?P<token>\n|[;{}]|"[^"]*"|[^\s;{}"\#\\]+|\\)'
)
_SEPARATORS: Final = ("\n", ";")
_VARIABLES: Final = ("define", "redefine", "undefine")
_OF_CHAIN: Final = ("type", "policy", "flags", "device", "devices", "comment")
"""Words that begin a statement about the chain itself."""
_OTHER_OBJECTS: Final = (
    *("set", "map", "element", "flowtable", "counter", "quota", "limit", "secmark", "synproxy"),
    *("ct", "monitor", "list", "reset", "export", "import", "describe", "rename"),
)


class Texts:
    """The files of a ruleset, each read once.

    ``read`` gives the text of a file, or raises :class:`~harness.untrusted.Unreadable`; ``match`` the files for the
    name in an include, in the order in which nft reads them.
    """

    def __init__(self, read: Callable[[Path], str], match: Callable[[str], list[Path]]) -> None:
        self._read = read
        self.match = functools.cache(match)
        self.texts: dict[Path, str] = {}
        """Of those that were read."""

    def text(self, path: Path) -> str:
        """The text of ``path``. Raises :class:`~harness.untrusted.Unreadable`, also for a NUL character.

        C programs take a name, and some the whole text, to end there: it would not mean the same to all.
        """
        if path not in self.texts:
            before, nul, _ = (text := self._read(path)).partition("\0")
            if nul:
                line = before.count("\n") + 1
                raise Unreadable(f"has a NUL character in line {line}", remedy="remove it: a ruleset is text")
            self.texts[path] = text
        return self.texts[path]


def read(paths: Iterable[Path], texts: Texts, show: Callable[[Path], str]) -> Source:
    """The rules and policies written in ``paths``, loaded in this order, and what they include.

    Included files are looked for in the folder of the main file. ``show`` turns a path into the
    name for the user. Raises :class:`UnclearError`.
    """
    walk = _Walk(texts, lambda token: Position(show(token.file), token.line, token.column))
    for path in paths:
        walk.file(path)
    rules = {key: found for key, found in walk.chains.items() if key not in walk.unclear}
    return Source(rules, {key: place for key, place in walk.policies.items() if key in walk.chains})


def read_commands(path: Path, texts: Texts, place: Callable[[Path, int, int], Position]) -> Source:
    """The rules and policies that the commands in ``path`` add to a ruleset; a rule that replaces another is new.

    ``place`` gives the position of a file's line and column. Raises :class:`UnclearError`.
    """
    walk = _Walk(texts, lambda token: place(token.file, token.line, token.column), changing=True)
    walk.file(path)
    return Source(walk.chains, walk.policies, walk.replaced)


def _tokens(path: Path, text: str) -> Iterator[_Token]:
    line, line_start, place = 1, 0, 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise UnclearError(f"{path}:{line}")
        if found["token"] is not None:
            yield _Token(found["token"], path, line, place - line_start + 1)
        if breaks := found[0].count("\n"):
            line += breaks
            line_start = place + found[0].rindex("\n") + 1
        place = found.end()
    yield _Token("\n", path, line, 1)


class Include(NamedTuple):
    """An include statement: where it is written, and the name in it, seen from the root of the file system."""

    position: Position
    name: str


def includes(path: Path, texts: Texts, show: Callable[[Path], str]) -> Iterator[Include]:
    """All include statements that nft would read for ``path``, as far as the text can be followed.

    Each is given before the files that it names are read. Raises :class:`~harness.untrusted.Unreadable`.
    """
    pending = [path]
    seen: set[Path] = set()
    while pending:
        file = pending.pop()
        if file in seen:
            continue
        seen.add(file)
        tokens = _tokens(file, texts.text(file))
        with suppress(UnclearError):
            for word, name in itertools.pairwise(tokens):
                if word.text == "include" and name.text.startswith('"'):
                    include = Include(Position(show(word.file), word.line, word.column), _name(path.parent, name.text))
                    yield include
                    pending += texts.match(include.name)


def has_magic(name: str) -> bool:
    """Whether nft takes ``name`` for a pattern of glob(7), which may match no file."""
    return any(character in name for character in "*?[")


def fixed(name: str) -> str:
    """The part of an include's name in front of the first component that is a pattern."""
    return "/".join(itertools.takewhile(lambda one: not has_magic(one), name.split("/"))) or "/"


def matching(name: str, allowed: Callable[[Path], bool] | None = None) -> list[Path]:
    """The files for the name in an include as far as Python's glob finds them, for a look before nft reads them."""
    if allowed is not None and not allowed(Path(os.path.realpath(fixed(name)))):
        return []
    found = sorted(glob.glob(name.replace("[^", "[!")))  # noqa: PTH207 - unlike Path.glob, * leaves out hidden files
    return [Path(one) for one in found if not os.path.isdir(one)]  # noqa: PTH112


def _name(folder: Path, text: str) -> str:
    return os.path.join(folder, _bare(text))  # noqa: PTH118 - a pattern keeps its ".." and its last "/"


class _Walk:
    """One pass over the text; each method reads what its name says and leaves the rest."""

    def __init__(self, texts: Texts, position: Callable[[_Token], Position], *, changing: bool = False) -> None:
        self._position = position
        self._changing = changing
        """Whether the text changes rules that are not in it."""
        self.replaced: dict[tuple[ChainKey, int], SourceRule] = {}
        self.chains: dict[ChainKey, list[SourceRule]] = {}
        self.unclear: set[ChainKey] = set()
        self.policies: dict[ChainKey, Position] = {}
        self._texts = texts
        self._folder = Path()
        self._sources: list[Iterator[_Token]] = []

    def file(self, path: Path) -> None:
        self._folder = path.parent
        self._sources = [self._tokens(path)]
        while (token := self._token()) is not None:
            if token.text in _SEPARATORS:
                continue
            if not self._common(token):
                self._command(token)

    # Tokens

    def _token(self) -> _Token | None:
        """The next token; a file included is read in place, as nft's scanner does."""
        while self._sources:
            if (token := next(self._sources[-1], None)) is not None:
                return token
            self._sources.pop()
        return None

    def _tokens(self, path: Path) -> Iterator[_Token]:
        try:
            return _tokens(path, self._texts.text(path))
        except Unreadable as reason:
            raise UnclearError(path) from reason

    def _put_back(self, token: _Token) -> None:
        self._sources.append(iter((token,)))

    def _statement(self, first: _Token) -> list[_Token]:
        """``first`` and what follows up to the end of the statement; braces inside are part of it."""
        statement = []
        depth = 0
        token: _Token | None = first
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
            words.append(_bare(token.text))
        return words, False

    # Statements

    def _common(self, token: _Token) -> bool:
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
        found = self._texts.match(_name(self._folder, name))
        if not found and not has_magic(name):
            raise UnclearError(f"{name} is not found")
        self._sources += [self._tokens(path) for path in reversed(found)]

    def _command(self, first: _Token) -> None:
        verb = first.text
        if verb == "replace" and self._changing:
            self._replace(self._statement(first))
            return
        if verb in ("flush", "delete", "destroy", "replace"):
            self._take_away([_bare(token.text) for token in self._statement(first)])
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
            self._statement(kind)
        else:
            statement = self._statement(kind)
            words = [_bare(token.text) for token in statement]
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
                self._statement(token)

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

    def _rule(self, key: ChainKey, statement: list[_Token]) -> None:
        self.chains.setdefault(key, []).append(self._written(statement))

    def _replace(self, statement: list[_Token]) -> None:
        """A command that puts a rule in the place of another."""
        words = [_bare(token.text) for token in statement]
        key = _chain_key(words[2:])
        self._rule(key, statement)
        with suppress(ValueError, IndexError):
            self.replaced[key, int(words[words.index("handle") + 1])] = self.chains[key][-1]

    def _written(self, statement: list[_Token]) -> SourceRule:
        start = statement[0]
        words = [token.text for token in statement]
        block: tuple[SourceRule, ...] = ()
        for place, (word, following) in enumerate(itertools.pairwise(words)):
            if word in ("jump", "goto") and following == "{":
                end = len(words) - words[::-1].index("}") - 1
                block = tuple(self._written(inside) for inside in _split(statement[place + 2 : end]))
                break
        comment = _bare(words[-1]) if words[-2:-1] == ["comment"] else ""
        return SourceRule(self._position(start), " ".join(words), comment, block)

    def _take_away(self, words: list[str]) -> None:
        """Forget what a command removes; where it removes single rules, nothing is certain any more."""
        what = words[1] if len(words) > 1 else ""
        if what == "ruleset":
            self._forget(lambda key: not words[2:] or key[0] == words[2])
        elif what == "table":
            table = _table_key(words[2:])
            self._forget(lambda key: key[:2] == table)
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


def _bare(text: str) -> str:
    return text[1:-1] if text.startswith('"') else text


def _split(tokens: list[_Token]) -> Iterator[list[_Token]]:
    """The statements of a block."""
    statement: list[_Token] = []
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
