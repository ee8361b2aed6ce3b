"""What is known of mutants from one run to the next, by ruleset and scenario.

One file for each ruleset, kernel and version of this program. What a scenario did under a mutant is known by a digest
of the scenario: its packets, expectations and lab, not its place in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

import harness
from harness.bounds import RULESET_BYTES
from harness.cache import cache_dir, keep
from harness.mutate.messages import Baseline, Structure
from harness.mutate.results import Witness
from harness.ruleset.texts import Texts, includes
from harness.scenario.case import Case, Files
from harness.untrusted import Unreadable

FOLDER: Final = "mutants"
FILES_AT_MOST: Final = 64

PASSED, OPEN, SIFTED, BROKEN, KILLED = "", "~", "?", "x", "!"
"""What a scenario did under a mutant: passed; passed as far as could be judged; passed as far as sifting shows; could
not be run; killed it, with the reason behind the sign."""


class KnownMutant(msgspec.Struct, kw_only=True):
    """What is known of a mutant."""

    outcome: str = ""
    """``refused`` or ``same`` for one that is none."""
    why: str = ""
    texts: tuple[tuple[str, str], ...] = ()
    is_listed: bool = False
    """Whether outcome and texts are known."""
    verdicts: dict[str, str] = {}
    """By the digest of a scenario."""
    is_searched: bool = False
    """Whether a packet was looked for that distinguishes it from the original."""
    witness: Witness | None = None
    packets: int = 0

    def killed(self, digests: Iterable[str]) -> str:
        """The first of ``digests`` whose scenario killed it; "" for none."""
        return next((one for one in digests if self.verdicts.get(one, "").startswith(KILLED)), "")


class Known(msgspec.Struct, kw_only=True):
    """What is known of a ruleset."""

    structure: Structure | None = None
    baselines: dict[str, Baseline] = {}
    mutants: dict[str, KnownMutant] = {}

    def mutant(self, key: str) -> KnownMutant:
        """The one with this key."""
        return self.mutants.setdefault(key, KnownMutant())


def read(name: str) -> Known:
    """What was kept under ``name``."""
    with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.msgpack.decode((cache_dir() / FOLDER / name).read_bytes(), type=Known)
    return Known()


def write(name: str, known: Known) -> None:
    """Keep ``known``; of other rulesets the ones that were used least recently are dropped."""
    folder = cache_dir() / FOLDER
    with suppress(OSError):
        others = sorted(folder.glob("*.msgpack"), key=lambda one: one.stat().st_mtime)
        for old in others[: max(len(others) - FILES_AT_MOST + 1, 0)]:
            old.unlink()
    keep(folder / name, msgspec.msgpack.encode(known))


def texts(files: Files) -> dict[Path, str]:
    """The texts of a ruleset's files, and of those that they include."""

    found = Texts.of_files(RULESET_BYTES, files.project.allows)
    for path in files.paths:
        with suppress(Unreadable):
            for _ in includes(path, found, str):
                pass
    return found.texts


def name_of(files: Files, kernel: str) -> str:
    """The name under which what is known of a ruleset is kept."""
    parts = [program(), kernel, sorted((str(one), text) for one, text in texts(files).items())]
    parts += [[str(one) for one in files.paths], sorted(files.defines.items())]
    return f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.msgpack"


@cache
def program() -> str:
    """Identifies this program's sources."""
    root = Path(harness.__path__[0])
    stamps = [(str(one), (about := one.stat()).st_size, about.st_mtime_ns) for one in sorted(root.rglob("*.py"))]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


def digest(case: Case) -> str:
    """Identifies what a scenario does and expects, and its lab."""
    others = {
        host: [[str(one) for one in files.paths], sorted(files.defines.items()), sorted(texts(files).values())]
        for host, files in case.rulesets.items()
        if host != case.network.device
    }
    whole = [stable(case.actions), lab_of(case), stable(others)]
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:24]


def lab_of(case: Case) -> str:
    """Identifies the lab of a scenario."""
    return hashlib.sha256(repr(stable(case.network)).encode()).hexdigest()[:24]


def stable(value: Any) -> Any:
    """``value`` in a form whose text is the same in every process."""
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *((name, stable(getattr(value, name))) for name in value.__struct_fields__)]
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return sorted(([stable(key), stable(one)] for key, one in value.items()), key=repr)
    if isinstance(value, AbstractSet):
        return sorted(map(stable, value), key=repr)
    if isinstance(value, list | tuple):
        return [stable(one) for one in value]
    return value if isinstance(value, str | int | float | bytes | None) else str(value)
