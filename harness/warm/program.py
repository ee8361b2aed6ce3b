"""First program of a template: imports everything, arms every probe, then waits to be saved and restored.

``init.sh`` starts it as process 1, in a root folder that holds nothing but the files that
:mod:`harness.warm.listing` lists on the host: QEMU does not save a guest that has mounted the host's files (a mounted
9p file system blocks migration). Three kinds of processes are there before the guest is saved, so that none has to be
started in a restored one:

- the *worker* imports and arms, says "ready" on the port "control" and reads one line from it. A restored guest is
  sent its task there (:func:`harness.vm.template.task`). The worker mounts the host's files, makes them the root,
  and becomes the Python program that the task names;
- *forwarders* copy the program's output from pipes to ports, as a write to a port takes 32 KiB at most;
- the *supervisor*, process 1, reports heartbeats and the exit status, as session.sh does after a cold boot.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import mmap
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

IMPORTED = (
    *(
        "harness.plugin",
        "harness.experiment.run",
        "harness.pytest_plugin.fixtures",
        "harness.report.terminal",
        "harness.tracer.tracer",
    ),
    *("harness.tracer.armed", "harness.linux.modules", "harness.warm.known"),
    *("harness.scenario.load", "xdist.remote", "xdist.plugin", "execnet.gateway_base", "random", "runpy", "tomllib"),
)
"""Modules that a restored guest does not import: the template has them, and all that these import."""

OUTER = 9
"""File descriptor of the root folder of the initramfs, opened by init.sh."""

HEARTBEAT_S = 2.0

CLEARED_BYTES = 192 << 20
"""Of free memory, before the guest is saved: four times what was seen to be left there."""

_MS_RDONLY, _MS_BIND, _MS_MOVE = 1, 4096, 8192  # include/uapi/linux/mount.h
_MNT_DETACH = 2  # include/linux/fs.h
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207  # include/uapi/linux/random.h

_9P = "trans=virtio,version=9p2000.L,msize=1048576,cache=loose,noxattr,access=any"


def main() -> NoReturn:
    """Be process 1 of a template, and of every guest that is restored from it."""
    ports = {name: os.open(_device(name), os.O_RDWR) for name in ("stdin", "stdout", "stderr", "control")}
    pipes = {name: os.pipe() for name in ("stdout", "stderr")}
    ends = [end for _, end in pipes.values()]
    forwarders = [_forked(_forward, source, ports[name], ends) for name, (source, _) in pipes.items()]
    ours, theirs = socket.socketpair()
    worker = _forked(_work, ports, ends, theirs)
    for descriptor in (*ends, *(source for source, _ in pipes.values())):
        os.close(descriptor)
    theirs.close()
    _supervise(worker, forwarders, ports["control"], ours)


def _forked(function: Callable[..., object], *arguments: object) -> int:
    process = os.fork()
    if not process:
        function(*arguments)
        os._exit(0)
    return process


def _forward(source: int, port: int, ends: Sequence[int]) -> None:
    for end in ends:  # so that the pipe ends with the worker
        os.close(end)
    while data := os.read(source, 1 << 15):
        while data:
            data = data[os.write(port, data) :]


def _device(port: str) -> str:
    """The device of a port. It gets its name from the host a moment after the driver has found it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for entry in Path("/sys/class/virtio-ports").iterdir():
            with suppress(OSError):
                if (entry / "name").read_text().strip() == port:
                    return f"/dev/{entry.name}"
        time.sleep(0.001)  # there is no udev to wait for
    raise FileNotFoundError(f"the host has opened no port {port}")


# -- the supervisor -----------------------------------------------------------------------------------


def _supervise(worker: int, forwarders: Collection[int], control: int, of_worker: socket.socket) -> NoReturn:
    """Follow the worker to the host's files, then report until it ends. The host ends the guest."""
    _, (root,), _, _ = socket.recv_fds(of_worker, 1, 1)
    # Kernel threads have the root folder of process 1: by it modprobe is found.
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    statuses: dict[int, int] = {}
    reported = b""
    events = select.poll()
    events.register(of_worker, select.POLLIN)
    events.register(os.pidfd_open(worker), select.POLLIN)
    while not reported and worker not in statuses:
        ready = dict(events.poll(1000 * HEARTBEAT_S))
        if not ready:
            os.write(control, b"alive\n")
        if of_worker.fileno() in ready:
            reported = of_worker.recv(16)
            if not reported:  # the worker has become another program, or has ended without a report
                events.unregister(of_worker)
        _reap(statuses)
    status = int(reported) if reported else os.waitstatus_to_exitcode(statuses[worker])
    for process in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        if process not in (1, worker, *forwarders):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
    for process in forwarders:
        if process not in statuses:
            os.waitpid(process, 0)
    os.write(control, b"exit %d\n" % (status if status >= 0 else 128 - status))
    while True:
        signal.pause()


def _reap(statuses: dict[int, int]) -> None:
    """Collect the wait statuses of all children that have ended; orphans become children of process 1."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            statuses.update([ended])


# -- the worker ---------------------------------------------------------------------------------------


def _work(ports: Mapping[str, int], ends: Sequence[int], supervisor: socket.socket) -> NoReturn:
    for number, descriptor in enumerate((ports["stdin"], *ends)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    control = ports["control"]
    status = 1
    try:
        with TemporaryDirectory() as folder:
            import_all(Path(folder))
            if not _arm(Path(folder)):
                os.write(control, b"not learned\n")
                signal.pause()
        _delete_imported()
        _clear_free_memory()
        os.write(control, b"ready %d %d\n" % _archive())
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(control, 1 << 16)
        given = json.loads(line)
        _adopt(given)
        root = _mount(given)
        sys.modules["harness.ruleset.process"].follow(root)
        os.chdir(given["folder"])
        os.write(control, b"up\n")
        os.close(control)
        socket.send_fds(supervisor, [b"r"], [root])
        os.close(root)
        status = _run(given["argv"])
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    # Exiting takes a second, as the probes are detached; there is no need to wait for it.
    os.closerange(0, 3)
    supervisor.send(b"%d" % (status & 0xFF))
    while True:
        signal.pause()


def import_all(folder: Path) -> None:
    """Import what a session needs; in part by pytest itself, which has an import hook for its plugins."""
    forget_manufacturers()  # first, so that what follows is put where they were
    import pytest

    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "scenarios").mkdir()
    (folder / "scenarios/template.yaml").write_text(_SCENARIO)
    (folder / "scenarios/template.nft").write_text(_RULESET)
    pytest.main(["--collect-only", "-qq", f"--rootdir={folder}", str(folder)])
    for name in IMPORTED:
        importlib.import_module(name)
    _build_frames(folder / "scenarios/template.yaml")
    known = sys.modules["harness.warm.known"]
    known.remember_metadata()
    known.remember_fixtures()
    known.remember_execnet()
    known.forget_known_tests()
    sys.modules["xdist.remote"].getinfodict()  # platform starts a program, once


def forget_manufacturers() -> None:
    """Have scapy read the manufacturers of network cards, 14 MiB, when they are asked for: no scenario needs them.

    Source: scapy/data.py, load_manuf(); scapy/dadict.py, where ``d`` is what a table holds.
    """
    from scapy import data

    known = data.ManufDA

    class Later(known):  # type: ignore[misc, valid-type]
        @property
        def d(self) -> dict[str, tuple[str, str]]:
            table: Any = self
            table.__class__ = known
            table.d = data.load_manuf(self._name if Path(self._name).exists() else None).d
            return self.d

    data.MANUFDB.d = {}
    data.MANUFDB.__class__ = Later


def _build_frames(file: Path) -> None:
    """Import what builds frames, and build those of the scenarios in ``file``.

    They are built in a process of their own: from then on a process has an audit hook (PEP 578), which slows it down.
    """
    from harness.packets import frames
    from harness.scenario import load
    from harness.scenario.case import Case

    cases = [case for case in load.load_all(file).cases if isinstance(case, Case)]
    prepared, modules = _apart(_built, [sent for case in cases for sent in case.sends])
    frames.use(prepared)
    for name in modules:
        importlib.import_module(name)


def _built(packets: Collection[tuple[Any, Any]]) -> tuple[dict[str, bytes], list[str]]:
    from harness.packets import frames

    before = set(sys.modules)
    prepared = frames.prepare(packets)
    return prepared, [name for name in sys.modules if name not in before and name.startswith(("harness.", "scapy."))]


def _apart(function: Callable[..., Any], *arguments: object) -> Any:
    """What ``function`` returns in a process of its own, which leaves nothing else behind in this one."""
    source, target = os.pipe()

    def run() -> None:
        with os.fdopen(target, "wb") as results:
            pickle.dump(function(*arguments), results)

    process = _forked(run)
    os.close(target)
    with os.fdopen(source, "rb") as results:
        result = pickle.load(results)
    os.waitpid(process, 0)
    return result


_RULESET = """
table inet filter {
  chain forward { type filter hook forward priority filter; policy drop; ct state new tcp dport 80 accept; }
}
"""
_SCENARIO = """
lab: router
ruleset: template.nft
scenarios:
  - {name: warm, send: {from: client, to: server, tcp: {dport: 80}}, expect: {verdict: accept, delivered: server}}
"""


_held: list[object] = []
"""What restored guests have besides."""


def _arm(folder: Path) -> bool:
    """Arm the tracer that sessions without options of their own use, and have it trace a scenario.

    False when the program is not compiled yet, or something had to be learned of the kernel: that takes memory, which a
    template would keep.
    """
    import gc
    import re

    import pytest

    from harness.cache import cache_dir
    from harness.linux import modules
    from harness.ruleset import static_keys
    from harness.tracer import armed, engines, kernel_cache, program, symbols
    from harness.tracer.tracer import Tracer
    from harness.vm import learned

    modules.load()
    cache = kernel_cache.KernelCache(cache_dir(), compiles=False)
    try:
        tracer = Tracer(cache, engine=engines.AUTO, ring_bytes=program.RING_BYTES)
    except kernel_cache.NotKept:
        return False
    tracer.arm()
    symbols.running()  # else read at the first drop, which takes a second
    armed.put(engines.AUTO, program.RING_BYTES, tracer)
    _held.append(static_keys.hold())
    re.purge()  # it is full of what imports have compiled: what the scenario needs would be dropped again
    arguments = [
        "--nft-kernel=host",
        "--nft-require",
        "-qq",
        f"--rootdir={folder}",
        str(folder),
    ]
    if status := pytest.main(arguments):
        raise SystemExit(status)
    if cache.survey.learned and learned.DONE not in sys.argv:
        return False
    sys.modules["harness.warm.known"].remember_configuration()
    gc.collect()
    gc.freeze()
    return True


def _delete_imported() -> None:
    """Delete the files of what is imported, which are in memory; a restored guest has the host's in their place."""
    for module in list(sys.modules.values()):
        source = Path(getattr(module, "__file__", None) or "")
        if source.suffix == ".py":
            for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"):
                compiled.unlink()
            source.unlink(missing_ok=True)
    if (manufacturers := Path(sys.modules["scapy.data"].MANUFDB._name)).is_file():
        manufacturers.unlink()
    if tables := sys.modules["scapy.main"].SCAPY_CACHE_FOLDER:
        for table in tables.glob("*.pickle"):
            table.unlink()


def _clear_free_memory() -> None:
    """Have the kernel zero what processes have left in memory that is free now: zeros take no disk space.

    Memory that was in use before is allocated first, as the rest is in larger blocks (Linux mm/page_alloc.c).
    """
    _libc.malloc_trim(0)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    with mmap.mmap(-1, CLEARED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page comes out of a large block
        memory[:: mmap.PAGESIZE] = bytes(CLEARED_BYTES // mmap.PAGESIZE)


def _archive() -> tuple[int, int]:
    """Where in memory the initramfs is, as it came, and its size: ``retain_initrd`` has the kernel leave it there.

    Source: Linux Documentation/arch/x86/zero-page.rst, boot.rst (ramdisk_image, ramdisk_size).
    """
    place, size = struct.unpack_from("II", Path("/sys/kernel/boot_params/data").read_bytes(), 0x218)
    return place, size


def _adopt(given: Mapping[str, Any]) -> None:
    """Differ from all other guests of the template."""
    import random

    time.clock_settime(time.CLOCK_REALTIME, given["time"])
    seed = bytes.fromhex(given["seed"])
    with Path("/dev/urandom").open("wb") as device:
        fcntl.ioctl(device, _RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
        fcntl.ioctl(device, _RNDRESEEDCRNG)
    random.seed(seed)
    os.environ.clear()
    os.environ.update(given["environment"])
    time.tzset()
    for number, name in enumerate(given["ports"]):
        Path("/run/guest", name).symlink_to(_device(f"spare{number}"))


def _mount(given: Mapping[str, Any]) -> int:
    """Make the host's files, as they are now, the root folder; a descriptor of it."""
    os.fchdir(OUTER)
    os.chroot(".")
    os.close(OUTER)
    _mounted("host", "/host", "9p", _MS_RDONLY, _9P)
    for entry in Path("/template/sys/class/bdi").iterdir():
        if entry.name.startswith("9p-"):
            (entry / "read_ahead_kb").write_text("1024")
    _mounted("changes", "/changes", "tmpfs", 0, "mode=755")
    Path("/changes/new").mkdir()
    Path("/changes/work").mkdir()
    layers = "lowerdir=/template:/host,upperdir=/changes/new,workdir=/changes/work"
    _mounted("root", "/guest", "overlay", 0, layers)
    for name in ("dev", "proc", "sys", "run"):
        _mounted(f"/template/{name}", f"/guest/{name}", None, _MS_MOVE)
    modules = Path("/guest/lib/modules", os.uname().release)
    modules.mkdir(parents=True, exist_ok=True)
    _mounted(f"/guest{given['modules']}", str(modules), None, _MS_BIND)
    if _libc.umount2(b"/template", _MNT_DETACH):  # so that files of it have in /proc/PID/maps the names they have here
        raise OSError(ctypes.get_errno(), "/template can't be detached")
    os.chdir("/guest")
    _mounted(".", "/", None, _MS_MOVE)
    os.chroot(".")
    importlib.invalidate_caches()
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


_libc = ctypes.CDLL(None, use_errno=True)


def _mounted(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    words = [text.encode() if text is not None else None for text in (source, target, kind)]
    if _libc.mount(*words, flags, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"{target} can't be mounted: {os.strerror(number)}")


def _run(argv: Sequence[str]) -> int:
    """Become the program ``argv``: in this process where that is this Python with ``-u``, ``-c`` or ``-m``."""
    program, *rest = argv
    unbuffered = rest[:1] == ["-u"]
    rest = rest[unbuffered:]
    if program != sys.executable or rest[:1] not in (["-c"], ["-m"]):
        os.execvpe(program, list(argv), os.environ)
    if unbuffered:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.path.insert(0, "" if rest[0] == "-c" else str(Path.cwd()))
    if rest[0] == "-c":
        sys.argv = ["-c", *rest[2:]]
        sys.modules["harness.warm.known"].run(rest[1])
    else:
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    main()
