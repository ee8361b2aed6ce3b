"""The program of the processes that parse untrusted rulesets: run by itself, with libnftables and Python's library.

::

    parent ── project ──┬── child      one network namespace; runs nft commands until its socket is closed
     │         (mounts) └── child
     └─────── project …                one set of folders that may be read

A parent that reads alone is in a user namespace and a network namespace of its own, and nothing that its children read
reaches the kernel: :func:`isolate`.

The parent imports what is needed once, so each further process costs a fork. A project's process sees a file system
that has nothing but the folders it was given, read only; a child also enters a network namespace and gives away
every privilege but that of configuring networks. See :mod:`harness.ruleset.process` for the other side.

It is above 400 lines because it must be one file: it is started by its path, isolated, and imports nothing of the
package. See pivot_root(2), mount_setattr(2), capabilities(7), seccomp(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import glob
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = struct.Struct("=iII")
"""Before each reply of a child: nft's return code, and the sizes of its output and its error text in bytes."""
LENGTH = struct.Struct("=I")
"""Before each message: its size in bytes."""
MESSAGE_MAX = 32 << 20
"""Bytes of a message, in either direction."""
MEMORY = 1 << 30
"""Bytes of address space of a child."""
STDERR_MAX = 1 << 16
"""Bytes that are read of what a child has written into its standard error."""
TEXT = "/dev/stdin"
"""The file that has the text which a child reads."""
TEXT_MAX = MESSAGE_MAX
"""Bytes that a child may write there: the size of the file system, and the limit for its files."""
FILES_MAX = 4096
"""Open files of a child: nft keeps those that it includes open."""
ALONE = "alone"
"""Last argument of a parent whose children load nothing."""
TOO_MUCH = -1000
"""Return code for an output of more than :data:`MESSAGE_MAX` bytes."""

CGROUPS = "/sys/fs/cgroup"
BASE = "/tmp"
"""Where the new root is mounted, in mounts of its own."""
USER = 65534
"""nobody: a child signals and traces no process of another user."""

DATABASES = (
    *("/etc/protocols", "/etc/services", "/etc/localtime", "/etc/ethertypes", "/etc/ld.so.cache"),
    *("/etc/iproute2/rt_marks", "/etc/iproute2/rt_realms", "/etc/iproute2/group"),
    *("/etc/connlabel.conf", "/etc/xtables/connlabel.conf", "/etc/nftables/osf/pf.os"),
)
"""What libnftables, libxtables and libc read by themselves: names for numbers."""
NAMES = ("/etc/passwd", "/etc/group")
"""Of these too, but no more than the names and numbers."""
NSSWITCH = b"passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n"
"""For nsswitch.conf(5): no name server is asked."""
HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"
PROGRAMS = ("/usr/lib", "/usr/lib64", "/usr/sbin", "/usr/bin", "/etc/alternatives")
"""What a program needs to run; none of it is a project's."""

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
# mount(2), umount2(2), mount_setattr(2), open_tree(2), move_mount(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
SYS_MOUNT_SETATTR, SYS_PIVOT_ROOT = 442, 155
SYS_OPEN_TREE, SYS_MOVE_MOUNT, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 428, 429, 1, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
# prctl(2)
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 8, 22, 38, 47
PR_CAP_AMBIENT_RAISE, SECCOMP_MODE_FILTER = 2, 2
CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_NET_RAW = 2, 12, 13
CAPABILITY_VERSION_3 = 0x20080522
# linux/audit.h, asm/unistd_64.h, linux/seccomp.h
AUDIT_ARCH_X86_64 = 0xC000003E
X32 = 0x40000000
SECCOMP_RET_ALLOW, SECCOMP_RET_EPERM, SECCOMP_RET_KILL = 0x7FFF0000, 0x00050001, 0x80000000
REFUSED = (
    *(101, 165, 166, 155, 161, 272, 308),  # ptrace, mount, umount2, pivot_root, chroot, unshare, setns
    *(303, 304, 310, 311, 298, 321),  # name_to_handle_at, open_by_handle_at, process_vm_*, perf_event_open, bpf
    *(248, 249, 250, 323, 425, 426, 427),  # add_key, request_key, keyctl, userfaultfd, io_uring_*
    *(428, 429, 430, 431, 432, 433, 442),  # open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
)
"""System calls that no ruleset needs, and that reach files or kernel interfaces by other ways than a path."""
EXECUTING = (59, 322)
"""execve, execveat."""
LOADING = (46, 307)
"""sendmsg, sendmmsg: libnftables sends a transaction by sendmsg (mnl_nft_socket_sendmsg() in src/mnl.c), and asks by
sendto for what is loaded."""
OF_OTHERS = (
    *(62, 200, 234, 129, 297, 424),  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal
    *(434, 438, 440, 302, 141),  # pidfd_open, pidfd_getfd, process_madvise, prlimit64, setpriority
    *(142, 144, 203, 314, 251, 256, 279),  # sched_set*, ioprio_set, migrate_pages, move_pages
)
"""System calls that reach other processes of the same user."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.glob.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


# --- messages -----------------------------------------------------------------------------------


def send(sock: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send ``message`` as JSON, with open ``descriptors``."""
    data = json.dumps(message).encode()
    data = LENGTH.pack(len(data)) + data
    if descriptors:
        sent = socket.send_fds(sock, [data], descriptors)
        data = data[sent:]
    sock.sendall(data)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors.

    Raises :class:`EOFError` when the other side is gone or sends too much, :class:`ConnectionError` when it is gone
    and has not read all that was sent.
    """
    head, descriptors, _, _ = socket.recv_fds(sock, LENGTH.size, 8)
    if not head:
        raise EOFError
    head += exactly(sock, LENGTH.size - len(head))
    (size,) = LENGTH.unpack(head)
    if size > MESSAGE_MAX:
        raise EOFError
    message: dict[str, Any] = json.loads(exactly(sock, size))
    return message, descriptors


def exactly(sock: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes; raises :class:`EOFError` when the other side is gone before."""
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# --- parent and projects ------------------------------------------------------------------------


def isolate(control: socket.socket) -> None:
    """Move to a user namespace and a network namespace of this process's own; the other side maps users and groups.

    There no request of this process has the kernel load a module for a network device (dev_load() in
    net/core/dev_ioctl.c). Raises :class:`OSError`, as :func:`confine`.
    """
    _check("unshare", _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    send(control, {})
    receive(control)


def parent(control: socket.socket, answer: dict[str, str], *, alone: bool) -> None:
    """Fork a process for each project, until ``control`` is closed; give all the same ``answer`` where there is one.

    With ``alone`` their children stay in the network namespace of this process, see :func:`isolate`.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for projects
    while True:
        message, (descriptor,) = receive(control)
        if message.get("root"):
            os.fchdir(descriptor)
            os.chroot(".")
            os.close(descriptor)
            continue
        if answer:
            with socket.socket(fileno=descriptor) as own:
                send(own, answer)
            continue
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with_parent()
            with socket.socket(fileno=descriptor) as own:
                project(own, message, alone=alone)
            os._exit(0)
        os.close(descriptor)


def project(control: socket.socket, message: dict[str, Any], *, alone: bool) -> None:
    """Confine this process to some folders and fork a child for each request, until ``control`` is closed."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        confine(message["roots"], executable=message["executable"], cgroups=message["cgroups"])
    except OSError as refused:
        send(control, {"refused": f"{refused.filename}: {refused.strerror}"})
        return
    send(control, {})
    ended: dict[int, int] = {}
    while True:
        message, descriptors = receive(control)
        if pid := message.get("end", 0):
            send(control, {"status": ended.pop(pid) if pid in ended else _end(pid)})
            continue
        ended = dict(list(ended.items())[-64:])
        try:
            while (dead := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                ended[dead[0]] = dead[1]
        except ChildProcessError:
            pass
        pid = os.fork()
        if pid == 0:
            control.close()
            _child(null, message.get("argv"), message["memory"], alone, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        send(control, {"pid": pid})


def _end(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)  # no other process can have the number before this one waits for it
    return os.waitpid(pid, 0)[1]


def confine(roots: list[str], *, executable: bool, cgroups: bool) -> None:
    """Leave this process nothing of the file system but the folders and files ``roots``, read only, and a few names.

    With ``cgroups`` it also sees those of this machine, where libnftables looks for the paths that rules name.
    All stay where they are. What links to elsewhere leads nowhere. Raises :class:`OSError`, with the step that was
    refused as its file name.
    """
    contents = {name: _content(name) for name in (*DATABASES, *_time_zone())}
    contents |= {name: _names(_content(name)) for name in NAMES}
    contents |= {"/etc/nsswitch.conf": NSSWITCH, "/etc/hosts": HOSTS}
    _check("unshare", _libc.unshare(CLONE_NEWNS))
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    kept = [one for one in sorted(set(roots)) if not any(_is_below(one, other) for other in roots if other != one)]
    places = _trees(kept)
    own = os.environ.get("XTABLES_LIBDIR")
    extensions = [own] if own else glob.glob("/usr/lib/*/xtables")
    extensions += [CGROUPS] if cgroups else []
    libraries = _trees([one for one in extensions if not any(_is_below(one, place) for place in places)])
    links = {entry.name: os.readlink(entry) for entry in os.scandir("/") if entry.is_symlink()}
    attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | (0 if executable else ATTR_NOEXEC)
    if "/" in places:
        _bind(places["/"], BASE, attributes)
    else:
        _furnish(places, libraries, attributes, links, contents)
        if not executable:
            _make(f"{BASE}/dev")
            _mount("tmpfs", f"{BASE}/dev", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={TEXT_MAX},mode=755")
            _make(BASE + TEXT, b"")
            os.chmod(BASE + TEXT, 0o666)
    for place in (*places.values(), *libraries.values()):
        os.close(place)
    os.chdir(BASE)
    _check("pivot_root", _libc.syscall(SYS_PIVOT_ROOT, b".", b"."))
    _check("umount", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    if "/" not in places:
        _mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _furnish(
    places: dict[str, int],
    libraries: dict[str, int],
    attributes: int,
    links: dict[str, str],
    contents: dict[str, bytes | None],
) -> None:
    """Mount a file system at :data:`BASE` that has the folders and files ``places``, copies of :func:`_trees`, and
    beside them only ``links``, files with ``contents`` and the ``libraries``, extensions of xtables and cgroups."""
    _mount("tmpfs", BASE, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")
    for name, link in links.items():
        os.symlink(link, f"{BASE}/{name}")
    for one, place in places.items():
        _make(BASE + one, None if os.path.isdir(f"/proc/self/fd/{place}") else b"")
        _bind(place, BASE + one, attributes)
    for one, place in libraries.items():
        _make(BASE + one)
        _bind(place, BASE + one, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for name, content in contents.items():
        if content is not None and not any(_is_below(name, one) for one in places):
            _make(BASE + name, content)


def _content(name: str) -> bytes | None:
    try:
        with open(name, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def _names(content: bytes | None) -> bytes:
    """Of passwd(5) or group(5) the names and numbers alone."""
    found = [line.split(b":") for line in (content or b"").splitlines() if line.count(b":") >= 3]
    return b"".join(
        b":".join([line[0], b"x", line[2], line[3], b"", b"", b""][: len(line)]) + b"\n"
        for line in found
        if len(line) > 3
    )


def _time_zone() -> list[str]:
    zone = os.environ.get("TZ", "").lstrip(":")
    return [f"/usr/share/zoneinfo/{zone}"] if zone and ".." not in zone and not zone.startswith("/") else []


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _make(path: str, content: bytes | None = None) -> None:
    """Make a file with ``content``, or a folder where that is None, and the folders above it."""
    folder = path if content is None else os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, mode=0o755, exist_ok=True)
    if content is not None:
        place = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        while content:
            content = content[os.write(place, content) :]
        os.close(place)


def _trees(paths: list[str]) -> dict[str, int]:
    """Copies of ``paths`` by :func:`_tree`; of those that are there, as another machine may have been meant."""
    found: dict[str, int] = {}
    for one in paths:
        with contextlib.suppress(FileNotFoundError):
            found[one] = _tree(one)
    return found


def _tree(path: str) -> int:
    """A copy of the mounts at ``path`` and below, mounted nowhere yet: without what is mounted there later, as the new
    root is at :data:`BASE`. See open_tree(2)."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    arguments = (ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags))
    place: int = _libc.syscall(ctypes.c_long(SYS_OPEN_TREE), *arguments)
    _check("open_tree", min(place, 0))
    return place


def _bind(place: int, target: str, attributes: int) -> None:
    """Mount the copy ``place`` of :func:`_tree` at ``target``. See move_mount(2), mount_setattr(2)."""
    arguments: tuple[object, ...] = (ctypes.c_int(place), b"", ctypes.c_int(AT_FDCWD), os.fsencode(target))
    empty = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
    _check("move_mount", _libc.syscall(ctypes.c_long(SYS_MOVE_MOUNT), *arguments, empty))
    value = struct.pack("=QQQQ", attributes, 0, 0, 0)
    arguments = (ctypes.c_int(AT_FDCWD), os.fsencode(target), ctypes.c_uint(AT_RECURSIVE), value, ctypes.c_size_t(32))
    _check("mount_setattr", _libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), *arguments))


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    source_, target_, kind_, data_ = (os.fsencode(one) if one else None for one in (source, target, kind, data))
    _check("mount", _libc.mount(source_, target_, kind_, ctypes.c_ulong(flags), data_))


def _check(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# --- children -----------------------------------------------------------------------------------


def _child(
    null: int, argv: list[str] | None, memory: int, alone: bool, namespace: int, sock: int, error: int, *given: int
) -> None:
    """Become the process of one network namespace; with ``argv`` that program, on ``given`` as standard input."""
    _die_with_parent()
    os.dup2(given[0] if given else null, 0)
    os.dup2(error if argv else null, 1)
    os.dup2(error, 2)
    if not alone:
        _check("setns", _libc.setns(namespace, CLONE_NEWNET))
    for descriptor in (namespace, error, *given, null):
        os.close(descriptor)
    _limit(memory, STDERR_MAX if argv else TEXT_MAX)
    _drop(keep_files=argv is None, executing=argv is not None, alone=alone)
    if argv:
        os.set_inheritable(sock, True)  # its end is seen there
        os.execve(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin"})
    try:
        serve(socket.socket(fileno=sock))
    except (EOFError, ConnectionError):
        os._exit(0)
    except MemoryError:
        os.write(2, b"Memory allocation failure\n")
        os._exit(1)


def _limit(memory: int, file: int) -> None:
    """Limit the address space and the size of files that are written."""
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (permitted(what, most),) * 2)


def permitted(what: int, most: int) -> int:
    """``most``, or what this process may use at most of the resource ``what`` where that is less; getrlimit(2)."""
    hard = resource.getrlimit(what)[1]
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _drop(*, keep_files: bool, executing: bool, alone: bool) -> None:
    """Give away all privileges but that of configuring networks and, with ``keep_files``, of reading any file here.

    A program that is ``executing`` may open raw sockets: iptables asks for sets of ipset by one (SO_IP_SET).
    """
    kept = [CAP_NET_ADMIN] + [CAP_DAC_READ_SEARCH] * keep_files + [CAP_NET_RAW] * executing
    mask = sum(1 << one for one in kept)
    _check("prctl", _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    if not alone or os.geteuid() == 0:  # an ordinary user's own namespace has that user alone
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    _check("capset", _libc.capset(header, struct.pack("=6I", mask, mask, mask if executing else 0, 0, 0, 0)))
    if executing:
        for one in (CAP_NET_ADMIN, CAP_NET_RAW):
            _check("prctl", _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, one, 0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    _check("prctl", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _refuse((*REFUSED, *(() if executing else EXECUTING), *((*LOADING, *OF_OTHERS) if alone else ())))
    _die_with_parent()  # a change of user has taken it back


def _refuse(calls: tuple[int, ...]) -> None:
    """Have the kernel refuse system calls. See seccomp(2) and Documentation/networking/filter.rst."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, AUDIT_ARCH_X86_64),
        (answer, 0, 0, SECCOMP_RET_KILL),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, len(calls) + 1, 0, X32),
        *((equal, len(calls) - place, 0, number) for place, number in enumerate(calls)),
        (answer, 0, 0, SECCOMP_RET_ALLOW),
        (answer, 0, 0, SECCOMP_RET_EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    _check(
        "seccomp",
        _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))),
    )


def serve(sock: socket.socket) -> None:
    """Answer requests, one after the other, until the other side closes ``sock``."""
    while True:
        message, descriptors = receive(sock)
        for descriptor in descriptors:  # a text for nft to read
            os.dup2(descriptor, 0)
            os.close(descriptor)
        context = None
        with _text() if descriptors else contextlib.nullcontext():
            if "glob" in message:
                code, output, error = _matching(message["glob"])
            else:
                context = _Nftables()
                code, output, error = _nft(context, message)
        if "then" not in message:
            context = None
        if len(output) + len(error) > MESSAGE_MAX:
            code, output, error = TOO_MUCH, b"", b""
        sock.sendall(HEADER.pack(code, len(output), len(error)) + output + error)
        # Its socket is closed only when the kernel has freed what commands have replaced, after an RCU grace period
        # (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
        context = None


@contextlib.contextmanager
def _text() -> Iterator[None]:
    """Have the text that is the standard input also at :data:`TEXT`, where this process sees no other files.

    libnftables 1.0.9 opens that name; 1.0.6 and 1.1.3 read the descriptor.
    """
    if not stat.S_ISREG(os.lstat(TEXT).st_mode):  # this machine's own
        yield
        return
    with open(TEXT, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the other processes of the project have it too
        file.truncate(0)
        while part := os.pread(0, 1 << 20, file.tell()):
            file.write(part)
        yield


def _nft(nft: Any, message: dict[str, Any]) -> tuple[int, bytes, bytes]:
    """Run commands, or those in a file, in the new libnftables context ``nft``; return code, output, error text.

    Where those are done, the commands "then" are run as well, and what is returned is theirs.
    """
    if message["json"]:  # values of counters and elements of sets included
        nft.set_json_output(True)
    else:
        # What `nft --handle --stateless --terse --numeric-priority` sets: counters and the elements
        # of named sets are of no use here, and there may be many.
        nft.set_handle_output(True)
        nft.set_stateless_output(True)
        nft.set_terse_output(True)
        nft.set_numeric_prio_output(True)
    nft.clear_include_paths()  # nothing is included from /etc by a relative name
    if folder := message["folder"]:
        try:
            os.chdir(folder)  # for files included as ./name
        except OSError as missing:
            return 1, b"", f"Error: {folder}: {missing.strerror}".encode()
        nft.add_include_path(folder)
    nft.set_dry_run(message.get("dry", False))
    name, commands = (message.get(key, "").encode(errors="surrogateescape") for key in ("file", "commands"))
    result: tuple[int, bytes, bytes] = nft.cmd_from_file(name) if name else nft.cmd(commands)
    if result[0] == 0 and (then := message.get("then", "").encode()):
        result = nft.cmd(then)
    return result


class _Glob(ctypes.Structure):
    """``glob_t`` of glob.h."""

    _fields_ = [("count", ctypes.c_size_t), ("paths", ctypes.POINTER(ctypes.c_char_p)), ("rest", ctypes.c_char * 64)]


def _matching(pattern: str) -> tuple[int, bytes, bytes]:
    """The files that glob(3) finds, sorted, each with a NUL behind it; folders are left out."""
    found = _Glob()
    _libc.glob(os.fsencode(pattern), 0, None, ctypes.byref(found))
    paths = [found.paths[number] or b"" for number in range(found.count)]
    _libc.globfree(ctypes.byref(found))
    return 0, b"".join(path + b"\0" for path in paths if not os.path.isdir(path)), b""


def main(control: int, bindings: str, *, alone: bool) -> None:
    """Serve on the socket ``control``; ``bindings`` is the folder of the Python module nftables."""
    global _Nftables
    sys.path.append(bindings)
    answer: dict[str, str] = {}
    try:
        import nftables

        # Each context of the bindings opens the library and looks up its functions, which takes most of its time.
        nftables.nftables.cdll = ctypes.LibraryLoader(cast("type[ctypes.CDLL]", functools.cache(ctypes.CDLL)))
        _Nftables = nftables.Nftables
        # A context that is not complete cannot be deleted either, which Python would print.
        complain, sys.unraisablehook = sys.unraisablehook, lambda _: None
        _Nftables()  # loads what it needs before there is nothing left to load from
        sys.unraisablehook = complain
    except (ImportError, OSError) as error:
        answer = {"missing": str(error)}
    with socket.socket(fileno=control) as own:
        if alone:
            try:
                isolate(own)
            except OSError as refused:
                send(own, {"refused": f"{refused.filename}: {refused.strerror}"})
                return
        parent(own, answer, alone=alone)


_Nftables: Any = None

if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2], alone=sys.argv[3:] == [ALONE])
    except (EOFError, ConnectionError, KeyboardInterrupt):
        os._exit(0)
