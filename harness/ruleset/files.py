"""The files of a ruleset are loaded: nft's with what they include, and those of iptables-save and of ipset save."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.bounds import RULESET_BYTES
from harness.errors import HarnessError, Position, ScenarioError, Unsupported
from harness.lab.namespace import Namespace
from harness.linux import modules
from harness.project import ALLOW, Project, find
from harness.ruleset import cgroups, ipset, iptables, source
from harness.ruleset.nft import Nft, NftError, as_shown, complaint, marked, messages
from harness.ruleset.process import LostError, Reach
from harness.ruleset.texts import Texts, UnclearError, fixed, has_magic, includes
from harness.ruleset.unsupported import missing
from harness.untrusted import Unreadable, read_text

if TYPE_CHECKING:
    from harness.lab.lab import Host  # its libraries take longer to import than most rulesets to be read

_OSF: Final = re.compile(r"\bosf\b")


def reader(namespace: Namespace, project: Project) -> tuple[Nft, Texts]:
    """What reads rulesets of ``project``, or what its settings allow, and nothing else."""
    nft = Nft(namespace, Reach((project.root, *project.allowed)))
    return nft, texts_of(nft)


def texts_of(nft: Nft, given: Mapping[Path, str] = MappingProxyType({})) -> Texts:
    """The texts of the files that ``nft`` may read; of those in ``given`` they are there."""

    def read(file: Path) -> str:
        return given[file] if file in given else read_text(file, RULESET_BYTES, allowed=nft.reach.has)

    return Texts(read, nft.matching)


class Read(NamedTuple):
    """A ruleset that was read and not loaded."""

    errors: tuple[ScenarioError, ...]
    """What nft refuses whatever the kernel can do, and what would be refused before."""
    written: source.Source | None
    """What is written where; None where the text cannot be followed with certainty."""
    files: tuple[Path, ...]
    """All that belong to it, those included too; absolute."""
    of_iptables: bool
    """Whether one is of iptables-save."""


def read_files(nft: Nft, paths: Iterable[Path], defines: Mapping[str, str], home: Project) -> Read:
    """Read ``paths`` as :func:`load_files` does, by an ``nft`` that loads nothing.

    Reported is what is refused whatever the kernel can do, whichever interfaces there are and whatever was loaded
    before; of files of iptables-save and ipset save nothing. Raises :class:`~harness.ruleset.process.LostError`, and
    :class:`~harness.errors.Unsupported` where this machine refuses the process.
    """
    mains = {path.absolute(): path for path in paths}
    texts = texts_of(nft)
    try:
        files = _Files(mains, texts)
        for full in files.of_nft:
            _refuse_includes(full, files, nft.reach, home)
    except ScenarioError as error:
        return Read((error,), None, tuple(mains), of_iptables=False)
    errors: list[ScenarioError] = []
    groups = itertools.groupby(mains, lambda full: (full.parent, full in files.of_nft))
    for number, ((folder, is_nft), group) in enumerate(groups):
        if is_nft:
            errors += _refused(nft, folder, list(group), files, defines, is_first=number == 0)
    written = None
    with suppress(UnclearError):
        written = _written(files)
    return Read(tuple(errors), written, tuple(dict.fromkeys((*mains, *texts.texts))), bool(files.of_iptables))


_BY_CIRCUMSTANCES: Final = (
    *("Could not process rule", "Could not open", "cache initialization"),
    *("Interface does not exist", "cgroupv2 path", "Could not parse cgroup"),
)
"""How errors begin that nft derives from more than the text: from the kernel, from files and interfaces."""


def _refused(
    nft: Nft, folder: Path, full: list[Path], files: _Files, defines: Mapping[str, str], *, is_first: bool
) -> Iterator[ScenarioError]:
    """What nft refuses of files of one folder; at most one error. What earlier ones have loaded is not there."""
    if not modules.is_there("nfnetlink_osf") and any(_OSF.search(text) for text in files.texts.texts.values()):
        return  # nft itself sends fingerprints to the kernel, which would load that module
    if refused := _transact(nft, folder, full, files, defines):
        for one, text in messages(refused.error):
            if text.startswith("syntax error") or (is_first and not text.startswith(_BY_CIRCUMSTANCES)):
                yield complaint(one, refused.file, files.mains[refused.file])
                return


def load_files(
    host: Host, paths: Iterable[Path], defines: Mapping[str, str], home: Project | None, *, again: bool = False
) -> tuple[Nft, source.Source, Mapping[Path, str]]:
    """Load ``paths`` as :meth:`harness.ruleset.load.Ruleset.load` describes.

    With ``again`` they are loaded in addition to what is there. What has loaded them, what is written where, and the
    text of each file that was read.
    """
    mains = {path.absolute(): path for path in paths}
    for path in mains.values():
        if not path.is_file():
            raise ScenarioError("there is no such ruleset", Position(str(path)))
    home = home or find(mains)
    nft, texts = reader(host.namespace, home)
    files = _Files(mains, texts)
    for full in files.of_nft:
        _refuse_includes(full, files, nft.reach, home)
    host.cgroups.make(path for text in (*texts.texts.values(), *defines.values()) for path in cgroups.named(text))
    for (folder, is_nft), group in itertools.groupby(mains, lambda full: (full.parent, full in files.of_nft)):
        if is_nft:
            _load(nft, folder, list(group), files, defines)
            continue
        for full in group:
            if full in files.of_ipset:
                ipset.restore(host.namespace, texts.text(full), mains[full], again=again)
            else:
                iptables.restore(host.namespace, texts.text(full), mains[full])
    try:
        written = _written(files)
    except UnclearError:
        written = _with_iptables(source.Source({}, {}), files)
    return nft, written, texts.texts


def _written(files: _Files) -> source.Source:
    """What is written where in all files. Raises :class:`UnclearError`."""
    return _with_iptables(source.read(files.of_nft, files.texts, files.shown), files)


def _with_iptables(written: source.Source, files: _Files) -> source.Source:
    for full in files.of_iptables:
        more = iptables.read(files.texts.text(full), files.mains[full])
        written = written._replace(rules=written.rules | more.rules, policies=written.policies | more.policies)
    return written


class _Files:
    """The files of a ruleset: main files and what they include."""

    def __init__(self, mains: Mapping[Path, Path], texts: Texts) -> None:
        self.mains = mains
        """The user's names of the main files, by their absolute ones."""
        self.texts = texts
        written = {full: self.read(full, Position(str(mains[full]))) for full in mains}
        self.of_iptables = [full for full, text in written.items() if iptables.is_save(text)]
        """The main files of iptables-save."""
        self.of_ipset = [full for full, text in written.items() if ipset.is_save(text)]
        """The main files of ipset save."""
        self.of_nft = [full for full in mains if full not in (*self.of_iptables, *self.of_ipset)]

    def read(self, file: Path, position: Position) -> str:
        """The text of ``file``, which is named at ``position``; raises :class:`ScenarioError` there."""
        try:
            return self.texts.text(file)
        except Unreadable as reason:
            itself = position == Position(self.shown(file))  # a main file, which no other one names
            sentence = reason.sentence if itself else f"{self.shown(file)} {reason.sentence}"
            raise ScenarioError(sentence, position, remedy=reason.remedy) from None

    def shown(self, file: Path) -> str:
        """The user's name of ``file``: of a main file as given, else by the main file whose folder it lies in."""
        if file in self.mains:
            return str(self.mains[file])
        main = next((one for one in self.mains if file.is_relative_to(one.parent)), next(iter(self.mains)))
        return as_shown(file, main, self.mains[main])


def _load(nft: Nft, folder: Path, full: list[Path], files: _Files, defines: Mapping[str, str]) -> None:
    """Load nft files of one folder in one transaction."""
    try:
        refused = _transact(nft, folder, full, files, defines)
    except LostError as lost:
        read = " and ".join(str(files.mains[one]) for one in full)
        raise ScenarioError(f"{lost.sentence} while it read {read}", Position(str(files.mains[full[0]]))) from None
    if refused:
        raise why(nft, refused.error, complaint(refused.error, refused.file, files.mains[refused.file]))


class _RefusedFile(NamedTuple):
    """A file that nft has refused."""

    file: Path
    error: NftError


def _transact(
    nft: Nft, folder: Path, full: list[Path], files: _Files, defines: Mapping[str, str]
) -> _RefusedFile | None:
    """Give nft the files of one folder in one transaction; what it refuses, which may be in a file of the others."""
    refused_in = full[0]
    try:
        for refused_in in full:
            nft.refuse_end(folder, refused_in.name, files.texts.text(refused_in))
        refused_in = full[0]
        nft.load(folder, [one.name for one in full], defines)
    except NftError as refused:
        return _RefusedFile(refused_in, refused)
    return None


def why(nft: Nft, refused: NftError, error: ScenarioError) -> HarnessError:
    """``error``, or :class:`~harness.errors.Unsupported` where nft was refused what this kernel lacks."""
    for text in marked(refused):
        if lacking := missing(nft, text):
            return Unsupported(
                f"{error.position}: the kernel has no {lacking.name}, for: {text.strip()}",
                remedy=f"it needs {lacking.modules}",
            )
        if "Operation not supported" in str(refused):
            return Unsupported(
                f"{error.position}: the kernel does not support this, for: {text.strip()}",
                remedy="a module may be missing, or it is not possible in a chain of this type, hook or family",
            )
    return error


def _refuse_includes(main: Path, files: _Files, reach: Reach, home: Project) -> None:
    """Report where ``main`` includes what nft could not read, before nft reports less.

    What nft may read does not depend on this: it is run where nothing else can be opened.
    """
    if odd := re.search(r'[][*?"\\\x00-\x1f]', main.name):
        remedy = f"rename it: nft would take the {odd[0]!r} for a part of a pattern"
        raise ScenarioError("cannot be loaded under this name", Position(str(files.mains[main])), remedy=remedy)
    for include in includes(main, files.texts, files.shown):
        # Of a pattern the folder above its first sign is looked at: it could match what lies there.
        found = Path(os.path.realpath(fixed(include.name)))
        if not reach.has(found) and (not has_magic(include.name) or found.exists()):
            raise ScenarioError(
                f"{include.name} lies outside of the project, {home.root}",
                include.position,
                remedy="copy it into the project and include it by a relative name, "
                f"or allow it: {ALLOW} in the project's pytest settings",
            )
        for file in files.texts.match(include.name):
            files.read(file, include.position)
