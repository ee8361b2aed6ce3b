from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.linux import features
from harness.linux.features import Support
from harness.vm import images, placement, privileged
from harness.vm.kernel_image import Image
from harness.vm.privileged import Privileged
from harness.vm.progress import silent
from harness.wait import wait_until

NOBODY = 65534
SUDO = """#!{python} -IS
import os, sys
assert sys.argv[1:3] == ["-n", "--"], sys.argv
os.setgroups([])
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
os.umask(0o022)
os.execve(sys.argv[3], sys.argv[3:], {{"PATH": "/usr/bin", "SUDO_USER": "somebody"}})
"""
"""Does what sudo does; its interpreter is a copy of Python with the set-user-ID bit."""


@pytest.fixture
def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a program of a shell script the only sudo there is."""
    (folder := tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def make(script: str) -> None:
        (folder / "sudo").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "sudo").chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (
            "sudo: a password is required",
            r"sudo asks for a password; run sudo -v in this terminal before; or leave out",
        ),
        (
            "sudo: The no new privileges flag is set\nsudo: If sudo is running in a container, adjust it",
            r"sudo cannot be used: The no new privileges flag is set; have your administrator allow it, or leave out",
        ),
        (
            "Sorry, user a may not run that as root on b.",
            r"sudo cannot be used: Sorry, user a may not run that as root on b\.",
        ),
        ("", r"sudo cannot be used: it printed nothing"),
    ],
)
def test_why_sudo_does_not_help(sudo: Callable[[str], None], says: str, sentence: str) -> None:
    sudo(f'[ "$1" = -n ] && echo "{says}" >&2; exit 1')
    with pytest.raises(Unsupported, match=f"tracing the host's kernel needs root, and {sentence}"):
        privileged.ask("auto")


def test_no_sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match=r"there is no sudo; run as root, or install sudo; or leave out --nft-kernel"):
        privileged.ask("auto")


class TestPlaces:
    @pytest.fixture(autouse=True)
    def as_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(features, "function_probes", lambda: Support(False, "it needs root"))

    def test_the_host_is_used_through_sudo_when_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(privileged, "ask", lambda _: Privileged(True, "", True))
        (place,) = placement.choose(["host"], silent)
        assert str(place) == f"the host's kernel {os.uname().release}, with root's capabilities by sudo"
        assert place.engine() == "functions by kprobe.multi"

    def test_a_kernel_without_probes_is_refused_through_sudo_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(privileged, "ask", lambda _: Privileged(False, "the host's kernel has no probes", False))
        with pytest.raises(Unsupported, match="has no probes; leave out --nft-kernel host"):
            placement.choose(["host"], silent)

    @pytest.mark.parametrize("has_probes", [True, False])
    def test_auto_never_asks_sudo_and_names_the_option_where_it_would_help(
        self, has_probes: bool, sudo: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        sudo(f"touch {tmp_path}/called")
        monkeypatch.setattr(privileged, "KPROBES", tmp_path if has_probes else tmp_path / "none")
        image = Image(release="6.12.1", vmlinuz=tmp_path, modules=tmp_path, config=None)
        monkeypatch.setattr(images, "get", lambda *_: image)
        (place,) = placement.choose(["auto"], silent)
        assert place.reason == "it needs root" + (", which --nft-kernel host gets by sudo" if has_probes else "")
        assert not (tmp_path / "called").exists()


# -- by a program that does what sudo does ------------------------------------------------------------------------


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of an ordinary user's, with a program ``bin/sudo`` that asks for no password."""
    if os.geteuid():
        pytest.skip("needs root, to have something to give")
    if "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        pytest.skip("no program gets privileges here (PR_SET_NO_NEW_PRIVS)")
    if os.statvfs(tempfile.gettempdir()).f_flag & (os.ST_NOSUID | os.ST_NOEXEC):
        pytest.skip("the temporary folder is mounted without set-user-ID programs")
    with tempfile.TemporaryDirectory(prefix="nft-harness-test-") as name:
        folder = Path(name)
        os.chown(folder, NOBODY, NOBODY)
        (folder / "bin").mkdir(mode=0o750)
        os.chown(folder / "bin", 0, NOBODY)  # nobody else may use it
        python = shutil.copy(Path(sys.executable).resolve(), folder / "bin/python")
        (folder / "bin/sudo").write_text(SUDO.format(python=python))
        (folder / "bin/sudo").chmod(0o755)
        Path(python).chmod(0o4755)
        yield folder


def as_nobody(home: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    """Run Python as a user who may read what root may, so that it does not matter where this environment is."""
    return subprocess.Popen(
        [
            *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
            *("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"),
            *("sh", "-c", 'umask 027; exec "$@"', "sh", sys.executable, *command),
        ],
        cwd=home,
        env={
            "PATH": f"{home}/bin:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(Path(privileged.__file__).parents[2]),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


STARTER = """
import subprocess, sys
from harness.vm import privileged
sys.exit(subprocess.run([*privileged.wrapper(), "-c", sys.argv[1]]).returncode)
"""


class TestWorker:
    def test_it_is_the_user_with_roots_capabilities_and_the_users_environment(self, home: Path) -> None:
        worker = """
import ctypes, os, sys
from pathlib import Path
Path("written").touch()
status = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
print(os.getuid(), os.getgroups(), status["CapEff"] == status["CapBnd"], status["Umask"], sep="|")
print(os.environ["SECRET"], os.environ["HOME"], "SUDO_USER" in os.environ, os.getcwd(), sep="|")
print(ctypes.CDLL(None).unshare(0x40000000))
sys.exit(7)
"""
        with as_nobody(home, "-c", STARTER, worker, SECRET="two\nlines") as user:
            said, _ = user.communicate()
        assert said.splitlines() == [
            f"{NOBODY}|[]|True|0027",
            "two",
            f"lines|{home}|False|{home}",
            "0",
        ]
        assert user.returncode == 7
        assert (home / "written").stat().st_uid == NOBODY

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_it_ends_with_whoever_started_it(self, home: Path, how: signal.Signals) -> None:
        worker = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        with as_nobody(home, "-c", STARTER, worker) as user:
            assert user.stdout is not None
            pid = int(user.stdout.readline())
            assert Path("/proc", str(pid)).exists()
            user.send_signal(how)
            user.stdout.read()  # until nobody has it any more
        wait_until(lambda: not Path("/proc", str(pid)).exists(), 10, "the worker's end")

    def test_scenarios_run_in_it(self, home: Path) -> None:
        if not (able := features.tracepoints()).able:
            pytest.skip(able.reason)
        (home / "scenarios").mkdir()
        (home / "scenarios/a.nft").write_text(
            "table inet t { chain c {\ntype filter hook input priority 0; policy drop;\ntcp dport 22 accept\n}; }\n"
        )
        (home / "scenarios/a.yaml").write_text(
            "lab: router\nruleset: a.nft\nscenarios:\n"
            "  - name: a\n    send: {from: client, to: device, tcp: {dport: 22}}\n"
            "    expect: {verdict: accept, rule: tcp dport 22 accept}\n"
        )
        options = ("-q", "--nft-kernel", "host", "--nft-tracer", "tracepoints", "--nft-jsonl", "a.jsonl")
        with as_nobody(home, "-m", "pytest", "scenarios", *options) as user:
            said, _ = user.communicate()
        assert "1 passed" in said, said
        assert user.returncode == 0
        written = [path for path in home.rglob("*") if path.stat().st_uid == NOBODY]
        assert home / "a.jsonl" in written
        assert {path for path in home.rglob("*") if path not in written} == {
            *(home / name for name in ("bin", "bin/python", "bin/sudo")),
            *(home / name for name in ("scenarios", "scenarios/a.nft", "scenarios/a.yaml")),
        }
