"""QEMU's monitor, played by the other end of a socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from harness.vm.qmp import Monitor, MonitorError

GREETING = {"QMP": {"version": {}}}
DONE = {"return": {}}


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def say(end: socket.socket, *answers: object) -> None:
    end.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in answers))


def test_answers_belong_to_commands_whatever_happens_between(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    say(theirs, GREETING, DONE, {"event": "STOP"}, {"return": {"status": "paused"}}, DONE)
    monitor = Monitor(ours)
    assert monitor.execute("query-status") == {"status": "paused"}
    monitor.ignore_shared()
    sent = theirs.recv(1 << 16).decode()
    assert sent.index("qmp_capabilities") < sent.index("query-status") < sent.index("x-ignore-shared")


def test_a_descriptor_goes_with_its_command(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    say(theirs, GREETING, DONE, DONE)
    read, write = os.pipe()
    try:
        Monitor(ours).execute("getfd", descriptor=write, fdname="state")
        _, descriptors, _, _ = socket.recv_fds(theirs, 1 << 16, 4)
        assert len(descriptors) == 1
        os.write(descriptors[0], b"x")
        os.close(descriptors[0])
        assert os.read(read, 1) == b"x"
    finally:
        os.close(read)
        os.close(write)


def test_a_refusal_is_quoted(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    say(theirs, GREETING, DONE, {"error": {"class": "GenericError", "desc": "no such device"}})
    with pytest.raises(MonitorError, match="QEMU: no such device"):
        Monitor(ours).execute("device_del")


@pytest.mark.parametrize(
    ("said", "sentence"), [(b"", "QEMU: it has ended"), (b"nonsense\n", "unexpected answer of QEMU's monitor")]
)
def test_an_end_and_nonsense_are_errors(said: bytes, sentence: str, ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(MonitorError, match=sentence):
        Monitor(ours)


def test_so_is_a_command_to_a_qemu_that_has_ended(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    say(theirs, GREETING, DONE)
    monitor = Monitor(ours)
    theirs.close()
    with pytest.raises(MonitorError, match="QEMU has ended: Broken pipe"):
        monitor.execute("quit")
