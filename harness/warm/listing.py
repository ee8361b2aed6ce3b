"""The files that a template needs: those that this environment's Python opens until it is armed.

They are found by doing the same on the host: an audit hook (PEP 578) reports each file that is opened.
"""

from __future__ import annotations

import importlib
import pkgutil
import site
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.metadata import distributions
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
from harness.cache import cache_dir
from harness.warm import program

_NO_FILES = ("proc", "sys", "dev")
"""Folders below the root whose files are the kernel's own."""


def files() -> list[str]:
    """Absolute paths of the files, sorted."""
    opened: set[str] = set()

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            opened.add(arguments[0])

    sys.addaudithook(note)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        program.import_all(Path(folder))
    # What these import at their first use is then listed as well.
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        importlib.import_module(module.name)
    from harness.ruleset.sandbox import DATABASES, NAMES
    from harness.tracer.program import SOURCES  # not before: pytest is to import it, and rewrites assertions

    for distribution in distributions():
        _ = distribution.metadata, distribution.entry_points
    opened.update(_not_imported(), _of_modules(), _libraries(), _of_python(), _below(Path(harness.__path__[0])))
    opened.update((*_looked_for(), *DATABASES, *NAMES, *_below(SOURCES)))
    return sorted(str(path) for path in map(Path, opened) if _is_of_the_environment(path))


def _is_of_the_environment(path: Path) -> bool:
    # What is known of a kernel is added where the template is made; here other runs write it.
    return path.is_absolute() and path.parts[1] not in _NO_FILES and path.is_file() and cache_dir() not in path.parents


def _not_imported() -> Iterator[str]:
    """BCC is only looked for unless it is needed, and the bindings of nftables are imported by another process."""
    if (bcc := find_spec("bcc")) and bcc.origin:
        yield bcc.origin
    if (nftables := find_spec("nftables")) and nftables.origin:
        yield from _below(Path(nftables.origin).parent)
        importlib.import_module("nftables").Nftables()  # loads its library


def _looked_for() -> Iterator[str]:
    """Wireshark's manufacturers of network cards: where they are installed, scapy uses what it keeps of them."""
    from scapy.data import MANUFDB

    yield MANUFDB._name


def _of_modules() -> Iterator[str]:
    for module in list(sys.modules.values()):
        yield from filter(None, (getattr(module, "__file__", None), getattr(module, "__cached__", None)))


def _libraries() -> Iterator[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {name for line in lines if (name := line.split(maxsplit=5)[-1].strip()).startswith("/")}
    yield from mapped
    for folder in {Path(name).parent for name in mapped if ".so" in name}:  # libraries are opened by their sonames
        yield from (str(link) for link in folder.iterdir() if link.is_symlink() and str(link.resolve()) in mapped)


def _of_python() -> Iterator[str]:
    yield from ("/lib64/ld-linux-x86-64.so.2", "/etc/ld.so.cache", sys.executable, f"{sys.prefix}/pyvenv.cfg")
    for folder in site.getsitepackages():
        yield from (str(path) for path in Path(folder).glob("*.pth"))


def _below(folder: Path) -> Iterator[str]:
    return (str(path) for path in folder.rglob("*"))


if __name__ == "__main__":
    print("\n".join(files()))
