"""Progress on a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from harness.vm.progress import shown, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_a_line_for_each_step() -> None:
    with shown(log := io.StringIO()) as progress:
        for percent in (None, 10.0, 90.0):
            progress("downloading", percent)
        progress("unpacking", None)
    assert log.getvalue() == "downloading\nunpacking\n"


def test_a_terminal_has_one_line_for_each_step_with_its_percentage() -> None:
    with shown(terminal := Terminal()) as progress:
        progress("downloading", 9.6)
        progress("downloading", 100)
        progress("unpacking", None)
    lines = terminal.getvalue().split("\n")
    assert [line.rpartition("\x1b[K")[2] for line in lines] == ["downloading: 100 %", "unpacking", ""]
    assert lines[0].count("\r") == 2


def test_the_line_ends_when_a_step_fails() -> None:
    terminal = Terminal()

    def fail() -> None:
        with shown(terminal) as progress:
            progress("downloading", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert terminal.getvalue().endswith("\n")


def test_nothing_is_written_where_nothing_was_done() -> None:
    with shown(terminal := Terminal()):
        silent("downloading", 1)
    assert terminal.getvalue() == ""
