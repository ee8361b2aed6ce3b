"""A command that is run on a terminal of its own, and ended at some instant: what becomes of it, and what it leaves."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from harness.ending import IMPORTS
from harness.model import layers, result
from harness.scenario.load import load_all

DEADLINE_S = 60.0
"""From the signal to the end of the command; a quiet machine needs less than one."""
GONE_S = 20.0
"""From the end of the command to the end of all that it started."""
MARK = "NFT_INTERRUPT_TRIAL"
"""Environment variable by which all that a trial started is found."""

HARNESS = [sys.executable, "-m", "harness.cli"]
OURS = re.compile(r'/harness/[\w/]+\.py", line \d+, in (?!<module>)')
"""Line of a traceback: a function of this project ran."""

RULESET = """table inet t {
	chain f {
		type filter hook forward priority 0; policy drop;
		tcp dport { 80, 443 } accept
		udp dport 53 accept
	}
}
"""
SCENARIO = (
    "  - {{name: {name}, send: {{from: client, to: server, tcp: {{dport: {port}}}}}, expect: {{verdict: {verdict}}}}}\n"
)
BEGUN = "lab: router\nruleset: ../t.nft\nscenarios:\n"

STATUSES = {"Ctrl-C": (130, 2, -2), "SIGINT": (130, 2, -2), "SIGTERM": (143, -15)}
"""Exit statuses of those that a signal has ended; 2 is pytest's."""

Send = Callable[[subprocess.Popen[bytes], int], object]
WAYS: dict[str, Send] = {
    "Ctrl-C": lambda _, terminal: os.write(terminal, b"\x03"),
    "SIGINT": lambda process, _: process.send_signal(signal.SIGINT),
    "SIGTERM": lambda process, _: process.send_signal(signal.SIGTERM),
}
KILLED: dict[str, tuple[int, ...]] = {**STATUSES, "SIGKILL": (-signal.SIGKILL,), "a child's SIGKILL": (2, 3)}
"""Exit statuses of those that something has killed."""
SENDS: dict[str, Send] = {
    **WAYS,
    "SIGKILL": lambda process, _: process.kill(),
    "a child's SIGKILL": lambda process, _: kill_child(process),
}


class Trial(NamedTuple):
    """What became of one."""

    after_s: float
    """The instant of the signal."""
    took_s: float
    """From then to the end."""
    status: int | None
    """None when it had to be killed."""
    left: tuple[str, ...]
    """Processes and files."""
    output: str

    def wrong(self, good: Collection[int]) -> str:
        """What must not be; "" for a good end."""
        if self.status is None:
            return f"did not end within {DEADLINE_S:g} s"
        if self.left:
            return f"left {', '.join(self.left)}"
        if "Traceback" in self.output:
            return "printed a traceback" if any(map(could_catch, self.output.split("Traceback")[1:])) else ""
        return "" if self.status in good else f"ended with status {self.status}"


def could_catch(traceback: str) -> bool:
    """Whether a function of this project ran, and not only since a module of it was being imported.

    Until a program is imported it has no say in what Python prints: pytest lets an exception from the import of a
    plugin through, also when a module of that plugin calls a function to make one of its constants.
    """
    ours = OURS.search(traceback)
    return ours is not None and IMPORTS not in traceback[: ours.start()]


def trial(command: list[str], send: Send, after_s: float, project: Path, **variables: str) -> Trial:
    """Run ``command`` in ``project`` on a terminal and send the signal after ``after_s`` seconds."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as temporary:
        environment = {
            **os.environ,
            **variables,
            MARK: mark,
            "TMPDIR": temporary,
            "PYTEST_ADDOPTS": "",
            "PYTHONFAULTHANDLER": "1",
        }
        master, slave = os.openpty()

        def on_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it starts in the background ignore it

        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=on_terminal,
        )
        os.close(slave)
        parts: list[bytes] = []
        reader = threading.Thread(target=drain, args=(master, parts), daemon=True)
        reader.start()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            send(process, master)
        sent, status = time.monotonic(), None
        try:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(DEADLINE_S)
            took = time.monotonic() - sent
            if status is None:
                process.send_signal(signal.SIGABRT)  # Python says where it is
                process.wait()
            while (left := alive(mark)) and status is not None and time.monotonic() - sent - took < GONE_S:
                time.sleep(0.05)
        finally:
            for pid in alive(mark):
                os.kill(pid, signal.SIGKILL)
            process.wait()
            os.close(master)
        left = () if status is None else (*left.values(), *files(Path(temporary)))
        return Trial(after_s, took, status, left, b"".join(parts).decode(errors="replace"))


def drain(terminal: int, parts: list[bytes]) -> None:
    try:
        while data := os.read(terminal, 1 << 16):
            parts.append(data)
    except OSError:  # EIO: nobody has it open any more
        pass


def alive(mark: str) -> dict[int, str]:
    """The processes of a trial, by their numbers."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
        except OSError:
            continue  # it has ended
    return found


def files(folder: Path) -> list[str]:
    """What is left in the folder for temporary files; pytest keeps those of the last sessions itself."""
    return [str(path.relative_to(folder)) for path in folder.iterdir() if not path.name.startswith("pytest-of-")]


def kill_child(process: subprocess.Popen[bytes]) -> None:
    """Do what the kernel does when memory is short: kill one of the processes that a command has started."""
    if started := sorted(descendants(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(random.choice(started), signal.SIGKILL)


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process and those that it started have started (proc(5), ``children``)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for listed in Path("/proc", str(pid), "task").glob("*/children"):
            for child in map(int, listed.read_text().split()):
                yield child
                yield from descendants(child)


def left_by(one: Trial, way: str) -> tuple[str, ...]:
    """What a trial has left; what a killed process leaves in the folder for temporary files is let pass.

    dpkg-deb is always one: it is killed with us. Python's tempfile tries a folder by a file with a random name.
    """
    killed = way.endswith("SIGKILL")
    passed = ("dpkg-deb.", "nft-harness-") if killed else ("dpkg-deb.",)
    return tuple(
        name for name in one.left if not (name.startswith(passed) or (killed and re.fullmatch(r"[a-z0-9_]{8}", name)))
    )


def wrong_with(one: Trial, way: str) -> str:
    """What is wrong with a trial."""
    return one._replace(left=left_by(one, way)).wrong({*KILLED[way], 0, 1, 6})


def make_project(folder: Path) -> Path:
    """A project with two rulesets, and scenarios of which one is to be recorded anew."""
    (folder / "scenarios").mkdir(parents=True)
    (folder / "t.nft").write_text(RULESET)
    (folder / "u.nft").write_text(RULESET.replace("443", "8443"))
    lines = [SCENARIO.format(name=f"s{port}", port=port, verdict="accept") for port in (80, 443, 22)]
    (folder / "scenarios/t.yaml").write_text(BEGUN + "".join(lines))
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def torn(project: Path) -> str:
    """What of the files of a ``project`` is neither as it was nor whole; "" where all are."""
    for file in sorted((project / "scenarios").glob("*.yaml")):
        loaded = load_all(file, layers=layers.NAMES)
        if loaded.errors or not loaded.cases:
            return f"{file.name}: {loaded.errors}\n{file.read_text()}"
    if len(load_all(project / "scenarios/t.yaml").cases) != 3:
        return "t.yaml has lost scenarios"
    for file in (project / "results").glob(f"*{result.SUFFIX}"):
        result.decode(file.read_bytes(), file.name)
    if (page := project / "r.html").exists() and not page.read_text().rstrip().endswith("</html>"):
        return "r.html has no end"
    if (log := project / "r.sarif").exists():
        msgspec.json.decode(log.read_bytes())
    return ""
