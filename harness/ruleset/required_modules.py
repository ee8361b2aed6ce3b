"""What the kernel would load modules for when a ruleset is loaded, as far as its text shows.

Expressions of nf_tables are in netfilter's own modules; what those depend on may be others. Matches and
targets of iptables are modules each: the kernel asks for ``xt_NAME``, ``ipt_NAME`` or ``ip6t_NAME``
(xt_request_find_match() in net/netfilter/x_tables.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from harness.lab.required_modules import BRIDGE_NETFILTER
from harness.linux.modules import Need
from harness.ruleset import ipset, iptables
from harness.ruleset.texts import Texts, includes
from harness.ruleset.unsupported import FEATURES
from harness.untrusted import Unreadable

LARGEST: Final = 64 << 20
"""Bytes of a file that is looked into."""

NATIVE: Final = frozenset({"comment", "limit", "tcp", "udp", "NFLOG"})
"""Matches and targets that iptables-nft expresses by nf_tables' own expressions."""
VERDICTS: Final = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})
WITH: Final = {
    "physdev": (BRIDGE_NETFILTER,),  # physdev_mt_check() in net/netfilter/xt_physdev.c
}
"""What matches and targets make the kernel load beside themselves."""

_MODULE: Final = re.compile(r"\bnft?_\w+")
_STRING: Final = re.compile(r'"[^"\n]*"')
_COMMENT: Final = re.compile(r"#.*")
_SHORT: Final = re.compile(r"-[^-mjgA-Z]*[mjg](.*)")
"""A match or target by its short option, which may stand behind others that have no value."""


def of_files(paths: Iterable[Path], allowed: Callable[[Path], bool] | None = None) -> Iterator[Need]:
    """What files of nft, with those that they include, and of iptables-save need; only ``allowed`` ones are read."""
    texts = Texts.of_files(LARGEST, allowed)
    for path in paths:
        with suppress(Unreadable):  # reported when it is loaded
            text = texts.text(path.absolute())
            if iptables.is_save(text):
                yield from _of_save(path, text)
                continue
            if ipset.is_save(text):
                yield from ipset.needs(text, path)
                continue
            yield from of_text(text, str(path))
            included = {
                one: None for include in includes(path.absolute(), texts, str) for one in texts.match(include.name)
            }
            for file in included:
                yield from of_text(texts.text(file), str(file))


def of_text(text: str, place: str) -> Iterator[Need]:
    """What nft commands need, which stand at ``place``."""
    for name, feature in _in_text(text):
        yield Need(name, f"{place}: {feature}")


@lru_cache(16)
def _in_text(text: str) -> tuple[tuple[str, str], ...]:
    """The modules that nft commands need, each with the name of the feature."""
    plain = _COMMENT.sub("", _STRING.sub('""', text))
    bridges = re.search(r"\bbridge\b", plain)
    found = (
        feature
        for feature in FEATURES
        if (bridges or not feature.trial.startswith("table bridge"))
        and re.search(feature.words, text if '"' in feature.words else plain)
    )
    return tuple((name, feature.name) for feature in found for name in _MODULE.findall(feature.modules))


def _of_save(path: Path, text: str) -> Iterator[Need]:
    prefix = "ip6t" if iptables.family(text, path.name) == "ip6" else "ipt"
    lines = text.splitlines()
    chains = {line[1:].split()[0] for line in lines if re.match(r":\S", line)}
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue
        for option, name in _named(line):
            if name in VERDICTS or name in chains:
                continue
            because = f"{path}:{number}: {option} {name}"
            for more in WITH.get(name, ()):
                yield Need(more, because)
            if name not in NATIVE:
                yield Need(f"xt_{name}", because)
                yield Need(f"{prefix}_{name}", because)


def _named(line: str) -> Iterator[tuple[str, str]]:
    """The matches and targets of a line: the option and the name."""
    words = iptables.words(line)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            if len(option) > 3 and any(full.startswith(option) for full in ("--match", "--jump", "--goto")):
                yield option, value if equals else following
        elif found := _SHORT.fullmatch(word):
            yield word.removesuffix(found[1]), found[1] or following
