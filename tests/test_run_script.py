"""./run on a machine where something is missing. The lucky case is every CI run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("awk", "busybox", "cat", "cksum", "cut", "dirname", "echo", "env", "flock", "head", "id", "ldd", "ls", "mv")
TOOLS += ("rm", "sed", "sh", "tr")


class Machine:
    """A checkout whose environment is complete, and a PATH that has only what is put there."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.bin = folder / "bin"
        self.checkout.mkdir()
        self.bin.mkdir()
        for name in ("run", "pyproject.toml"):
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)

    def add(self, name: str, script: str) -> None:
        program = self.bin / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def complete_environment(self) -> None:
        venv = self.checkout / ".venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python").symlink_to("/usr/bin/python3")
        version = subprocess.check_output(["/usr/bin/python3", "-V"], text=True)
        checksum = subprocess.check_output(["cksum"], stdin=(self.checkout / "pyproject.toml").open(), text=True)
        (venv / "complete").write_text(f"{self.checkout} {version}{checksum}")

    def run(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, self.checkout / "run", *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.checkout)},
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path.resolve())
    machine.complete_environment()
    machine.add("id", "echo 1000")
    return machine


def test_help_names_every_command(machine: Machine) -> None:
    for arguments in ([], ["help"], ["--help"]):
        done = machine.run(*arguments)
        assert done.returncode == 0
        assert done.stderr == ""
        for command in ("scenarios", "matrix", "test", "lint", "bench", "exec", "setup", "help"):
            assert f"\n  {command} " in done.stdout


def test_an_unknown_command_is_refused(machine: Machine) -> None:
    done = machine.run("scenario")
    assert done.returncode == 2
    assert "there is no command scenario" in done.stderr
    assert "./run help" in done.stderr


def test_without_apt_get_the_missing_thing_and_its_purpose_are_named(machine: Machine) -> None:
    done = machine.run("exec", "echo", "started")
    assert done.returncode == 2
    assert "qemu-system-x86: a microVM with a kernel that can trace" in done.stderr
    assert "this machine has no apt-get" in done.stderr
    assert "remedy: install" in done.stderr
    assert done.stdout == ""


def test_without_sudo_an_administrator_is_told_what_to_run(machine: Machine) -> None:
    machine.add("apt-get", "echo must not be called; exit 1")
    done = machine.run("exec", "echo", "started")
    assert done.returncode == 2
    assert "ask an administrator to run: apt-get install --no-install-recommends" in done.stderr
    assert "must not be called" not in done.stderr


def test_an_installation_that_fails_is_the_end(machine: Machine) -> None:
    machine.add("apt-get", "echo E: no such host; exit 100")
    machine.add("sudo", '"$@"')
    done = machine.run("exec", "echo", "started")
    assert done.returncode == 2
    assert "E: no such host" in done.stderr
    assert "check the network and /etc/apt" in done.stderr
    assert done.stdout == ""


def test_sudo_installs_and_an_archive_out_of_order_does_not_matter(machine: Machine) -> None:
    missing = machine.run("exec", "true").stderr
    if missing.count("run:   ") > 1:
        pytest.skip(f"this machine lacks more than the test hides: {missing}")
    qemu = machine.bin / "qemu-system-x86_64"
    machine.add(
        "apt-get",
        f'case "$*" in *update*) exit 100 ;; *install*qemu-system-x86*) echo "#!" >{qemu}; chmod +x {qemu} ;; esac',
    )
    machine.add("chmod", 'exec /bin/chmod "$@"')
    machine.add("sudo", '"$@"')
    done = machine.run("exec", "echo", "started")
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert "sudo may ask for your password" in done.stderr
    again = machine.run("exec", "echo", "started")
    assert (again.stdout, again.stderr) == ("started\n", "")


def test_an_incomplete_environment_of_somebody_else_is_not_touched(machine: Machine) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    machine.add("qemu-system-x86_64", "")
    (machine.checkout / ".venv/complete").unlink()
    (machine.checkout / ".venv").chmod(0o555)
    done = machine.run("exec", "echo", "started")
    (machine.checkout / ".venv").chmod(0o755)
    assert done.returncode == 2
    assert "is incomplete, and it is not yours to write" in done.stderr


def test_the_second_call_needs_no_network_and_says_nothing(machine: Machine) -> None:
    machine.add("qemu-system-x86_64", "")
    offline = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*offline, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody make a network namespace")
    done = machine.run("exec", "echo", "started", prefix=offline)
    if "packages are missing" in done.stderr:
        pytest.skip(f"this machine lacks what ./run would have installed: {done.stderr}")
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_pytest_has_the_interpreter_settings_of_the_shell(tmp_path: Path) -> None:
    # A template of a guest belongs to them: were they others in each run, each would boot.
    file = tmp_path / "test_settings.py"
    file.write_text("""
import os
def test_settings():
    print("settings", sorted(name for name in os.environ if name in ("PYTHONHASHSEED", "PYTHONIOENCODING")))
""")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "TOX"))
    }
    command = [ROOT / "run", "scenarios", str(file), "-s", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "settings []" in done.stdout, done.stdout + done.stderr
