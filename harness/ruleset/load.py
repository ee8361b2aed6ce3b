"""The user's ruleset in the device under test, and the index of its rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from harness.errors import Position, ScenarioError
from harness.lab.lab import Host
from harness.linux import modules
from harness.model.observation import Lasting, Place, Rule
from harness.model.result import Policy
from harness.nft_syntax import is_change
from harness.project import Project
from harness.ruleset import listing, required_modules, source, state
from harness.ruleset.files import load_files, texts_of, why
from harness.ruleset.listing import Chain, ListedRule
from harness.ruleset.nft import (
    STDIN,
    Nft,
    NftError,
    complaint_at,
    handles_in_blocks,
)
from harness.ruleset.nft import nft_version as nft_version
from harness.ruleset.process import LostError
from harness.ruleset.texts import UnclearError

_STRING: Final = re.compile(r'"[^"]*"')
_TRACE_OFF: Final = re.compile(r"\bmeta nftrace set 0\b")
_READ_AGAIN: Final = re.compile(r"""\binclude\s+(["'])[^"'\n]*(?:[*?\[]|/\1)|\bcounter\s+packets\s+(?!0\b)""")
"""Why files must be read again though they are as they were: an include by a pattern, which another file may match
later, and a counter that does not begin at 0."""


_KERNEL_PRIORITIES: Final = frozenset({-400, -200, -100, 100, 2**31 - 2, 2**31 - 1})
"""Of the hooks that a rule has the kernel register: defragmentation, connection tracking and its confirmation, NAT,
SYNPROXY (enum nf_ip_hook_priorities in include/uapi/linux/netfilter_ipv4.h)."""


def _may_change_places(chain: Chain) -> bool:
    """Whether a hook of the kernel may have the priority of ``chain``.

    Of hooks with one priority the first registered is called first (nf_hook_entries_grow in net/netfilter/core.c),
    and those of the kernel stay registered when a chain is made anew. NAT chains are called by one of them.
    """
    return chain.is_base and chain.type != "nat" and chain.priority in _KERNEL_PRIORITIES


class Ruleset:
    """A loaded ruleset: what the kernel has, as nft lists it, and where it was written."""

    def __init__(
        self,
        chains: Iterable[Chain],
        rules: Iterable[Rule],
        sets: Mapping[str, tuple[str, ...]] | None = None,
        nft: Nft | None = None,
        tables: Mapping[tuple[str, str], int] | None = None,
        size: int = 0,
        listed: str = "",
        stamps: Mapping[Path, FileStamp | None] | None = None,
        of_elements: str = "",
        may_stay: bool = False,
    ) -> None:
        self.chains = tuple(chains)
        self.rules = tuple(rules)
        """In the order of nft's listing: by table, by chain, in the order of evaluation."""
        self.policies = tuple(
            Policy(
                family=chain.family,
                table=chain.table,
                chain=chain.name,
                hook=chain.hook,
                verdict=chain.policy,
                position=chain.position,
            )
            for chain in self.chains
            if chain.is_base
        )
        """Of the base chains."""
        self.counts = any("counter" in rule.text for rule in self.rules)
        """Whether a rule may have a counter statement."""
        self.sets = sets or {}
        """What named sets and maps hold after loading, by family, table and name: those that rules look into and
        that no rule changes. Empty where the files are so large that to list them would take long."""
        self.tables = tables or {}
        """The handles of the tables by family and name: one that is made anew has another."""
        self._nft = nft
        self._size = size
        self.listed = listed
        """As nft has listed it, without elements of sets."""
        self.of_elements = of_elements
        """What their files say of single elements, as of :func:`~harness.ruleset.listing.of_elements`."""
        self._stamps = stamps or {}
        """Of the files that it was loaded from."""
        self._may_stay = may_stay
        self._rules = {rule.place: rule for rule in self.rules}
        self._chains = {(chain.family, chain.table, chain.name): chain for chain in self.chains}

    @classmethod
    def load(
        cls, host: Host, *paths: Path, defines: Mapping[str, str] | None = None, home: Project | None = None
    ) -> Ruleset:
        """Load ``paths`` in the namespace of ``host``, one after the other, as ``nft -f`` would in each file's folder.

        A file may be one of ``iptables-save``, or one of ``ipset save`` that such a file needs before it. ``defines``
        are variables, as ``nft -D`` sets them.
        Included files are looked for in the folder of the main file; they must lie in the project
        ``home``, or the main file's own, or where that project's settings allow it.
        Positions call the files ``paths``, and included files below their folders accordingly.

        Raises :class:`~harness.errors.ScenarioError` at the place that nft complains of, and
        :class:`~harness.errors.Unsupported` for what this kernel lacks.
        """
        nft, written, texts = load_files(host, paths, defines or {}, home)
        return cls._read(host, nft, written, Position(str(paths[0])), texts=texts)

    def reloaded(
        self, host: Host, *paths: Path, defines: Mapping[str, str], home: Project, hidden: str = ""
    ) -> Ruleset:
        """Load ``paths`` on ``host`` as :meth:`load` does, in addition to what is loaded; the ruleset after that.

        Rules that are still there keep their positions. Tables named ``hidden`` are left out. Raises as :meth:`load`.
        """
        _, written, texts = load_files(host, paths, defines, home, again=True)
        return self._read(host, self.nft, written, Position(str(paths[0])), texts=texts, before=self, hidden=hidden)

    def changed(
        self,
        host: Host,
        commands: str,
        folder: Path,
        *,
        defines: Mapping[str, str],
        place: Callable[[int, int], Position],
        hidden: str = "",
    ) -> Ruleset:
        """Run nft ``commands`` on ``host`` in one transaction, as ``nft -f`` in ``folder``; the ruleset after that.

        Rules that are still there keep their positions, new ones have those that ``place`` gives for a line and column
        of the commands. Tables named ``hidden`` are left out. It is this ruleset where only elements have changed.

        Raises :class:`~harness.errors.ScenarioError` at the place that nft complains of, and
        :class:`~harness.errors.Unsupported` for what this kernel lacks, or where a module would have to be loaded into
        the machine's own kernel.
        """
        modules.refuse(required_modules.of_text(commands, "nft:"))

        def at(file: Path, line: int, column: int) -> Position:
            return place(line, column) if file in (text, Path(STDIN)) else Position(str(file), line, column)

        text = folder / "nft: commands"
        try:
            self.nft.change(commands, folder, defines)
        except LostError as lost:
            raise ScenarioError(lost.sentence, place(1, 1)) from None
        except NftError as refused:
            raise why(self.nft, refused, complaint_at(refused, place(1, 1), at)) from None
        if is_change(commands):
            return self
        try:
            written = source.read_commands(text, texts_of(self.nft, {text: commands}), at)
        except UnclearError:
            written = source.Source({}, {})
        return self._read(host, self.nft, written, place(1, 1), before=self, hidden=hidden)

    def renew(self, paths: Sequence[Path], defines: Mapping[str, str], then: str = "") -> bool:
        """Load ``paths``, which this ruleset is of, in place of its tables, and run ``then``, in one transaction.

        Rules get the handles that they had, as a table counts from 1 (nf_tables_alloc_handle in
        net/netfilter/nf_tables_api.c). Whether that could be done: not for files of several folders, or of iptables,
        not with chains in rules, which get other names (nf_tables_addchain), and not with chains that could change
        places with a hook of the kernel, see :func:`_may_change_places`.
        """
        return self._again(paths, defines, then, self.nft.run) is not None

    def restore(self, paths: Sequence[Path], defines: Mapping[str, str], then: str, *, hidden: str) -> bool:
        """Do as :meth:`renew`; whether that could be done and the ruleset is listed as before, handles included, and
        its files were not written meanwhile. Tables named ``hidden`` are left out.
        """
        listed = self._again(paths, defines, then, self.nft.run_and_list)
        return (
            listed is not None
            and self._has_same_files()
            and listing.without_table(listed, hidden) == listing.without_table(self.listed, hidden)
        )

    def may_stay(self) -> bool:
        """Whether it need not be loaded anew where packets have changed no more than counters, which are reset."""
        return self._may_stay and self._has_same_files()

    def _has_same_files(self) -> bool:
        return all(_stamp(path) == stamp for path, stamp in self._stamps.items())

    def _again(
        self, paths: Sequence[Path], defines: Mapping[str, str], then: str, run: Callable[[str, Path], str]
    ) -> str | None:
        """What ``run`` returns for the commands by which :meth:`renew` does it, and the folder that they are seen from;
        None where it cannot be done."""
        folders = {path.parent for path in paths}
        if len(folders) != 1 or any(listing.ANONYMOUS.match(chain) for _, _, chain, _ in self._rules):
            return None
        if any(map(_may_change_places, self.chains)):
            return None
        tables = "".join(f"add table {family} {name}\ndelete table {family} {name}\n" for family, name in self.tables)
        variables = "".join(f"define {name} = {value}\n" for name, value in defines.items())
        includes = "".join(f'include "./{path.name}"\n\n' for path in paths)
        try:
            return run(tables + variables + includes + then, folders.pop())
        except (NftError, LostError):
            return None

    @classmethod
    def _read(
        cls,
        host: Host,
        nft: Nft,
        written: source.Source,
        whole: Position,
        *,
        texts: Mapping[Path, str] = MappingProxyType({}),
        before: Ruleset | None = None,
        hidden: str = "",
    ) -> Ruleset:
        """The ruleset that ``host`` has, with the places where its rules are ``written``, or were ``before``.

        ``texts`` are those of the files that were read.
        """
        stamps = {path: _stamp(path) for path in texts}
        size = max(sum(map(len, texts.values())), before._size if before else 0)
        text = nft.ruleset()
        tables = {key: handle for key, handle in listing.tables(text).items() if key[1] != hidden}
        chains, listed = listing.read(text, host.namespace.call(handles_in_blocks))
        chains = tuple(chain for chain in chains if chain.table != hidden)
        listed = tuple(rule for rule in listed if rule.table != hidden)
        lasting = {key for key, handle in tables.items() if before and before.tables.get(key) == handle}
        kept, policies = _outlasting(before, lasting)
        rules = _with_positions(listed, kept, written)
        _refuse_untraced(rules, whole)
        policies |= written.policies
        return cls(
            [msgspec.structs.replace(chain, position=policies.get(_chain_key(chain))) for chain in chains],
            rules,
            state.members(nft, looked_into(rules)) if size <= LISTED else {},
            nft,
            tables,
            size,
            text,
            stamps,
            "; ".join(filter(None, [before.of_elements if before else "", listing.of_elements(texts.values())])),
            not any(map(_READ_AGAIN.search, texts.values())),
        )

    @cached_property
    def lasting(self) -> tuple[Lasting, ...]:
        """What expires by itself, and after how long."""
        return listing.lasting(self.listed, self.of_elements)

    @cached_property
    def limits(self) -> dict[str, str]:
        """The limits with a name and those of sets, as of :func:`~harness.ruleset.listing.limits`."""
        return listing.limits(self.listed, self.of_elements)

    @property
    def nft(self) -> Nft:
        """What has loaded it, for further commands; as long as the host is there."""
        assert self._nft is not None, "this ruleset was not loaded"
        return self._nft

    def rule(self, family: str, table: str, chain: str, handle: int) -> Rule | None:
        """The rule with ``handle``; None when there is none."""
        return self._rules.get((family, table, chain, handle))

    def chain(self, family: str, table: str, name: str) -> Chain | None:
        """The chain by its names; None when there is none."""
        return self._chains.get((family, table, name))


def _outlasting(
    before: Ruleset | None, lasting: Collection[tuple[str, str]]
) -> tuple[dict[Place, Rule], dict[source.ChainKey, Position | None]]:
    """The rules ``before`` and the places of its policies, in the tables that are ``lasting``."""
    if before is None:
        return {}, {}
    rules = {rule.place: rule for rule in before.rules if (rule.family, rule.table) in lasting}
    chains = (chain for chain in before.chains if (chain.family, chain.table) in lasting)
    return rules, {_chain_key(chain): chain.position for chain in chains}


def _with_positions(listed: Iterable[ListedRule], kept: Mapping[Place, Rule], written: source.Source) -> list[Rule]:
    """The rules ``listed``, with where they are written, or were if they are among those ``kept``."""
    fresh = [rule for rule in listed if rule.place not in kept or kept[rule.place].text != rule.text]
    replaced = {place: one for place, one in written.replaced.items() if (*place[0], place[1]) in kept}
    places = {**kept, **{rule.place: rule for rule in placed(fresh, written.rules, replaced)}}
    return [places[rule.place] for rule in listed]


class FileStamp(NamedTuple):
    """By what a file that was written shows it; see inode(7)."""

    inode: int
    size: int
    modified: int
    """Nanoseconds."""


def _stamp(path: Path) -> FileStamp | None:
    """That of the file ``path``; None where there is none."""
    with suppress(OSError):
        found = path.stat()
        return FileStamp(found.st_ino, found.st_size, found.st_mtime_ns)
    return None


LISTED: Final = 1 << 16
"""Bytes of ruleset up to which sets are listed: a list of addresses to block may have 100,000."""

_CHANGED_SET: Final = re.compile(r"\b(?:add|update|delete) @([\w./-]+)")
_SET: Final = re.compile(r"(?<![\w.])@([A-Za-z][\w./-]*)")


def looked_into(rules: Iterable[Rule]) -> set[str]:
    """The named sets and maps that ``rules`` look into and do not change, by family, table and name."""
    changed: set[str] = set()
    found: set[str] = set()
    for rule in rules:
        text = _STRING.sub("", rule.text)
        changed |= {f"{rule.family} {rule.table} {name}" for name in _CHANGED_SET.findall(text)}
        found |= {f"{rule.family} {rule.table} {name}" for name in _SET.findall(text)}
    return found - changed


def placed(
    listed: Iterable[ListedRule],
    written: Mapping[source.ChainKey, list[source.SourceRule]],
    replaced: Mapping[tuple[source.ChainKey, int], source.SourceRule] = MappingProxyType({}),
) -> Iterable[Rule]:
    """The rules ``listed`` with the places where they are ``written``.

    A table's handles grow in the order in which the kernel gets its rules (nf_tables_alloc_handle
    in net/netfilter/nf_tables_api.c), and nft sends the rules of a chain in the order in which
    they are written. A chain that differs in number of rules or in a comment gets no places. Rules that
    have ``replaced`` others stand in ``written`` as well; a kernel may give them the handles of these.
    """
    listed = tuple(listed)
    places: dict[tuple[str, str, int], source.SourceRule] = {}
    chains: dict[source.ChainKey, list[ListedRule]] = {}
    written = dict(written)
    for rule in listed:
        key = (rule.family, rule.table, rule.chain)
        if (one := replaced.get((key, rule.handle))) is not None:
            places[rule.family, rule.table, rule.handle] = one
            written[key] = [other for other in written.get(key, []) if other is not one]
        else:
            chains.setdefault(key, []).append(rule)
    for key, rules in chains.items():  # a block's chain comes after that of the rule that holds it
        rules.sort(key=lambda rule: rule.handle)
        found = written.get(key, [])
        if len(found) == len(rules) and all(map(_fits, found, rules)):
            for one, rule in zip(found, rules, strict=True):
                places[rule.family, rule.table, rule.handle] = one
                written[rule.family, rule.table, rule.block] = list(one.block)
    for rule in listed:
        place = places.get((rule.family, rule.table, rule.handle))
        yield Rule(
            family=rule.family,
            table=rule.table,
            chain=rule.chain,
            handle=rule.handle,
            text=rule.text,
            comment=rule.comment or (place.comment if place else ""),
            written=place.text if place else "",
            position=place.position if place else None,
        )


def _refuse_untraced(rules: Iterable[Rule], whole: Position) -> None:
    for rule in rules:
        if _TRACE_OFF.search(_STRING.sub("", rule.text)):
            raise ScenarioError(
                f"this rule ends the trace of a packet, so the rules after it could not be seen: {rule.text}",
                rule.position or whole,
                remedy="leave meta nftrace to the harness",
            )


def _chain_key(chain: Chain) -> source.ChainKey:
    return chain.family, chain.table, chain.name


def _fits(written: source.SourceRule, listed: ListedRule) -> bool:
    """Whether the comments agree; nft 1.0 lists none of iptables' rules."""
    return written.comment == listed.comment or (written.text.startswith("-A") and not listed.comment)
