"""Namespaces that are threads."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import harness.lab.namespace
from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.lab.namespace import Namespace
from harness.wait import wait_until

pytestmark = pytest.mark.kernel


def living() -> set[int]:
    """Numbers of all network namespaces that a process or thread is in."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net"):
        try:
            found.add(link.stat().st_ino)
        except OSError:
            continue  # ended meanwhile
    return found


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def ip_forward() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()


def test_what_is_called_runs_inside_and_the_caller_stays_outside() -> None:
    outside = here()
    with Namespace("a") as namespace:
        assert namespace.call(here) == namespace.inum != outside
        assert here() == outside


def test_a_socket_belongs_to_the_namespace() -> None:
    with Namespace("a") as namespace:
        namespace.call(lambda: subprocess.run(["ip", "link", "set", "lo", "up"], check=True))
        inside = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        inside.bind(("127.0.0.1", 0))
        inside.listen()
        with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
            outside.connect(inside.getsockname())


def test_two_namespaces_have_nothing_in_common() -> None:
    with Namespace("a") as one, Namespace("b") as other:
        one.sysctl({"net.ipv4.ip_forward": "1"})
        other.sysctl({"net.ipv4.ip_forward": "0"})
        assert (one.call(ip_forward), other.call(ip_forward)) == ("1", "0")


def test_the_host_keeps_its_settings_and_working_directory() -> None:
    before = ip_forward(), Path.cwd()
    with Namespace("a") as namespace:
        namespace.sysctl({"net.ipv4.ip_forward": "0" if before[0] == "1" else "1"})
        namespace.call(os.chdir, "/")
        assert (ip_forward(), Path.cwd()) == before


def test_nothing_is_left_of_a_closed_namespace() -> None:
    with Namespace("a") as namespace:
        packet = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW)
        assert namespace.inum in living()
    wait_until(lambda: namespace.inum not in living(), 5, "the namespace to go")
    assert packet.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(namespace.fd)


def test_nothing_is_left_when_the_process_is_killed() -> None:
    script = (
        "import sys\n"
        "from harness.lab.namespace import Namespace\n"
        "namespaces = [Namespace('a'), Namespace('b')]\n"
        "print(*[one.inum for one in namespaces], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        numbers = {int(number) for number in process.stdout.readline().split()}
        assert len(numbers & living()) == 2
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not numbers & living(), 5, "the namespaces to go")


def test_an_exception_inside_is_raised_outside() -> None:
    with Namespace("a") as namespace, pytest.raises(ZeroDivisionError):
        namespace.call(lambda: 1 / 0)


def test_an_answer_that_nobody_waited_for_is_not_that_of_the_next_call() -> None:
    interrupted = threading.Event()

    def interrupt() -> bool:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        return interrupted.wait(5)

    def raise_timeout(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, raise_timeout)
    try:
        with Namespace("a") as namespace:
            with pytest.raises(TimeoutError):
                namespace.call(interrupt)
            interrupted.set()
            assert namespace.call(lambda: 7) == 7
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_where_no_thread_can_be_had_the_sentence_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(BrokenMeasurement, match="may not have another thread; raise its limits of memory"):
        Namespace("a")


def test_a_thread_that_ends_before_it_runs_anything_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where the kernel gives it a stack and no further memory."""
    start = _thread.start_new_thread
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: start(len, ((),)))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    with pytest.raises(BrokenMeasurement, match="thread of the namespace a has ended: this process may not have more"):
        Namespace("a")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_thread_that_ends_later_leaves_nothing_open() -> None:
    with Namespace("a") as namespace:
        packet = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW)
        namespace._asked.put(None)  # ends it
        with pytest.raises(BrokenMeasurement, match="thread of the namespace a has ended"):
            namespace.call(here)
    assert packet.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(namespace.fd)


@pytest.mark.parametrize("error", [MemoryError, SystemError])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_that_ends_while_its_answer_is_waited_for_is_not_waited_for(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest keeps the traceback of what ends a thread, and with it the thread's frames."""

    def short(*_: object, **__: object) -> None:
        raise error

    with Namespace("a") as namespace:
        monkeypatch.setattr(harness.lab.namespace, "_Answer", short)
        with pytest.raises(BrokenMeasurement, match="thread of the namespace a has ended: this process may not have"):
            namespace.call(here)


def test_a_call_that_takes_longer_than_a_look_at_the_thread_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.lab.namespace, "LOOK_S", 0.001)
    with Namespace("a") as namespace:
        assert namespace.call(threading.Event().wait, 0.05) is False


def test_a_closed_namespace_refuses_calls() -> None:
    with Namespace("a") as namespace:
        pass
    with pytest.raises(RuntimeError, match="a is closed"):
        namespace.call(here)


@pytest.mark.parametrize("name", ["net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"])
def test_a_setting_of_an_interface_with_a_dot_in_its_name(name: str) -> None:
    with Namespace("a") as namespace:
        namespace.call(lambda: subprocess.run(["ip", "link", "add", "eth0.100", "type", "veth"], check=True))
        namespace.sysctl({name: "2"})
        assert namespace.call(Path("/proc/sys/net/ipv4/conf/eth0.100/rp_filter").read_text) == "2\n"


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("net.ipv4.no_such_thing", "1", Unsupported, "has no setting net.ipv4.no_such_thing"),
        ("net.ipv4.ip_forward", "often", HarnessError, "refused net.ipv4.ip_forward = often: Invalid argument"),
        ("kernel.hostname", "x", HarnessError, "kernel.hostname is not a setting of a network namespace"),
        ("net/../kernel/hostname", "x", HarnessError, "not a setting of a network namespace"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: str, error: type[HarnessError], words: str) -> None:
    with Namespace("a") as namespace, pytest.raises(error, match=words):
        namespace.sysctl({name: value})


def test_only_root_may_make_one() -> None:
    # Imported as root: the checkout may be where nobody else can read.
    script = "os.setgid(65534); os.setuid(65534)\ntry: Namespace('a')\nexcept Exception as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", f"import os\nfrom harness.lab.namespace import Namespace\n{script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "only root may create network namespaces; run as root, or in the microVM\n", done.stderr
