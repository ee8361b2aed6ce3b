"""Guests as they are planned: what xdist starts them by, and whether they are to be restored."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import accelerator, making, microvm, template
from harness.vm.guest import Guest
from harness.vm.kernel_image import Image
from harness.vm.progress import silent
from harness.vm.template import NoTemplate, Template

IMAGE = Image(release="6.12.107+deb13-amd64", vmlinuz=Path("/x y//vmlinuz"), modules=Path("/x"), config=None)


def test_names() -> None:
    planned = Guest(IMAGE, "kvm")
    assert planned.describe() == "kernel 6.12.107 in a microVM (KVM)"
    assert planned.spec().startswith(f"popen//id=6.12.107//python=setsid {sys.executable} -m ")
    assert planned.spec(2).startswith("popen//id=6.12.107-2//")


def test_paths_survive_execnets_syntax() -> None:
    execnet = pytest.importorskip("execnet")
    spec = execnet.XSpec(Guest(IMAGE, "tcg").spec())
    assert "--kernel '/x y/vmlinuz' " in spec.python


class TestDecision:
    """How a guest starts, and the words of the header about it."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accelerator, "qemu", lambda: "/usr/bin/qemu-system-x86_64")
        monkeypatch.setattr("harness.vm.machine.qemu", lambda: "/usr/bin/qemu-system-x86_64")
        monkeypatch.setattr(template, "key", lambda *_: "6.12-abc")
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)

    @pytest.fixture
    def none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def find(name: str) -> Template:
            raise NoTemplate("there is no template")

        monkeypatch.setattr(template, "find", find)

    def test_restored_from_the_one_that_was_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(template, "find", lambda name: Template(folder=Path("/cache", name)))
        guest = Guest(IMAGE, "tcg")
        guest.decide(cold=False, progress=None)
        assert guest.start == "it is restored from a template"
        assert "--start 6.12-abc" in guest.spec()

    def test_booted_as_asked_for(self) -> None:
        guest = Guest(IMAGE, "tcg")
        guest.decide(cold=True, progress=silent)
        assert guest.start == "it boots, as requested"
        assert f"--start {microvm.COLD}" in guest.spec()

    def test_booted_where_nobody_waits_for_a_template_to_be_made(self, none: None) -> None:
        guest = Guest(IMAGE, "tcg")
        guest.decide(cold=False, progress=None)
        assert guest.start == "it boots: there is no template"
        assert f"--start {microvm.COLD}" in guest.spec()

    def test_one_is_made_where_somebody_does(self, none: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(making, "make", lambda *_: Template(folder=Path("/cache/6.12-new")))
        guest = Guest(IMAGE, "tcg")
        guest.decide(cold=False, progress=silent)
        assert "--start 6.12-new" in guest.spec()

    def test_none_is_made_for_a_hash_seed(self, none: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(making, "make", lambda *_: pytest.fail("a template that no other run can use"))
        monkeypatch.setenv("PYTHONHASHSEED", "4711")
        guest = Guest(IMAGE, "tcg")
        guest.decide(cold=False, progress=silent)
        assert guest.start == "it boots: there is no template"

    def test_booted_when_none_can_be_made(self, none: None, monkeypatch: pytest.MonkeyPatch) -> None:
        def make(*_: object) -> Template:
            raise HarnessError("the disk is full", remedy="make room")

        monkeypatch.setattr(making, "make", make)
        guest = Guest(IMAGE, "tcg")
        guest.decide(cold=False, progress=silent)
        assert guest.start == "it boots: no template could be made: the disk is full; make room"
        assert f"--start {microvm.COLD}" in guest.spec()
