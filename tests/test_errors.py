from __future__ import annotations

import errno
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
    shortage,
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
        (OSError(errno.ENOMEM, "Cannot allocate memory"), f"{NO_MEMORY}; {MORE_MEMORY}"),
        (OSError(errno.EMFILE, "Too many open files", "t.nft"), "t.nft: this process may not open more files"),
        (OSError(errno.ENOSPC, "No space left on device", "r.html"), "r.html: no space left on device"),
        (OSError(errno.EINVAL, "Invalid argument"), "None"),
        (ValueError("one"), "None"),
    ],
)
def test_what_a_machine_has_too_little_of_is_a_sentence(error: Exception, said: str) -> None:
    assert str(shortage(error)).startswith(said)


def test_mistakes_found_together_travel_together() -> None:
    errors = [ScenarioError(sentence, Position("edge.yaml", line)) for line, sentence in enumerate("abc", 1)]
    found = together([together(errors[:2]), errors[2]])
    assert found.each == tuple(errors)
    assert [str(one) for one in pickle.loads(pickle.dumps(found)).each] == list(map(str, errors))
