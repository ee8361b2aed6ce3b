"""How ``nft-harness`` ends: a test for each row of the table in docs/reports.md, as far as no other file has it.

125 is in kernel/test_microvm.py, the statuses of commands in test_trace.py and test_enter.py.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

import harness.cli
from harness import ending
from harness.cli import main
from harness.ending import check, exit_status, in_order, interruptible, interrupts_deferred
from harness.errors import MORE_MEMORY, NO_MEMORY, HarnessError
from harness.model.result import Result, encode
from tests.trials import make_project

HARNESS = [sys.executable, "-m", "harness.cli"]
SCENARIO = """lab: router
ruleset: t.nft
scenarios:
  - name: dropped
    send: {from: client, to: server, udp: {dport: 9}}
    expect: {verdict: VERDICT}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_result: Callable[..., Result]) -> Path:
    """A folder with a right scenario file, a wrong one, and a result of which half is covered."""
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "t.nft").write_text("table inet t { }\n")
    (tmp_path / "right.yaml").write_text(SCENARIO.replace("VERDICT", "drop"))
    (tmp_path / "wrong.yaml").write_text(SCENARIO.replace("VERDICT", "dropp"))
    (tmp_path / "result.jsonl").write_bytes(encode(make_result("HTTPS")) + b"\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("check right.yaml", 0),
        ("check wrong.yaml", 1),
        ("check nowhere.yaml", 1),
        ("kernels list", 0),
        ("lab show right.yaml", 0),
        ("lab show nowhere.yaml", 2),
        ("lab enter right.yaml::nowhere -- true", 2),
        ("lab enter right.yaml --host nowhere -- true", 2),
        ("init nowhere.nft", 2),
        ("report result.jsonl --cov-fail-under 1", 0),
        ("report result.jsonl --cov-fail-under 100", 1),
        ("report nowhere.jsonl", 2),
        ("report result.jsonl --html /dev/null/report.html", 2),
        ("discover --output /dev/null/functions.json", 2),
        ("trace --config nowhere.json", 2),
        ("vm --kernel ./nowhere -- true", 2),
        ("check --kernel 5.9 right.yaml", 2),
        ("check --nft-program xx right.yaml", 2),
        ("vm -- nowhere", 127),
        ("vm -- ./right.yaml", 126),
        ("trace -- nowhere", 127),
        ("trace -- ./right.yaml", 126),
        ("lab enter right.yaml -- nowhere", 127),
        ("lab enter right.yaml -- ./right.yaml", 126),
    ],
)
def test_each_command_ends_with_its_status(command: str, status: int, project: Path) -> None:
    done = subprocess.run([*HARNESS, *command.split()], capture_output=True, text=True)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_a_sentence_and_2() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*HARNESS, "schema"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "nft-harness: error: no space left on device\n")


def test_a_reader_that_has_seen_enough_is_141() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([*HARNESS, "schema"], stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_bug_is_70(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("harness.vm.images.images", lambda: 1 / 0)
    assert main(["kernels", "list"]) == 70
    assert capsys.readouterr().err.endswith("this is a bug in nft-harness, please report it\n")


def test_memory_that_cannot_be_had_is_a_sentence_and_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def take() -> None:
        bytearray(1 << 62)

    monkeypatch.setattr("harness.vm.images.images", take)
    assert main(["kernels", "list"]) == 2
    said = capsys.readouterr().err
    assert said == f"nft-harness: error: {NO_MEMORY}; {MORE_MEMORY}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_128_and_its_number_and_nothing_is_left(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path):
            os.kill(os.getpid(), number)
            threading.Event().wait(10)
        raise AssertionError("the signal did not end it")

    monkeypatch.setattr("harness.vm.images.images", work)
    before = signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored
    try:
        with pytest.raises(SystemExit, match=str(128 + number)):
            main(["kernels", "list"])
        assert list(tmp_path.iterdir()) == []
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("error", [HarnessError("one"), OSError(errno.ENOSPC, "No space"), ValueError("a bug")])
def test_ctrl_c_while_an_error_is_shown_is_no_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.cli, "_run", fail)
    monkeypatch.setattr(harness.cli, "say", interrupt)
    monkeypatch.setattr("traceback.print_exc", interrupt)
    assert main(["doctor"]) == 128 + signal.SIGINT


@pytest.mark.parametrize("comes", ["ending._deferred.add(signal.SIGINT)", "signal.raise_signal(signal.SIGINT)"])
def test_ctrl_c_that_comes_when_pytest_is_done_changes_nothing(comes: str, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project / "conftest.py").write_text(
        f"import signal\nfrom harness import ending\ndef pytest_unconfigure(): {comes}\n"
    )
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 tests collected" in done.stdout


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_in_a_destructor_is_not_lost(number: signal.Signals, error: type[BaseException]) -> None:
    class Destroyed:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            threading.Event().wait(0)

    def destroy() -> None:
        Destroyed()
        threading.Event().wait(10)
        raise AssertionError("the signal did not come again")

    with in_order(), pytest.raises(error):
        destroy()


INTERRUPTED = """import os, signal
whole = False
try:
    os.kill(os.getpid(), signal.{number})
    import quopri
except BaseException:  # as the C code of an extension module may do
    pass
else:
    whole = True
"""
IMPORTER = """def load():
    import interrupted
    return interrupted.whole
"""
TEMPORARY = """import os, signal, tempfile
whole = []

class Interrupting:
    def __fspath__(self):
        os.kill(os.getpid(), signal.{number})
        whole.append(True)
        return "{folder}"

def load():
    tempfile.TemporaryDirectory(dir=Interrupting()).cleanup()
    return whole
"""
WITHIN = [(in_order, "SIGINT", KeyboardInterrupt), (in_order, "SIGTERM", SystemExit)]
WITHIN += [(interrupts_deferred, "SIGINT", KeyboardInterrupt)]


@pytest.mark.parametrize(("within", "number", "error"), WITHIN)
@pytest.mark.parametrize("what", ["import", "tempfile"])
def test_what_must_not_be_interrupted_is_completed_before_a_signal_ends_us(
    what: str,
    within: Callable[[], AbstractContextManager[None]],
    number: str,
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED.format(number=number))
    texts = {"import": IMPORTER, "tempfile": TEMPORARY}
    (tmp_path / "importer.py").write_text(texts[what].format(number=number, folder=tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ending, "OURS", str(tmp_path))
    monkeypatch.delitem(sys.modules, "interrupted", raising=False)
    monkeypatch.delitem(sys.modules, "importer", raising=False)
    importer = importlib.import_module("importer")

    completed = []

    def work() -> None:
        completed.append(importer.load())
        threading.Event().wait(10)
        raise AssertionError("the signal did not come again")

    with pytest.raises(error), within():
        work()
    assert completed
    assert completed[0]


@pytest.mark.parametrize(("within", "number", "error"), WITHIN)
def test_an_import_of_a_users_module_is_interrupted(
    within: Callable[[], AbstractContextManager[None]],
    number: str,
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "endless.py").write_text(
        f"import os, signal, time\nos.kill(os.getpid(), signal.{number})\ntime.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error), within():
        importlib.import_module("endless")


INTERRUPTS = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == "{at}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
try:
    import {module}
except (KeyboardInterrupt, SystemExit) as end:
    print(repr(end), "whole" if "{last}" in sys.modules else "in the middle")
"""


@pytest.mark.parametrize(
    ("module", "at", "last", "end"),
    [
        ("harness.plugin", "msgspec._core", "harness.tracer.engines", "KeyboardInterrupt()"),
        ("harness.plugin", "harness.project", "harness.tracer.engines", "KeyboardInterrupt()"),
        ("harness.cli", "harness.cli.machine", "harness.text", "SystemExit(130)"),
    ],
)
def test_ctrl_c_while_we_are_imported_leaves_no_half_module(module: str, at: str, last: str, end: str) -> None:
    """The command ends as it does on Ctrl-C at any other time; of a plugin it is up to pytest."""
    program = INTERRUPTS.format(module=module, at=at, last=last)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{end} whole\n", "")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_a_library_has_dropped_is_raised_before_a_wait(
    number: signal.Signals, error: type[BaseException]
) -> None:
    with in_order():
        with suppress(error):
            os.kill(os.getpid(), number)
        with pytest.raises(error):
            check()
        with pytest.raises(error), interruptible():
            pass


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with in_order(), interruptible() as interrupted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_part_of_anothers_program_leaves_nothing_and_ends_as_that_does(
    number: signal.Signals, tmp_path: Path
) -> None:
    program = (
        "import signal, tempfile\n"
        "from harness.ending import leaving_nothing\n"
        f"with leaving_nothing(), tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):\n"
        "    print('there', flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        process.communicate()
    assert process.returncode == -number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    with in_order(), interruptible() as interrupted:
        assert interrupted() == 0
        os.kill(os.getpid(), number)
        assert interrupted() == number
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            os.kill(os.getpid(), number)


def test_statuses_of_programs_are_a_shells() -> None:
    assert [exit_status(code) for code in (0, 7, -9)] == [0, 7, 137]


DATETIME = """
import sys

def interrupt(frame, event, argument):
    if event == "call" and frame.f_code.co_filename.endswith("datetime.py"):
        sys.setprofile(None)
        raise KeyboardInterrupt

sys.setprofile(interrupt)
try:
    import harness.model.observation
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_in_the_import_that_msgspec_does_by_itself_is_not_lost() -> None:
    # Its C code would go on without datetime, and crash later.
    done = subprocess.run([sys.executable, "-c", DATETIME], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
