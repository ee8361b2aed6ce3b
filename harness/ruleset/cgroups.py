"""The cgroups that a ruleset names, which have to be there when it is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MOST: Final = 1000
"""Cgroups of one file."""
_MATCHES: Final = re.compile(r"\bcgroupv2\s+level\b|\s--path\s")
_COMMENT: Final = re.compile(r"^\s*#.*$", re.MULTILINE)
_PATH: Final = r"[A-Za-z0-9_][\w@:.\\-]*(?:/[A-Za-z0-9_][\w@:.\\-]*)*"
_NAMED: Final = re.compile(
    rf'"/?({_PATH})/?"'  # anywhere, as in a set or a variable
    rf"|\bcgroupv2\s+level\s+\d+\s+(?:[!=]=\s*)?(?!v?map\b)({_PATH})"
    rf"|\s--path\s+/?({_PATH})"
)


def named(text: str) -> Iterator[str]:
    """The paths of cgroups that ``text``, of an nft file or of iptables-save, may mean.

    In a text that matches any cgroup this is each quoted string that could be a path: more than needed does no harm.
    """
    if not _MATCHES.search(text):  # nearly always
        return
    text = _COMMENT.sub("", text)
    if not _MATCHES.search(text):
        return
    for number, found in enumerate(_NAMED.finditer(text)):
        if number >= MOST:
            return
        yield next(filter(None, found.groups()))
