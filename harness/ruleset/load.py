"""The user's ruleset in the device under test, and the index of its rules."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from harness.bounds import RULESET_BYTES
from harness.errors import Position, ScenarioError, Unsupported
from harness.lab.lab import Host
from harness.lab.namespace import Namespace
from harness.model.observation import Rule
from harness.model.result import Policy
from harness.project import ALLOW, Project, find
from harness.ruleset import iptables, listing, source, state
from harness.ruleset.listing import Chain, Listed
from harness.ruleset.nft import Nft, RefusedError, as_shown, complaint, handles_in_blocks, marked
from harness.ruleset.nft import nft_version as nft_version
from harness.ruleset.process import LostError, Reach
from harness.ruleset.unsupported import missing
from harness.untrusted import Unreadable, read_text

_STRING: Final = re.compile(r'"[^"]*"')
_TRACE_OFF: Final = re.compile(r"\bmeta nftrace set 0\b")


def reader(namespace: Namespace, project: Project) -> tuple[Nft, source.Texts, Reach]:
    """What reads rulesets of ``project``, or what its settings allow, and nothing else."""
    reach = Reach((project.root, *project.allowed))
    nft = Nft(namespace, reach)
    return nft, source.Texts(lambda file: read_text(file, RULESET_BYTES, allowed=reach.has), nft.matching), reach


class Ruleset:
    """A loaded ruleset: what the kernel has, as nft lists it, and where it was written."""

    def __init__(
        self,
        chains: Iterable[Chain],
        rules: Iterable[Rule],
        sets: Mapping[str, tuple[str, ...]] | None = None,
        nft: Nft | None = None,
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
        self._nft = nft
        self._rules = {(rule.family, rule.table, rule.chain, rule.handle): rule for rule in self.rules}
        self._chains = {(chain.family, chain.table, chain.name): chain for chain in self.chains}

    @classmethod
    def load(
        cls, host: Host, *paths: Path, defines: Mapping[str, str] | None = None, home: Project | None = None
    ) -> Ruleset:
        """Load ``paths`` in the namespace of ``host``, one after the other, as ``nft -f`` would in each file's folder.

        A file may be one of ``iptables-save``. ``defines`` are variables, as ``nft -D`` sets them.
        Included files are looked for in the folder of the main file; they must lie in the project
        ``home``, or the main file's own, or where that project's settings allow it.
        Positions call the files ``paths``, and included files below their folders accordingly.

        Raises :class:`~harness.errors.ScenarioError` at the place that nft complains of, and
        :class:`~harness.errors.Unsupported` for what this kernel lacks.
        """
        mains = {path.absolute(): path for path in paths}
        for path in paths:
            if not path.is_file():
                raise ScenarioError("there is no such ruleset", Position(str(path)))
        home = home or find(mains)
        nft, texts, reach = reader(host.namespace, home)
        files = _Files(mains, texts)
        for full in files.of_nft:
            _refuse_includes(full, files, reach, home)
        for (folder, is_save), group in itertools.groupby(mains, lambda full: (full.parent, full in files.of_iptables)):
            if is_save:
                for full in group:
                    iptables.restore(host.namespace, texts.text(full), mains[full])
            else:
                _load(nft, folder, list(group), mains, defines or {})
        chains, listed = listing.read(nft.ruleset(), host.namespace.call(handles_in_blocks))
        try:
            written = source.read(files.of_nft, texts, files.shown)
        except source.UnclearError:
            written = source.Source({}, {})
        for full in files.of_iptables:
            more = iptables.read(texts.text(full), mains[full])
            written = source.Source(written.rules | more.rules, written.policies | more.policies)
        rules = list(placed(listed, written.rules))
        for rule in rules:
            if _TRACE_OFF.search(_STRING.sub("", rule.text)):
                raise ScenarioError(
                    f"this rule ends the trace of a packet, so the rules after it could not be seen: {rule.text}",
                    rule.position or Position(str(paths[0])),
                    remedy="leave meta nftrace to the harness",
                )
        places = (written.policies.get((chain.family, chain.table, chain.name)) for chain in chains)
        return cls(
            (msgspec.structs.replace(chain, position=place) for chain, place in zip(chains, places, strict=True)),
            rules,
            state.members(nft, looked_into(rules)) if sum(map(len, texts.texts.values())) <= LISTED else {},
            nft,
        )

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


def placed(listed: Iterable[Listed], written: Mapping[source.ChainKey, list[source.SourceRule]]) -> Iterable[Rule]:
    """The rules ``listed`` with the places where they are ``written``.

    A table's handles grow in the order in which the kernel gets its rules (nf_tables_alloc_handle
    in net/netfilter/nf_tables_api.c), and nft sends the rules of a chain in the order in which
    they are written. A chain that differs in number of rules or in a comment gets no places.
    """
    listed = tuple(listed)
    places: dict[tuple[str, str, int], source.SourceRule] = {}
    chains: dict[source.ChainKey, list[Listed]] = {}
    for rule in listed:
        chains.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
    written = dict(written)
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


def _fits(written: source.SourceRule, listed: Listed) -> bool:
    """Whether the comments agree; nft 1.0 lists none of iptables' rules."""
    return written.comment == listed.comment or (written.text.startswith("-A") and not listed.comment)


class _Files:
    """The files of a ruleset: main files and what they include."""

    def __init__(self, mains: Mapping[Path, Path], texts: source.Texts) -> None:
        self.mains = mains
        """The user's names of the main files, by their absolute ones."""
        self.texts = texts
        self.of_iptables = [full for full in mains if iptables.is_save(self.read(full, Position(str(mains[full]))))]
        """The main files of iptables-save."""
        self.of_nft = [full for full in mains if full not in self.of_iptables]

    def read(self, file: Path, position: Position) -> str:
        """The text of ``file``, which is named at ``position``; raises :class:`ScenarioError` there."""
        try:
            return self.texts.text(file)
        except Unreadable as reason:
            raise ScenarioError(f"{self.shown(file)} {reason.sentence}", position, remedy=reason.remedy) from None

    def shown(self, file: Path) -> str:
        """The user's name of ``file``: of a main file as given, else by the main file whose folder it lies in."""
        if file in self.mains:
            return str(self.mains[file])
        main = next((one for one in self.mains if file.is_relative_to(one.parent)), next(iter(self.mains)))
        return as_shown(file, main, self.mains[main])


def _load(nft: Nft, folder: Path, files: list[Path], mains: Mapping[Path, Path], defines: Mapping[str, str]) -> None:
    """Load nft files of one folder in one transaction."""
    try:
        nft.load(folder, [full.name for full in files], defines)
    except LostError as lost:
        read = " and ".join(str(mains[full]) for full in files)
        raise ScenarioError(f"{lost.sentence} while it read {read}", Position(str(mains[files[0]]))) from None
    except RefusedError as refused:
        told = complaint(refused, files[0], mains[files[0]])
        for text in marked(refused):
            if lacking := missing(nft, text):
                raise Unsupported(
                    f"{told.position}: the kernel has no {lacking.name}, for: {text.strip()}",
                    remedy=f"it needs {lacking.modules}",
                ) from None
        raise told from None


def _refuse_includes(main: Path, files: _Files, reach: Reach, home: Project) -> None:
    """Say where ``main`` includes what nft could not read, before nft says less.

    What nft may read does not depend on this: it is run where nothing else can be opened.
    """
    if odd := re.search(r'[][*?"\\\x00-\x1f]', main.name):
        remedy = f"rename it: nft would take the {odd[0]!r} for a part of a pattern"
        raise ScenarioError("cannot be loaded under this name", Position(str(files.mains[main])), remedy=remedy)
    for include in source.includes(main, files.texts, files.shown):
        # Of a pattern the folder above its first sign is looked at: it could match what lies there.
        found = Path(os.path.realpath(source.fixed(include.name)))
        if not reach.has(found) and (not source.has_magic(include.name) or found.exists()):
            raise ScenarioError(
                f"{include.name} lies outside of the project, {home.root}",
                include.position,
                remedy="copy it into the project and include it by a relative name, "
                f"or allow it: {ALLOW} in the project's pytest settings",
            )
        for file in files.texts.match(include.name):
            files.read(file, include.position)
