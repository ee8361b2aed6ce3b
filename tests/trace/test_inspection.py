"""The functions of a kernel that cannot be asked here are those of a microVM's."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from harness.cli import main
from harness.errors import Unsupported
from harness.linux import modules
from harness.trace import inspection
from harness.tracer.discover import Function, Functions
from harness.tracer.survey import Survey
from harness.vm import images

KNOWN = Functions(
    tuple(
        Function(name=name, kernel_name=name, position=0, carries="sk_buff", layer="IPv4", priority=priority)
        for name, priority in (("ip_rcv", 0), ("ip_forward", 0), ("ip_rcv_finish", 1), ("ip_send_check", 2))
    )
)


def test_a_kernel_that_can_be_asked_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Survey, "functions", lambda _: KNOWN)
    assert inspection.functions("6.12") == KNOWN


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a microVM was asked to run, and what it answers."""
    guest: dict[str, Any] = {"answer": msgspec.json.encode(KNOWN)}

    def refuse(_: Survey) -> Functions:
        raise Unsupported("the list of traceable functions cannot be read")

    def run(command: list[str], **_: Any) -> Any:
        guest["command"] = command
        return SimpleNamespace(stdout=guest["answer"], returncode=125)

    monkeypatch.setattr(Survey, "functions", refuse)
    monkeypatch.setattr(images, "get", lambda kernel, _: SimpleNamespace(release=f"{kernel}.9", vmlinuz="/vmlinuz"))
    monkeypatch.setattr(subprocess, "run", run)
    return guest


def test_else_that_of_a_microvm(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["discover", "--kernel", "7.2", "--priority", "1", "--match", "ip_rcv*"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["ip_rcv", "ip_rcv_finish"]
    assert err == ("nft-harness: asking kernel 7.2.9 in a microVM: the list of traceable functions cannot be read\n")
    assert asked["command"][-3:] == ["harness.cli", "discover", "--inside"]


def test_a_guest_that_does_not_answer(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked["answer"] = b"panic"
    assert main(["discover"]) == 2
    assert "the microVM ended with status 125 and did not answer" in capsys.readouterr().err


def test_what_the_guest_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Survey, "functions", lambda _: KNOWN)
    monkeypatch.setattr(modules, "load", lambda: None)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sent := io.BytesIO()))
    inspection.send()
    assert msgspec.json.decode(sent.getvalue(), type=Functions) == KNOWN
