"""QEMU's arguments, and processes that end with the one that started them."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.vm import machine
from harness.vm.port import in_guest
from harness.wait import wait_until


@pytest.fixture(autouse=True)
def qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "qemu", lambda: "qemu")


def test_saved_and_restored_machines_differ_in_where_writes_go_alone(tmp_path: Path) -> None:
    saved = machine.machine("tcg", 512, 1, ram=tmp_path / "ram", share=True)
    restored = machine.machine("tcg", 512, 1, ram=tmp_path / "ram")
    assert [pair for pair in zip(saved, restored, strict=True) if pair[0] != pair[1]] == [
        (
            f"memory-backend-file,id=ram,size=512M,mem-path={tmp_path}/ram,share=on",
            f"memory-backend-file,id=ram,size=512M,mem-path={tmp_path}/ram,share=off",
        )
    ]
    assert "-object" not in machine.machine("tcg", 512, 1)


def test_a_port_that_nobody_reads_is_there_all_the_same() -> None:
    words = machine.devices(7, {"stdin": 8, "news": None}, monitor=9)
    assert "socket,id=stdin,fd=8" in words
    assert "null,id=news" in words
    assert [word for word in words if word.startswith("virtserialport")] == [
        "virtserialport,chardev=stdin,name=stdin",
        "virtserialport,chardev=news,name=news",
    ]
    assert "socket,id=monitor,fd=9" in words
    assert "-mon" not in machine.devices(7, {})


def test_the_hosts_files_are_read_only() -> None:
    (share,) = (word for word in machine.devices(7, {}) if word.startswith("local,"))
    assert "readonly=on" in share.split(",")


def test_a_process_ends_with_its_block_and_its_output_is_kept() -> None:
    console = machine.memory_file("console", b"before\r\n")
    try:
        command = ["/bin/sh", "-c", "echo up; exec sleep 600"]
        with machine.running(command, inherit=(), output=os.dup(console)) as process:
            wait_until(lambda: "up" in machine.text(console), 20, "the program to run")
        assert process.returncode == -9
    finally:
        os.close(console)


def test_text_of_a_console_is_what_a_person_reads() -> None:
    console = machine.memory_file("console", b"one\r\ntwo\0\xff")
    try:
        assert machine.text(console) == "one\ntwo\N{REPLACEMENT CHARACTER}"
    finally:
        os.close(console)


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import functools, os, subprocess\n"
        "from harness.vm import machine\n"
        "child = subprocess.Popen(['sleep', '600'], preexec_fn=functools.partial(machine.die_with, os.getpid()))\n"
        "print(child.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    said = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True).stdout
    child = Path("/proc", said.strip())
    wait_until(lambda: not child.exists() or ") Z " in (child / "stat").read_text(), 10, "the child to end")


@pytest.mark.kernel
def test_a_guest_gives_a_process_sixteen_pages_at_a_fault() -> None:
    if not in_guest():
        pytest.skip("this machine's own kernel decides itself")
    if not Path("/sys/kernel/mm/transparent_hugepage/hugepages-64kB").exists():
        pytest.skip("this kernel has no such blocks: Linux 6.8 has")
    pages = 256  # less than a huge page
    with mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        memory[:: mmap.PAGESIZE] = bytes(pages)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 4
