"""The microVM as a Python: the real thing, booted by QEMU."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.vm import microvm
from harness.vm.guest import Guest
from harness.vm.kernel_image import Image
from harness.wait import wait_until

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 300.0
"""Seconds: what takes five here may share its CPU with a full test run."""


def wrapper(image: Image, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness.vm.microvm", "--kernel", str(image.vmlinuz), *arguments]


def guest(
    image: Image, *arguments: str, given: str = "", variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        wrapper(image, *arguments),
        input=given,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **(variables or {})},
        timeout=PATIENCE,
    )


PROGRAM = """
import json, os, subprocess, sys
from pathlib import Path

def content(path):
    return Path(path).read_text().strip()

print("something went wrong", file=sys.stderr)
subprocess.run(["modprobe", "nf_tables"], check=True)
Path("written-in-the-guest").write_text("")
json.dump({
    "argv": sys.argv[1:],
    "stdin": sys.stdin.read(),
    "release": os.uname().release,
    "cwd": os.getcwd(),
    "executable": sys.executable,
    "variable": os.environ.get("NFT_HARNESS_TEST"),
    "secret": os.environ.get("SECRET_TEST"),
    "user": os.getuid(),
    "modules": content("/proc/modules"),
    "modprobe": content("/proc/sys/kernel/modprobe"),
    "kptr_restrict": content("/proc/sys/kernel/kptr_restrict"),
    "tracefs": os.path.exists("/sys/kernel/tracing/available_filter_functions"),
    "bpffs": os.path.ismount("/sys/fs/bpf"),
    "loopback": content("/sys/class/net/lo/flags"),
    "time": __import__("time").time(),
    "ip": subprocess.run(["ip", "netns", "list"]).returncode,
}, sys.stdout)
print()
sys.exit(7)
"""


@pytest.fixture(scope="module")
def answer(image: Image) -> subprocess.CompletedProcess[str]:
    """What :data:`PROGRAM` had to say."""
    carried = {"NFT_HARNESS_TEST": 'it\'s "quoted"\n$HOME', "SECRET_TEST": "of the host"}
    return guest(image, "-c", PROGRAM, "a b", "--kernel", "$x", given="first\nsecond", variables=carried)


class TestAsPython:
    def test_streams_and_status_are_the_programs(self, answer: subprocess.CompletedProcess[str]) -> None:
        assert json.loads(answer.stdout)["stdin"] == "first\nsecond"
        assert answer.stderr == "something went wrong\n"
        assert answer.returncode == 7

    def test_is_the_same_python_in_another_kernel(self, image: Image, answer: subprocess.CompletedProcess[str]) -> None:
        seen = json.loads(answer.stdout)
        assert seen["release"] == image.release
        assert seen["executable"] == sys.executable
        assert seen["cwd"] == str(REPOSITORY)
        assert seen["argv"] == ["a b", "--kernel", "$x"]

    def test_carries_the_variables_that_are_for_it(self, answer: subprocess.CompletedProcess[str]) -> None:
        seen = json.loads(answer.stdout)
        assert seen["variable"] == 'it\'s "quoted"\n$HOME'
        assert seen["secret"] is None

    def test_can_trace_and_filter(self, answer: subprocess.CompletedProcess[str]) -> None:
        seen = json.loads(answer.stdout)
        assert seen["user"] == 0
        assert "nf_tables" in seen["modules"]
        assert Path(seen["modprobe"]).exists()
        assert seen["kptr_restrict"] == "0"
        assert seen["tracefs"]
        assert seen["bpffs"]
        assert int(seen["loopback"], 16) & 1, "lo is down"
        assert seen["ip"] == 0, "ip is not iproute2's"

    def test_has_the_hosts_time(self, answer: subprocess.CompletedProcess[str]) -> None:
        age = (REPOSITORY / "pyproject.toml").stat().st_mtime
        assert json.loads(answer.stdout)["time"] > age

    def test_leaves_the_hosts_files_alone(self, answer: subprocess.CompletedProcess[str]) -> None:
        assert answer.returncode == 7
        assert not (REPOSITORY / "written-in-the-guest").exists()


def test_much_output_arrives_whole(image: Image) -> None:
    # Unbuffered, Python leaves all of it to one write(2).
    program = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
    text = "".join(f"{number:06}" for number in range(500_000))
    done = guest(image, "-u", "-c", program, given=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == text[::-1]


def test_runs_any_program(image: Image) -> None:
    program = ["sh", "-c", "uname -r | cat /dev/stdin >/dev/stdout; echo said >/dev/stderr; sleep 1000 & kill -9 $$"]
    command = [sys.executable, "-m", "harness.cli", "vm", "--kernel", str(image.vmlinuz), "--", *program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE)
    assert result.stdout == f"{image.release}\n"
    assert "said\n" in result.stderr
    assert result.returncode == 128 + signal.SIGKILL


WAITS = """
import sys
from harness.vm import microvm
microvm.ENDING_S = 120.0
sys.exit(microvm.main(sys.argv[1:]))
"""


def test_a_guest_that_nobody_wants_any_more_is_not_asked_why_it_ended(image: Image) -> None:
    """It is one whose controller has what it wants, at the end of each run; QEMU is killed."""
    options = ["--kernel", str(image.vmlinuz), "--start", microvm.COLD, "--until", "eof"]
    process = subprocess.run(
        [sys.executable, "-c", WAITS, *options, "-c", "import time; time.sleep(3600)"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (process.returncode, process.stderr) == (0, "")


class TestWhenTheGuestFails:
    def test_a_panic_is_shown_with_the_kernels_words(self, image: Image) -> None:
        result = guest(image, "-c", "print('before', flush=True); open('/proc/sysrq-trigger', 'w').write('c')")
        assert "before\n".startswith(result.stdout)  # what was on its way is lost
        assert result.returncode == microvm.NO_STATUS
        console, last = result.stderr.rstrip("\n").rsplit("\n", 1)
        assert last == "nft-harness: the guest ended before its program did: kernel panic, sysrq triggered crash"
        assert "sysrq_handle_crash" in console

    def test_a_boot_that_panics_is_shown(self, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(
            "XDG_CACHE_HOME", str(tmp_path)
        )  # no files to preload, which so little memory would not hold
        result = guest(image, "--memory", "72", "-c", "")
        assert result.returncode == microvm.NO_STATUS
        console, last = result.stderr.rstrip("\n").rsplit("\n", 1)
        assert last == "nft-harness: the guest ended before it was up: kernel panic, System is deadlocked on memory"
        assert "out_of_memory" in console

    def test_a_boot_that_takes_too_long_is_ended(self, image: Image) -> None:
        result = guest(image, "--start", microvm.COLD, "--deadline", "0.05", "-c", "")
        assert result.returncode == microvm.NO_STATUS
        assert result.stderr.endswith("nft-harness: the guest was not up within 0.05 s\n")

    def test_a_kernel_that_hangs_is_ended(self, image: Image) -> None:
        # A real-time task that never yields the only CPU, and no share left for others: nothing else will run.
        hog = (
            "import os, pathlib\n"
            "pathlib.Path('/proc/sys/kernel/sched_rt_runtime_us').write_text('-1')\n"
            "others = pathlib.Path('/sys/kernel/debug/sched/fair_server/cpu0/runtime')\n"
            "others.exists() and others.write_text('0')\n"
            "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))\n"
            "while True: pass"
        )
        result = guest(image, "--silence", "5", "-c", hog)
        assert result.returncode == microvm.NO_STATUS
        assert "the guest hangs: it sent nothing for 5 s" in result.stderr

    def test_a_qemu_that_refuses_is_quoted(self, image: Image) -> None:
        result = guest(image, "--cpus", "100000", "-c", "")
        assert result.returncode == microvm.NO_STATUS
        assert "qemu-system-x86_64: Invalid SMP CPUs 100000" in result.stderr

    def test_the_console_can_be_read_elsewhere(
        self, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no files to preload
        planned = Guest(image, "tcg")
        _, _, python = planned.spec().split("//")
        command = [*python.removeprefix("python=").split(), "--memory", "72", "-c", ""]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
        ) as worker:
            assert worker.stderr
            assert len(worker.stderr.readlines()) == 1
        assert "out_of_memory" in planned.console()

    def test_a_worker_ends_with_its_input(self, image: Image) -> None:
        _, _, python = Guest(image, "tcg").spec().split("//")
        command = [*python.removeprefix("python=").split(), "-c", "import signal; signal.pause()"]
        result = subprocess.run(command, input="", capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE)
        assert (result.returncode, result.stderr) == (0, "")


class TestNothingOutlivesTheCaller:
    @pytest.fixture
    def caller(self, image: Image) -> Iterator[subprocess.Popen[str]]:
        """A process that waits for its child, a guest which has said that its program runs."""
        command = wrapper(image, "-c", "import signal; print('up', flush=True); signal.pause()")
        program = f"import subprocess\ntry: subprocess.run({command!r})\nexcept KeyboardInterrupt: pass"
        argv = [sys.executable, "-c", program]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY, start_new_session=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            yield process
            process.kill()

    @pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
    def test_killed(self, caller: subprocess.Popen[str], blow: signal.Signals) -> None:
        family = descendants(caller.pid)
        caller.send_signal(blow)
        wait_until(lambda: not any(map(alive, family)), 10, "the wrapper and QEMU to end")

    def test_interrupted_from_the_terminal(self, caller: subprocess.Popen[str]) -> None:
        family = descendants(caller.pid)
        os.killpg(caller.pid, signal.SIGINT)
        wait_until(lambda: not any(map(alive, family)), 10, "the wrapper and QEMU to end")
        assert caller.stderr
        assert caller.stderr.read() == "", "the wrapper should end without a word"


def descendants(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    family = [int(child) for child in children]
    return family + [member for child in family for member in descendants(child)]


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_is_a_worker_of_xdist(image: Image, tmp_path: Path) -> None:
    (tmp_path / "test_there.py").write_text(
        "import os\n"
        f"def test_kernel(): assert os.uname().release == {image.release!r}\n"
        "def test_folder(tmp_path): (tmp_path / 'x').write_text('y')\n"
        "def test_wrong(): print('said in the guest'); assert 1 == 2\n"
    )
    worker = f"popen//id=there//python={shlex.join(wrapper(image))}"
    command = [sys.executable, "-m", "pytest", "-d", "--tx", worker, "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        timeout=PATIENCE,
    )
    assert "1 failed, 2 passed" in result.stdout
    assert "assert 1 == 2" in result.stdout
    assert "said in the guest" in result.stdout
    assert "[there]" in result.stdout
    assert result.stderr == ""


def test_the_process_beside_a_guest_imports_little() -> None:
    program = "import sys, harness.vm.microvm; print(len(sys.modules), *sys.modules)"
    number, *modules = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not {"pytest", "_pytest", "xdist", "execnet", "scapy", "ruamel", "yaml", "nftables", "bcc"} & {*modules}
    assert int(number) <= 220


class TestMissing:
    @pytest.fixture(autouse=True)
    def bare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_qemu(self, image: Image) -> None:
        with pytest.raises(Unsupported, match="qemu-system-x86_64 is missing; run apt-get install qemu-system-x86"):
            Guest.plan(image)
