"""The processes that read rulesets: what they can open, and that each can be lost."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from harness.errors import HarnessError, ScenarioError, Unsupported
from harness.lab.lab import Host, Lab
from harness.project import Project
from harness.ruleset import process, sandbox
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import Nft, NftError, nft_version
from harness.ruleset.process import Reach
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.vm import nft as nft_of_images
from harness.wait import wait_until

pytestmark = pytest.mark.kernel


CRASHES = {
    "a null pointer": "add table f\nadd chain f i\nadd rule f i tcp option nop length . @ih,32,3 1\n",
    "an assertion": "table ip t { chain c { " + "jump { " * 8 + "accept " + "} " * 8 + "} }\n",
    "a length of a TCP option": "table ip t { chain c { tcp option 254 length ge 4 drop; }; }\n",
}
"""What libnftables 1.0.6 does not survive. Later ones refuse it, or take it."""


@pytest.mark.parametrize("text", CRASHES.values(), ids=CRASHES)
def test_a_crash_is_an_error_of_its_ruleset_alone(
    device: Host, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(nft_of_images.VARIABLE, raising=False)  # this machine's own
    (file := tmp_path / "a.nft").write_text(text)
    refused: ScenarioError | None = None
    try:
        Ruleset.load(device, file, home=Project(root=tmp_path))
    except ScenarioError as error:
        refused = error
    if refused is None:
        assert nft_version() != "1.0.6", "it does not survive this"
    else:
        assert re.search(r"libnftables \S+ ended with SIG\w+ .*while it read|nft: ", str(refused))
        assert refused.position.file == str(file)
    file.write_text("flush ruleset\ntable ip t { chain c { accept; }; }\n")  # what another nft took
    assert len(Ruleset.load(device, file, home=Project(root=tmp_path)).rules) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{" * 20_000,
        "table ip t { set s { type ipv4_addr; elements = " + "{ " * 10_000 + "}" * 10_000,
        "table ip t { chain c { " + "ip saddr 1.1.1.1 " * 5_000 + "; }; }",
        "table ip t { chain c { meta mark set " + "(" * 50_000 + "1" + ")" * 50_000 + "; }; }",
        "define a = $a\nadd table ip $a\n",
        'include "./a.nft"\n',
        'include "./*.nft"\ninclude "./a.nft"\n',
        "add table ip \0\n",
        "\xff\xfe" * 1000,
        "add set ip t s { type ipv4_addr; flags interval; elements = { 0.0.0.0-255.255.255.255, 1.1.1.1 } }",
    ],
    ids=[
        "braces",
        "nested sets",
        "a long rule",
        "parentheses",
        "a variable of itself",
        "a loop",
        "two loops",
        "NUL",
        "no text",
        "no table",
    ],
)
def test_no_text_ends_more_than_its_own_process(
    device: Host, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "seconds", lambda: 20)
    (file := tmp_path / "a.nft").write_text(text)
    with suppress(ScenarioError):  # a sentence, or nothing is wrong with it
        Ruleset.load(device, file, home=Project(root=tmp_path))
    file.write_text("flush ruleset\ntable ip t { chain c { accept; }; }\n")
    assert len(Ruleset.load(device, file, home=Project(root=tmp_path)).rules) == 1


def test_a_file_that_takes_too_long_is_ended(device: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "seconds", lambda: 1)
    (file := tmp_path / "a.nft").write_text("table ip t { chain c { " + "ip saddr 1.1.1.1 " * 50_000 + "; }; }")
    with pytest.raises(ScenarioError, match=r"a\.nft: libnftables \S+ timed out after 1 s while it read"):
        Ruleset.load(device, file, home=Project(root=tmp_path))


def test_a_file_that_takes_too_much_memory_is_ended(
    device: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MEMORY", 64 << 20)  # a GiB would take half a minute to fill
    (file := tmp_path / "a.nft").write_text(
        "table ip t { chain c {\n" + "ip saddr 1.1.1.1 accept\n" * 50_000 + "}; }\n"
    )
    with pytest.raises(ScenarioError, match=r"a\.nft: libnftables \S+ used more than 64 MiB of memory while it read"):
        Ruleset.load(device, file, home=Project(root=tmp_path))
    file.write_text("table ip t { chain c { accept; }; }\n")
    assert len(Ruleset.load(device, file, home=Project(root=tmp_path)).rules) == 1


READ = """
import resource, sys
from contextlib import closing
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
from harness.errors import HarnessError
from harness.ruleset.nft import Nft, NftError
with closing(Nft(None)) as nft:
    try:
        nft.run("table ip t { chain c {" + "ip saddr 1.1.1.1 accept;" * int(sys.argv[2]) + "}; }")
        print("read")
    except NftError:
        print("read, and refused by the kernel")
    except HarnessError as error:
        print(error)
"""


@pytest.mark.usefixtures("reads_rulesets")
def test_less_memory_than_a_ruleset_may_take_is_used_as_well() -> None:
    def read(mebibytes: int, rules: int) -> str:
        command = [sys.executable, "-c", READ, str(mebibytes), str(rules)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert read(512, 3).startswith("read")
    said = read(192, 100_000)
    assert said.endswith("used more than 192 MiB of memory, which is what this process may use (ulimit -v)\n"), said


def test_the_ruleset_of_the_host_stays(device: Host, tmp_path: Path) -> None:
    def host() -> str:
        return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

    before = host()
    (file := tmp_path / "a.nft").write_text("flush ruleset\ntable ip only_in_the_lab { chain c { accept; }; }\n")
    Ruleset.load(device, file, home=Project(root=tmp_path))
    assert "only_in_the_lab" in Nft(device.namespace).run("list tables")
    assert host() == before


def test_one_that_was_killed_is_started_anew(device: Host) -> None:
    nft = Nft(device.namespace)
    nft.run("add table ip t")
    for pid in _sandboxes():
        with suppress(ProcessLookupError):  # it ended with its parent, which was killed before
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(HarnessError, match=r"libnftables \S+ ended with"):
        nft.run("list tables")
    assert nft.run("list tables") == "table ip t\n"


@pytest.mark.parametrize(("libc", "loader"), [("99.0", "ld-linux-x86-64.so.2"), ("1.0", "python")])
def test_the_nft_of_an_image_is_used_with_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libc: str, loader: str
) -> None:
    """With a newer C library than this machine's by its loader, else by this machine's."""
    monkeypatch.setenv(nft_of_images.VARIABLE, str(_like_an_image(tmp_path / "image/nft", libc)))
    with Lab.build(Network.of(LABS["host"])) as lab:
        nft = Nft(lab.device.namespace)
        nft.run("add table ip t")
        assert nft_version() == "9.9"
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in _sandboxes()]
        assert [one for one in maps if f"{tmp_path}/image/nft/lib/libnftables.so.1" in one]
        programs = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() for pid in _sandboxes()]
        assert [one for one in programs if loader in one]
    monkeypatch.delenv(nft_of_images.VARIABLE)
    with Lab.build(Network.of(LABS["host"])) as lab:
        assert Nft(lab.device.namespace).run("list tables") == ""
        assert nft_version() != "9.9"


def test_the_nft_of_an_image_is_confined_too(
    device: Host, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(nft_of_images.VARIABLE, str(_like_an_image(tmp_path / "image/nft", "99.0")))
    nft = Nft(device.namespace, Reach((project,)))
    nft.run('include "./inside.nft"', folder=project)
    for name in ("./file", f"{tmp_path}/secret/plain", f"{tmp_path}/image/nft/about.json", "/etc/hostname"):
        with pytest.raises(NftError, match=r"No such file|File not found|Not a regular file"):
            nft.run(f'include "{name}"', folder=project)
    assert "canary" not in nft.run("list tables")


def test_the_syntax_of_its_release_is_read_in_a_guest(device: Host) -> None:
    if nft_of_images.current() is None or nft_version().startswith("1.0."):
        pytest.skip("this kernel image has no nft with a syntax of its own")
    nft = Nft(device.namespace)
    nft.run("destroy table inet gone")
    nft.run("table inet netavark { chain OUTPUT { type nat hook output priority dstnat; }; }")
    assert "hook output priority -100" in nft.run("list ruleset")


def test_an_image_whose_nft_is_damaged_is_named(device: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _like_an_image(tmp_path / "image/nft", "1.0")
    (folder / "lib/libnftables.so.1").write_bytes(b"")
    monkeypatch.setenv(nft_of_images.VARIABLE, str(folder))
    with pytest.raises(Unsupported, match=rf"nft of the kernel image cannot be used: .*; delete {folder}"):
        Nft(device.namespace).run("list tables")


def _like_an_image(folder: Path, libc: str) -> Path:
    """What an image has of nft, made of this machine's libraries."""
    ctypes.CDLL("libnftables.so.1")
    used = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    for file in map(Path, used):
        found = re.match(
            r"(?P<libc>(?:ld-linux-x86-64|lib[cm])\.so)|lib(?:nftables|nftnl|mnl|gmp|jansson|xtables)\.so", file.name
        )
        if found:
            target = folder / ("libc" if found["libc"] else "lib") / re.sub(r"(\.so\.\d+).*", r"\1", file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    (folder / "about.json").write_text(json.dumps({"version": "9.9", "libc": libc}))
    return folder


def _sandboxes() -> list[int]:
    """The processes that read rulesets for this one: the first is its child and leads their session."""
    fields = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                fields[int(folder.name)] = int(parent), int(session)
    leaders = {pid for pid, (parent, session) in fields.items() if parent == os.getpid() and session == pid}
    return [pid for pid, (_, session) in fields.items() if session in leaders]


def test_a_command_in_two_is_refused(device: Host) -> None:
    with pytest.raises(NftError, match="NUL"):
        Nft(device.namespace).run("list tables\0; flush ruleset")


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one() -> None:
    class Interrupted(BaseException):
        """As pytest-timeout raises it, out of a signal's handler."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    own, other = socket.socketpair()
    server = process._Server(own)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with other, pytest.raises(Interrupted):
            server.ask({"argv": None})
        assert server.is_lost  # so that another one is started
        with pytest.raises(HarnessError, match="ended with the process that starts it"):
            server.ask({"argv": None})
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_process_is_left_when_the_lab_is_gone(project: Path) -> None:
    def children() -> int:
        return len(_sandboxes()) - before

    with Lab.build(Network.of(LABS["host"])) as lab:
        Nft(lab.device.namespace, Reach((project,))).run("list tables")  # its project's process is there from now on
        before = len(_sandboxes()) - 1
    wait_until(lambda: children() == 0, 5, "the process to end")
    with Lab.build(Network.of(LABS["host"])) as lab:
        Nft(lab.device.namespace, Reach((project,))).run("list tables")
        assert children() == 1
    wait_until(lambda: children() == 0, 5, "the process to end")


@pytest.mark.parametrize("alone", [True, False])
def test_a_process_whose_parent_is_gone_ends_without_a_word(alone: bool) -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, sandbox.__file__, str(theirs.fileno()), "", *([sandbox.ALONE] if alone else [])]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    if alone:
        select.select([ours], [], [])  # it asks for its users to be mapped; unread, that resets the connection
    ours.close()
    assert process.communicate(timeout=60) == (None, b"")
    assert process.returncode == 0
