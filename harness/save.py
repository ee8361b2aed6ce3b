"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def place(path: Path) -> Path:
    """Where a file called ``path`` is written: behind all symbolic links.

    A name below the current folder does not lead out of it: a link there is untrusted. Raises
    :class:`OSError`.
    """
    real, here = path.resolve(), Path.cwd().resolve()
    if Path(os.path.abspath(here / path)).is_relative_to(here) and not real.is_relative_to(here):  # noqa: PTH100 - no links
        raise OSError(errno.ELOOP, f"a symbolic link leads to {real}, outside of the current folder", str(path))
    return real


def save(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write ``content`` to ``path``, whose folder is made if need be; text as UTF-8.

    What stood there before stays until all is written, ``durable`` on the disk, and leaves its mode; a device or a pipe
    is written to as it is. Raises :class:`OSError`.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    save_parts(path, (data,), durable=durable)


def save_parts(path: Path, parts: Iterable[bytes], *, durable: bool = False) -> None:
    """Write ``parts`` one behind the other, as :func:`save` does; in memory is one at a time."""
    path = place(path)
    with suppress(FileExistsError):  # a file where the folder should be is reported better by what follows
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.writelines(parts)
        return
    new = path.with_name(f".{path.name[:200]}.{os.getpid()}")
    try:
        with new.open("wb") as file:
            file.writelines(parts)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            new.chmod(path.stat().st_mode & 0o7777)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
