"""Templates: when one is trusted, and what a guest restored from one is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
import scapy.data

from harness.experiment import run
from harness.vm import images, machine, making, microvm, template
from harness.vm.kernel_image import Image
from harness.vm.qmp import Monitor
from harness.vm.template import About, Key, NoTemplate, Stamp, Template
from tests.conftest import Soak

PATIENCE_S = 300.0


KEY = Key(release="6.12.1", parts={"QEMU": "1", "processor": "2"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "nft-harness/templates"


@pytest.fixture
def stored(cache: Path, tmp_path: Path) -> Template:
    """A template as :func:`template.make` leaves it, of a few bytes, that holds a copy of the file ``used``."""
    used = tmp_path / "used"
    used.write_text("as it was")
    folder = cache / KEY.name
    folder.mkdir(parents=True)
    made = Template(folder=folder)
    made.ram.write_bytes(b"memory")
    made.state.write_bytes(b"devices")
    digest = hashlib.sha256(b"memorydevices").hexdigest()
    write_about(made, digest=digest, used={str(used): Stamp.of(used), "/no/such.pyc": None})
    return made


def write_about(of: Template, *, digest: str, used: dict[str, Stamp | None]) -> None:
    ram, state = Stamp.of(of.ram), Stamp.of(of.state)
    assert ram
    assert state
    about = About(ram=ram, state=state, digest=digest, used=used, parts=KEY.parts)
    (of.folder / "about.json").write_bytes(msgspec.json.encode(about))


class TestTrust:
    def test_one_as_it_was_made_is_found(self, stored: Template) -> None:
        assert template.find(KEY) == stored

    def test_none_is_no_error_of_the_machine(self, cache: Path) -> None:
        with pytest.raises(NoTemplate, match="kernels warm"):
            template.find(KEY)

    @pytest.mark.parametrize("change", ["byte", "cut", "grown", "missing", "state", "about"])
    def test_a_damaged_one_is_deleted(self, stored: Template, change: str) -> None:
        match change:
            case "byte":
                about = stored.ram.stat()
                stored.ram.write_bytes(b"Memory")
                os.utime(stored.ram, ns=(about.st_atime_ns, about.st_mtime_ns))
            case "cut":
                stored.ram.write_bytes(b"mem")
            case "grown":
                stored.ram.write_bytes(b"memory and more")
            case "missing":
                stored.ram.unlink()
            case "state":
                stored.state.write_bytes(b"")
            case "about":
                (stored.folder / "about.json").write_bytes(b'{"ram": 1}')
        with pytest.raises(NoTemplate, match="damaged"):
            template.find(KEY)
        assert not stored.folder.exists()

    @pytest.mark.parametrize(
        ("parts", "words"),
        [
            ({"QEMU": "9"}, "no template of this kernel was made with the same QEMU; nft-harness kernels warm"),
            ({"QEMU": "9", "PYTHONPATH": "3"}, "with the same PYTHONPATH and QEMU; nft-harness kernels warm"),
            ({"PYTHONHASHSEED": "9"}, "with the same PYTHONHASHSEED; unset it, under tox by --hashseed notset"),
        ],
    )
    def test_what_differs_in_the_one_that_is_there_is_named(
        self, stored: Template, parts: dict[str, str], words: str
    ) -> None:
        with pytest.raises(NoTemplate, match=words):
            template.find(Key(release="6.12.1", parts=KEY.parts | parts))
        assert stored.folder.exists()

    def test_one_of_another_kernel_is_not_compared(self, stored: Template) -> None:
        with pytest.raises(NoTemplate, match="there is no template;"):
            template.find(Key(release="6.1.1", parts=stored and KEY.parts))

    def test_looking_at_one_takes_one_look_at_each_file(
        self, stored: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked_at: list[str] = []
        of = Stamp.of
        monkeypatch.setattr(Stamp, "of", lambda path: (looked_at.append(str(path)), of(path))[1])
        template.find(KEY)
        assert sorted(looked_at) == sorted(map(str, (stored.ram, stored.state, tmp_path / "used")))

    def test_one_that_was_made_before_the_clock_was_set_back_is_trusted(self, stored: Template) -> None:
        tomorrow = time.time() + 86400
        about = msgspec.json.decode((stored.folder / "about.json").read_bytes(), type=About)
        for path in (stored.ram, stored.state):
            os.utime(path, (tomorrow, tomorrow))
        write_about(stored, digest=about.digest, used=about.used)
        os.utime(stored.folder, (tomorrow, tomorrow))
        assert template.find(KEY) == stored

    def test_a_faithful_copy_is_trusted(self, stored: Template) -> None:
        for path in (stored.ram, stored.state):
            copy = path.with_suffix(".copy")
            shutil.copy2(path, copy)
            copy.replace(path)
        assert template.find(KEY) == stored

    @pytest.mark.parametrize("change", ["content", "time", "gone"])
    def test_a_changed_file_of_the_environment_outdates_it(self, stored: Template, tmp_path: Path, change: str) -> None:
        used = tmp_path / "used"
        match change:
            case "content":
                about = used.stat()
                used.write_text("otherwise")
                os.utime(used, ns=(about.st_atime_ns, about.st_mtime_ns))
            case "time":
                os.utime(used, (1, 1))
            case "gone":
                used.unlink()
        with pytest.raises(NoTemplate, match=f"{used} has changed"):
            template.find(KEY)
        assert not stored.folder.exists()

    def test_a_folder_that_was_only_copied_up_does_not_outdate_it(self, stored: Template, tmp_path: Path) -> None:
        # overlayfs gives it another change time then.
        (folder := tmp_path / "site-packages").mkdir()
        about = folder.stat()
        write_about(stored, digest="", used={str(folder): Stamp.of(folder)})
        os.utime(folder, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert folder.stat().st_ctime_ns > about.st_ctime_ns
        assert template.find(KEY) == stored
        (folder / "module.py").touch()
        with pytest.raises(NoTemplate, match="site-packages has changed"):
            template.find(KEY)

    def test_the_key_has_all_that_a_template_depends_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = tmp_path / "vmlinuz"
        kernel.write_bytes(b"a kernel")
        image = Image(release="6.12.1", vmlinuz=kernel, modules=tmp_path, config=None)
        qemu = tmp_path / "qemu"
        qemu.write_bytes(b"a QEMU")
        qemu.chmod(0o755)
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
        keys = [template.key(image, [str(qemu), "-m", "1"])]
        assert template.key(image, [str(qemu), "-m", "1"]) == keys[0]
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "other")  # it is the same in every guest
        monkeypatch.setenv("PYTHONNOUSERSITE", "1")  # counts by what it does to the path
        assert template.key(image, [str(qemu), "-m", "1"]) == keys[0]
        keys.append(template.key(image, [str(qemu), "-m", "2"]))
        monkeypatch.setenv("PYTHONHASHSEED", "7")
        keys.append(template.key(image, [str(qemu), "-m", "1"]))
        qemu.write_bytes(b"another QEMU")
        keys.append(template.key(image, [str(qemu), "-m", "1"]))
        kernel.write_bytes(b"another kernel")
        keys.append(template.key(image, [str(qemu), "-m", "1"]))
        assert len({key.name for key in keys}) == len(keys)

    def test_the_last_used_come_first(self, stored: Template, cache: Path) -> None:
        older = cache / "6.1.1-def"
        shutil.copytree(stored.folder, older)
        os.utime(older, (1, 1))
        assert [one.folder.name for one in template.all_templates()] == [KEY.name, "6.1.1-def"]


def test_a_guest_is_restored_by_three_commands() -> None:
    ours, theirs = socket.socketpair()
    received: list[str] = []

    def answer() -> None:
        with theirs, theirs.makefile("rw") as stream:
            stream.write('{"QMP": {}}\n')
            stream.flush()
            decoder, text = json.JSONDecoder(), ""
            while len(received) < 3:
                text += theirs.recv(1 << 16).decode()
                while text:
                    command, end = decoder.raw_decode(text)
                    received.append(command["execute"])
                    text = text[end:]
                    stream.write('{"return": {}}\n')
                    stream.flush()

    qemu = threading.Thread(target=answer)
    qemu.start()
    with ours:
        template.restore(Monitor(ours), 7)
    qemu.join()
    assert received == ["qmp_capabilities", "migrate-set-capabilities", "migrate-incoming"]


PROGRAM = """
import gc, json, os, random, sys, time
gc.unfreeze()
json.dump({
    "btf": [type(one).__name__ for one in gc.get_objects() if type(one).__name__ == "Btf"],
    "argv": sys.argv[1:], "stdin": sys.stdin.read(), "release": os.uname().release, "cwd": os.getcwd(),
    "executable": sys.executable,
    "variable": os.environ.get("NFT_HARNESS_TEST"), "secret": os.environ.get("SECRET_TEST"),
    "time": time.time(), "random": [os.urandom(8).hex(), random.random()],
    "edited": open(os.environ["NFT_HARNESS_FILE"]).read(), "harness": "harness.experiment.run" in sys.modules,
    "source": open(sys.modules.get("harness.experiment.run", os).__file__).read(),
    "modules": os.path.isdir(f"/lib/modules/{os.uname().release}/kernel"),
    "manufacturer": sys.modules["scapy.data"].MANUFDB.lookup("08:00:2b:00:00:01"),
    "mapped": [line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line],
}, sys.stdout)
print("something went wrong", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture(scope="module")
def made(image: Image) -> Template:
    """A template of this environment as it is now."""
    return making.make(image, "tcg", microvm.MEMORY)


def start(image: Image, *arguments: str, tmp_path: Path, given: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*microvm.wrapper(), "--kernel", str(image.vmlinuz), "--accelerator", "tcg", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "NFT_HARNESS_TEST": 'it\'s "quoted"\n$HOME',
            "NFT_HARNESS_FILE": str(tmp_path / "file"),
            "SECRET_TEST": "of the host",
        },
    )
    assert process.stdin
    process.stdin.write(given)
    process.stdin.flush()
    return process


class TestRestored:
    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("edited a moment ago")

    def test_two_at_once_are_the_same_python_and_differ_where_they_must(
        self, image: Image, made: Template, tmp_path: Path
    ) -> None:
        before = hashlib.sha256(made.ram.read_bytes()).hexdigest()
        both = [start(image, "-c", PROGRAM, "a b", "--kernel", tmp_path=tmp_path, given="first\nsecond") for _ in "12"]
        outcomes = [process.communicate(timeout=PATIENCE_S) for process in both]
        now = time.time()
        assert [process.returncode for process in both] == [7, 7]
        assert [error for _, error in outcomes] == ["something went wrong\n"] * 2
        seen = [json.loads(output) for output, _ in outcomes]
        for one in seen:
            assert one["harness"], "it was not restored: what the template has imported is not there"
            assert one["argv"] == ["a b", "--kernel"]
            assert one["stdin"] == "first\nsecond"
            assert one["release"] == image.release
            assert one["cwd"] == str(Path.cwd())
            assert one["executable"] == sys.executable
            assert one["variable"] == 'it\'s "quoted"\n$HOME'
            assert one["secret"] is None
            assert one["edited"] == "edited a moment ago"
            assert one["source"] == Path(run.__file__).read_text(), "the template has no files of what it has imported"
            assert one["modules"]
            assert one["btf"] == [], "the template keeps the kernel's BTF, 10 MiB, which is read to learn"
            assert one["manufacturer"] == list(scapy.data.MANUFDB.lookup("08:00:2b:00:00:01"))
            assert [name for name in one["mapped"] if "/libc.so" in name]
            assert [name for name in one["mapped"] if not Path(name).exists()] == []
            assert abs(one["time"] - now) < PATIENCE_S
        assert seen[0]["random"] != seen[1]["random"]
        assert hashlib.sha256(made.ram.read_bytes()).hexdigest() == before

    def test_it_takes_the_disk_space_that_the_documentation_says(self, made: Template) -> None:
        assert made.bytes < 256 << 20  # about 250 MiB in docs/running.md; it differs by a few from one to the next

    def test_another_program_runs_in_it(self, image: Image, made: Template, tmp_path: Path) -> None:
        process = start(image, "--exec", "sh", "-c", "uname -r; exit 3", tmp_path=tmp_path)
        assert process.communicate(timeout=PATIENCE_S) == (f"{image.release}\n", "")
        assert process.returncode == 3

    def test_a_program_may_close_its_output_long_before_it_ends(
        self, image: Image, made: Template, tmp_path: Path
    ) -> None:
        process = start(image, "--exec", "sh", "-c", "exec >&- 2>&-; sleep 3; exit 3", tmp_path=tmp_path)
        assert process.communicate(timeout=PATIENCE_S) == ("", "")
        assert process.returncode == 3

    def test_the_name_of_one_that_is_gone_boots_and_says_so(self, image: Image, tmp_path: Path) -> None:
        process = start(image, "--start", "6.12-gone", "--exec", "uname", "-r", tmp_path=tmp_path)
        output, error = process.communicate(timeout=PATIENCE_S)
        assert (output, process.returncode) == (f"{image.release}\n", 0), error
        assert "the guest boots, as its template could not be restored" in error
        assert "No such file or directory" in error

    def test_one_that_cannot_be_restored_boots_and_says_so(
        self, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A whole template, as far as its files tell, whose devices are not those of this machine.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        place = tmp_path / "nft-harness/templates"
        place.mkdir(parents=True)
        (tmp_path / "nft-harness/kernels").symlink_to(image.vmlinuz.parents[2])
        key = template.key(image, machine.machine("tcg", microvm.MEMORY, microvm.CPUS))
        bad = Template(folder=place / key.name)
        bad.folder.mkdir()
        bad.ram.touch()
        os.truncate(bad.ram, microvm.MEMORY << 20)
        bad.state.write_bytes(b"QEVM" + bytes(5000))
        write_about(bad, digest="", used={})
        process = start(image, "--exec", "uname", "-r", tmp_path=tmp_path)
        output, error = process.communicate(timeout=PATIENCE_S)
        assert (output, process.returncode) == (f"{image.release}\n", 0), error
        assert "the guest boots, as its template could not be restored" in error
        assert not bad.folder.exists()


ROOT = Path(__file__).parents[2]
OF_THE_RUN = {"born", "frame", "headers", "seconds", "time"}
"""Fields of stored results that differ from run to run: times, and bytes with numbers that a kernel draws."""


@pytest.mark.soak
def test_stored_results_are_the_same_cold_and_restored(made: Template, tmp_path: Path, soak: Soak) -> None:
    if not soak.seconds:
        pytest.skip("two runs of all scenarios take minutes under emulation; ./run soak compares them")
    ran = {}
    for name, option in (("cold", ["--nft-cold"]), ("restored", [])):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nft-kernel", images.DEFAULT]
        command += ["--nft-results", str(tmp_path / name), *option, "scenarios"]
        ran[name] = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ran[name].returncode == 0, ran[name].stdout
    files = {name: {path.name: path for path in (tmp_path / name).iterdir()} for name in ran}
    assert files["cold"].keys() == files["restored"].keys()
    assert files["cold"]
    for name, path in files["cold"].items():
        assert lasting(json.loads(path.read_text())) == lasting(json.loads(files["restored"][name].read_text())), name


def lasting(value: object) -> object:
    """A stored result without what differs from run to run."""
    match value:
        case dict():
            return {key: lasting(one) for key, one in value.items() if key not in OF_THE_RUN}
        case list():
            return [lasting(one) for one in value]
        case str():
            return re.sub(r"\b[0-9.]+ m?s after", "", value)
    return value
