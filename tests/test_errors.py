from __future__ import annotations

import errno
import os
import pickle

import pytest

from harness.errors import (
    MORE_MEMORY,
    NO_MEMORY,
    BrokenMeasurement,
    HarnessError,
    Position,
    ScenarioError,
    Unsupported,
    short_of,
    shortage,
    shortage_in,
    together,
)


@pytest.mark.parametrize(
    "error",
    [
        ScenarioError("a wrong port", Position("edge.yaml", 3, 7), remedy="choose another"),
        Unsupported("no probes", remedy="boot another kernel"),
        BrokenMeasurement("3 events lost"),
    ],
)
def test_an_error_travels_to_another_process_and_says_the_same(error: HarnessError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), f"{NO_MEMORY}; {MORE_MEMORY}"),
        (SystemError("<function f at 0x7> returned NULL without setting an exception"), f"{NO_MEMORY}; {MORE_MEMORY}"),
        (SystemError("error return without exception set"), f"{NO_MEMORY}; {MORE_MEMORY}"),
        (SystemError("bad argument to internal function"), "None"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), f"{NO_MEMORY}; {MORE_MEMORY}"),
        (OSError(errno.EMFILE, "Too many open files", "t.nft"), "t.nft: this process may not open more files"),
        (OSError(errno.ENOSPC, "No space left on device", "r.html"), "r.html: no space left on device"),
        (OSError(errno.EINVAL, "Invalid argument"), "None"),
        (ValueError("one"), "None"),
    ],
)
def test_what_a_machine_has_too_little_of_is_a_sentence(error: Exception, said: str) -> None:
    assert str(shortage(error)).startswith(said)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("OSError: libLLVM-14.so.1: failed to map segment from shared object", NO_MEMORY),
        ("python: error while loading shared libraries: libz.so.1: cannot map zero-fill pages", NO_MEMORY),
        ("LLVM ERROR: out of memory\nAllocation failed", NO_MEMORY),
        ("netlink.c:62: Memory allocation failure", NO_MEMORY),
        ("modprobe: ERROR: could not insert 'x': Cannot allocate memory", NO_MEMORY),
        ("terminate called after throwing an instance of 'std::bad_alloc'", NO_MEMORY),
        ("libnftables.so.1: cannot open shared object file: Too many open files", "this process may not open more"),
        ("OSError: [Errno 23] Too many open files in system: '/x'", "all processes together may not open more"),
        ("libnftables.so.1: cannot open shared object file: No such file or directory", "None"),
        ("", "None"),
    ],
)
def test_what_a_program_says_that_has_too_little_is_the_same_sentence(printed: str, said: str) -> None:
    assert str(shortage_in(printed)).startswith(said)


@pytest.mark.parametrize(("number", "is_short"), [(errno.ENOMEM, True), (errno.EMFILE, True), (errno.EPERM, False)])
def test_a_machine_that_had_too_little_is_not_unable(number: int, is_short: bool) -> None:
    def attach() -> None:
        try:
            raise OSError(number, os.strerror(number))
        except OSError:
            raise Unsupported("the kernel refuses probes") from None

    with pytest.raises(Unsupported) as refused:
        attach()
    found = short_of(refused.value)
    assert isinstance(found, BrokenMeasurement) is is_short
    assert not is_short or str(found).startswith("the kernel refuses probes: this process may not ")


def test_mistakes_found_together_travel_together() -> None:
    errors = [ScenarioError(sentence, Position("edge.yaml", line)) for line, sentence in enumerate("abc", 1)]
    found = together([together(errors[:2]), errors[2]])
    assert found.each == tuple(errors)
    assert [str(one) for one in pickle.loads(pickle.dumps(found)).each] == list(map(str, errors))
