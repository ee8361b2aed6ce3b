"""The controller's side of a program that measures packets: what it asks, and what it makes of the answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from harness.batch.messages import AskedLook, Listed
from harness.batch.session import BatchSession
from harness.errors import HarnessError

Start = Callable[[str], BatchSession]


@pytest.fixture
def start() -> Iterator[Start]:
    """A session with a program that is only a few lines."""
    with ExitStack() as stack:

        def open_(script: str) -> BatchSession:
            complaints = stack.enter_context(TemporaryFile())
            program = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
                )
            )
            stack.callback(program.kill)
            return BatchSession(program, complaints)

        yield open_


LISTS = """
import sys
for number, line in enumerate(sys.stdin):
    assert line.startswith('{"type":"look"'), line
    print('a line of a library')
    print('{"listing": "%d"}' % number)
    print('{"listing": "again"}')
    print(flush=True)
"""
ASKED = AskedLook(paths=("edge.nft",))


def listed(session: BatchSession) -> list[str]:
    return [one.listing for one in session.answers(ASKED, Listed)]


def test_each_request_has_its_own_answers(start: Start) -> None:
    session = start(LISTS)
    assert [listed(session) for _ in range(2)] == [["0", "again"], ["1", "again"]]


def test_a_refusal_is_an_error_and_the_next_request_is_answered(start: Start) -> None:
    session = start(
        'import sys\nsys.stdin.readline()\nprint(\'{"refused": "edge.nft:3: wrong"}\\n\', flush=True)\n'
        'sys.stdin.readline()\nprint(\'{"listing": "x"}\\n\', flush=True)'
    )
    with pytest.raises(HarnessError, match=r"edge\.nft:3: wrong"):
        listed(session)
    assert listed(session) == ["x"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('one\\nMemoryError: \\x1b[2J')", r"ended early: MemoryError: \\x1b\[2J"),
        (
            "import sys; sys.exit('NftError: t.nft:1:1: Error: no\\n  add x\\n  ^^^')",
            "ended early: NftError: t.nft:1:1: Error: no$",
        ),
        ("", "ended early: it printed nothing"),
    ],
)
def test_an_early_end_is_told_with_the_last_words(script: str, said: str, start: Start) -> None:
    session = start(script)
    with pytest.raises(HarnessError, match=said):
        listed(session)


def test_paths_are_sent_as_text(start: Start) -> None:
    session = start("import sys\nsys.stderr.write(sys.stdin.readline())")
    with pytest.raises(HarnessError, match=r'"paths":\["/x/edge.nft"\]'):
        session.look([Path("/x/edge.nft")])
