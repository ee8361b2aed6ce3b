"""What a program learns of packets that did not arrive, on the loopback interface; the rest is in test_calls.py."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from harness.errors import HarnessError
from harness.lab.socket_errors import SocketErrors, queue_errors
from harness.wait import wait_until


def closed_port(kind: socket.SocketKind) -> int:
    """A port that nobody has."""
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        return int(other.getsockname()[1])


def test_a_connection_that_is_reset_was_refused() -> None:
    with socket.socket() as caller:
        errors = SocketErrors(caller)
        with errors.noted():
            caller.connect(("127.0.0.1", closed_port(socket.SOCK_STREAM)))
        assert errors.result() == "refused"
        assert errors.first == "ECONNREFUSED"


def test_a_port_that_is_unreachable_by_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.setblocking(False)
        caller.connect(("127.0.0.1", closed_port(socket.SOCK_DGRAM)))
        caller.send(b"?")
        errors = SocketErrors(caller)

        def answered() -> bool:
            with errors.noted():
                caller.recv(1)
            return bool(errors.first)

        wait_until(answered, 5, "the ICMP error")
        assert errors.result() == "unreachable"


def test_without_any_error_it_is_a_timeout() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.setblocking(False)
        assert SocketErrors(caller).result() == "timeout"


@pytest.mark.parametrize(
    ("kind", "number", "result"),
    [
        (socket.SOCK_STREAM, errno.EHOSTUNREACH, "unreachable"),
        (socket.SOCK_STREAM, errno.EACCES, "unreachable"),
        (socket.SOCK_STREAM, errno.ECONNREFUSED, "refused"),
        (socket.SOCK_STREAM, errno.EPIPE, "refused"),
        (socket.SOCK_DGRAM, errno.ECONNREFUSED, "unreachable"),
        (socket.SOCK_DGRAM, errno.EPIPE, "timeout"),
        (socket.SOCK_STREAM, errno.EINPROGRESS, "timeout"),
        (socket.SOCK_STREAM, None, "timeout"),
    ],
)
def test_what_an_error_number_means(kind: socket.SocketKind, number: int | None, result: str) -> None:
    with socket.socket(socket.AF_INET, kind) as caller:
        caller.setblocking(False)
        errors = SocketErrors(caller)
        errors.note(number)
        assert errors.result() == result


def test_the_first_error_is_kept() -> None:
    with socket.socket() as caller:
        errors = SocketErrors(caller)
        for number in (errno.EAGAIN, errno.EHOSTUNREACH, errno.ECONNREFUSED):
            errors.note(number)
        assert errors.first == "EHOSTUNREACH"


def test_an_address_in_use_is_no_answer_of_the_network() -> None:
    with socket.socket() as caller:
        noted = SocketErrors(caller).noted()
        with pytest.raises(HarnessError, match="use another sport"), noted:
            raise OSError(errno.EADDRINUSE, "in use")


def test_another_exception_is_not_swallowed() -> None:
    with socket.socket() as caller, pytest.raises(ValueError, match="other"), SocketErrors(caller).noted():
        raise ValueError("other")


def test_errors_that_came_before_are_forgotten() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.setblocking(False)
        queue_errors(caller, on=True)
        caller.connect(("127.0.0.1", closed_port(socket.SOCK_DGRAM)))
        caller.send(b"?")
        came = select.poll()
        came.register(caller, 0)  # errors alone
        assert came.poll(5000), "no ICMP error came"
        errors = SocketErrors(caller)
        errors.forget()
        assert errors.result() == "timeout"
