"""Addresses of symbols: those that the kernel itself lists."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.linux import addresses, bpf, modules
from harness.linux.addresses import Addresses

MANY = 200
"""Names: more than are looked up at once, and no multiple of it."""
SYMBOLS = Path("/proc/kallsyms")


@pytest.fixture(scope="module")
def listed() -> dict[str, int]:
    """The first address of each name of ``/proc/kallsyms``, with the name of its module."""
    modules.load()
    first: dict[str, int] = {}
    for line in SYMBOLS.read_text().splitlines():
        address, _, name, *module = line.split()
        first.setdefault(f"{module[0][1:-1]}:{name}" if module else name, int(address, 16))
    return first


@pytest.fixture
def kernels() -> Iterator[Addresses]:
    with closing(Addresses()) as found:
        yield found


@pytest.mark.kernel
@pytest.mark.parametrize("prefix", ["ip_", "nf_", "nf_tables:nft_", "nf_conntrack:nf_"])
def test_they_are_those_that_the_kernel_lists(kernels: Addresses, listed: dict[str, int], prefix: str) -> None:
    names = [name for name in listed if name.startswith(prefix)][:MANY]
    assert len(names) > 20
    assert kernels.find(names) == [listed[name] for name in names]


@pytest.mark.kernel
def test_what_is_not_there_has_none(kernels: Addresses, listed: dict[str, int]) -> None:
    long = "n" * addresses.NAME_BYTES
    names = ["ip_rcv", "no_such_function", "nf_tables:ip_rcv", "no_module:ip_rcv", "", long, long[1:], "ip_output"]
    assert kernels.find(names) == [listed["ip_rcv"], *[0] * 6, listed["ip_output"]]
    assert kernels.find([]) == []


@pytest.mark.kernel
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_any_number_is_looked_up(kernels: Addresses, listed: dict[str, int], offset: int) -> None:
    count = addresses.SLOTS + offset
    assert kernels.find(["ip_rcv"] * (count - 1) + ["ip_output"]) == [listed["ip_rcv"]] * (count - 1) + [
        listed["ip_output"]
    ]


@pytest.mark.kernel
def test_nothing_is_left_open_where_the_kernel_refuses_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(bpf, "load_program", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(PermissionError):
        Addresses()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
