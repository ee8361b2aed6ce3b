"""What of a scenario's values may stand in a command for nft, and how. See ``src/scanner.l`` of nftables.

Nowhere else is a value put into nft's language: names are checked here, strings are quoted here, and pieces of a
command are taken only if they can end neither the command nor a block nor a string, and include no file.
"""

from __future__ import annotations

import re
from typing import Final

from harness.netfilter import FAMILY_NAMES

NAME_MAX: Final = 255
"""Characters of a name: NFT_NAME_MAXLEN of include/uapi/linux/netfilter/nf_tables.h, without its NUL."""
NAME: Final = r"[A-Za-z_.][A-Za-z0-9/\\_.-]*"
"""The token ``string`` of nft's scanner, as a regular expression."""

_NAME = re.compile(NAME)
_STRING = re.compile(r'"[^"\x00-\x1f\x7f]*"')
_SIGNS = re.compile(r"[\"';#\\`$]|[\x00-\x08\x0a-\x1f\x7f\u0085\u2028\u2029]")
"""What ends a command or a line, begins a comment, a string or a variable, or is not text."""
_CHANGE = re.compile(
    r"(?:add|create|delete|destroy) +element +(?P<of>\S+ +\S+ +\S+) *(?P<elements>\{.*\})"
    r"|flush +(?:set|map) +(?P<set>\S+ +\S+ +\S+)"
)
_OF_ELEMENT = re.compile(r" (?:timeout|expires|counter|comment|limit|quota)(?: .*)?$")
"""What nft lists after an element."""


def is_name(text: str) -> bool:
    """Whether nft reads ``text`` as the name of a table, chain, set or other object."""
    return len(text) <= NAME_MAX and _NAME.fullmatch(text) is not None


def is_object(text: str) -> bool:
    """Whether ``text`` is family, table and name, with spaces between them."""
    family, *names = re.split(" +", text)
    return family in FAMILY_NAMES and len(names) == 2 and all(map(is_name, names))


def is_piece(text: str) -> bool:
    """Whether ``text`` stays a piece of the command that it is put into: braces in pairs, strings closed, one line."""
    rest = _STRING.sub(" ", text)
    if _SIGNS.search(rest) or re.search(r"\binclude\b", rest):
        return False
    depth = 0
    for sign in re.findall(r"[{}]", rest):
        depth += 1 if sign == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def is_change(command: str) -> bool:
    """Whether ``command`` changes the elements of one set or map, and does nothing else."""
    found = _CHANGE.fullmatch(command.strip(" "))
    if found is None or not is_object(found["of"] or found["set"]):
        return False
    inside = (found["elements"] or "{}")[1:-1]
    return is_piece(inside) and not re.search(r"[{}]", _STRING.sub(" ", inside))


def element(text: str) -> str:
    """An element of a set as nft lists it, in the form in which its JSON has it: without quotes, timeout, counter and
    comment, and of a map without the value; numbers are decimal."""
    text = " ".join(text.split())
    bare = _STRING.sub(lambda found: found[0].replace(" ", "\0"), text)
    bare = _OF_ELEMENT.sub("", bare).partition(" : ")[0].replace("\0", " ").replace('"', "")
    return re.sub(r"(?<![\w.:-])0x[0-9a-fA-F]+(?![\w.:])", lambda found: str(int(found[0], 16)), bare)


def quoted(text: str) -> str:
    """``text`` as a string of nft, such as the name of an interface. Raises :class:`ValueError` where none can be."""
    if not _STRING.fullmatch(string := f'"{text}"'):
        raise ValueError(f"{text!r} can't be written as a string of nft")
    return string
