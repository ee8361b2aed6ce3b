"""Results on disk: they are read as they were, and take no memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.errors import HarnessError
from harness.model import result, stored_results
from harness.model.result import Result
from harness.model.stored_results import StoredResults

Make = Callable[..., Result]


def changed(one: Result) -> Result:
    """A result in which a step has taken away the first rule."""
    assert one.ruleset is not None
    ruleset = msgspec.structs.replace(one.ruleset, rules=one.ruleset.rules[1:])
    return msgspec.structs.replace(
        one, sent=(*one.sent, msgspec.structs.replace(one.sent[0], action=1, ruleset=ruleset))
    )


def test_results_are_read_as_they_were_in_the_order_of_their_files(make_result: Make) -> None:
    given = [changed(make_result(line=9)), make_result("dropped", accepted=False, line=7), make_result(kernel="7.2")]
    given.append(msgspec.structs.replace(make_result(line=1), sent=(), ruleset=None, lab=None, outcome="skipped"))
    kept = StoredResults(given)
    assert list(kept) == given
    assert kept[1:3] == given[1:3]
    kept.sort()
    assert list(kept) == sorted(given, key=result.order)
    assert len(kept) == len(given)
    assert kept[-1] == given[0]


def test_a_ruleset_of_many_scenarios_is_there_once(make_result: Make) -> None:
    first, second, other = StoredResults([make_result(), make_result("two"), changed(make_result())])
    assert first.ruleset is second.ruleset is other.ruleset
    assert other.sent[1].ruleset is not first.ruleset


def test_memory_does_not_grow_with_what_was_seen(make_result: Make) -> None:
    (sent,) = make_result().sent
    one = make_result(message="what was seen")
    large = msgspec.structs.replace(one, sent=(sent,) * 20)
    assert len(result.encode(large)) > 50_000
    kept = StoredResults([large])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            kept.add(large)
        assert tracemalloc.get_traced_memory()[0] - before < 200 * 1000
    finally:
        tracemalloc.stop()


def test_a_full_disk_is_a_sentence_and_the_others_are_still_there(
    make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = StoredResults([make_result()])
    with open("/dev/full", "r+b", buffering=0) as full:  # noqa: PTH123 - not seekable as pathlib opens it
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        with pytest.raises(HarnessError, match=r"results can't be kept in .*: No space left on device"):
            StoredResults([make_result()])
    assert list(kept) == [make_result()]


def test_a_file_of_lines_is_read_line_by_line(
    make_result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"".join(result.encode(make_result(line=line)) + b"\n" for line in (9, 7)))
    assert [one.position.line for one in stored_results.load([file])] == [7, 9]
    monkeypatch.setattr(result, "RESULT_BYTES", 1 << 10)
    with pytest.raises(HarnessError, match="has a line that is larger than 1 KiB"):
        stored_results.load([file])
