"""What tests leave in the user's cache folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from harness.cache import GUESTS, HOST

KEPT = {
    *("accelerator.json", "frames.msgpack", "rulesets.msgpack", "preload", "vmlinux"),
    *(HOST, GUESTS, "kernels", "templates", "mutants"),
}
"""What tests may add to, as any run does, also one beside them: all of it is bounded, or known by a kernel."""


def of(home: Path) -> set[str]:
    """What is there beside :data:`KEPT`, by its path in the cache folder, where that is in ``home``; unfinished files
    aside."""
    folder = home / "nft-harness"
    found: set[str] = set()
    with suppress(FileNotFoundError):
        for one in folder.iterdir():
            if one.name not in KEPT and not one.name.startswith("."):
                found |= {str(path.relative_to(folder)) for path in (one, *one.rglob("[!.]*"))}
    return found
