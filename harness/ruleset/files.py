"""The files of a ruleset are loaded: nft's and those of iptables-save, with what they include."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from harness.bounds import RULESET_BYTES
from harness.errors import HarnessError, Position, ScenarioError, Unsupported
from harness.lab.lab import Host
from harness.lab.namespace import Namespace
from harness.project import ALLOW, Project, find
from harness.ruleset import iptables, source
from harness.ruleset.nft import Nft, NftError, as_shown, complaint, marked
from harness.ruleset.process import LostError, Reach
from harness.ruleset.texts import Texts, UnclearError, fixed, has_magic, includes
from harness.ruleset.unsupported import missing
from harness.untrusted import Unreadable, read_text


def reader(namespace: Namespace, project: Project) -> tuple[Nft, Texts]:
    """What reads rulesets of ``project``, or what its settings allow, and nothing else."""
    nft = Nft(namespace, Reach((project.root, *project.allowed)))
    return nft, texts_of(nft)


def texts_of(nft: Nft, given: Mapping[Path, str] = MappingProxyType({})) -> Texts:
    """The texts of the files that ``nft`` may read; of those in ``given`` they are there."""

    def read(file: Path) -> str:
        return given[file] if file in given else read_text(file, RULESET_BYTES, allowed=nft.reach.has)

    return Texts(read, nft.matching)


def load_files(
    host: Host, paths: Iterable[Path], defines: Mapping[str, str], home: Project | None
) -> tuple[Nft, source.Source, int]:
    """Load ``paths`` as :meth:`harness.ruleset.load.Ruleset.load` describes.

    What has loaded them, what is written where, and how large they are, in characters.
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
    for (folder, is_save), group in itertools.groupby(mains, lambda full: (full.parent, full in files.of_iptables)):
        if is_save:
            for full in group:
                iptables.restore(host.namespace, texts.text(full), mains[full])
        else:
            _load(nft, folder, list(group), files, defines)
    try:
        written = source.read(files.of_nft, texts, files.shown)
    except UnclearError:
        written = source.Source({}, {})
    for full in files.of_iptables:
        more = iptables.read(texts.text(full), mains[full])
        written = source.Source(written.rules | more.rules, written.policies | more.policies)
    return nft, written, sum(map(len, texts.texts.values()))


class _Files:
    """The files of a ruleset: main files and what they include."""

    def __init__(self, mains: Mapping[Path, Path], texts: Texts) -> None:
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


def _load(nft: Nft, folder: Path, full: list[Path], files: _Files, defines: Mapping[str, str]) -> None:
    """Load nft files of one folder in one transaction."""
    refused_in = full[0]
    try:
        for refused_in in full:
            nft.refuse_end(folder, refused_in.name, files.texts.text(refused_in))
        refused_in = full[0]
        nft.load(folder, [one.name for one in full], defines)
    except LostError as lost:
        read = " and ".join(str(files.mains[one]) for one in full)
        raise ScenarioError(f"{lost.sentence} while it read {read}", Position(str(files.mains[full[0]]))) from None
    except NftError as refused:
        raise why(nft, refused, complaint(refused, refused_in, files.mains[refused_in])) from None


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
