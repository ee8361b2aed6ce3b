"""``nft-harness trace``: follow packets through the running kernel, or through another one beside a command."""

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from harness.cache import cache_dir, store
from harness.ending import exit_status, interruptible
from harness.errors import BrokenMeasurement, HarnessError, Unsupported
from harness.linux import features
from harness.programs import refuse_not_runnable
from harness.text import counted, in_colour
from harness.trace.capture import EventCapture
from harness.trace.formatter import EventFormatter
from harness.trace.lines import EventLine
from harness.trace.show import show
from harness.trace.stored import LOST, About, Writer, incomplete
from harness.tracer import live
from harness.tracer.events import EventWithBytes
from harness.tracer.kernel_cache import KernelCache
from harness.vm import images, learned, progress
from harness.vm.port import port

INSIDE = "--inside"
"""Hidden option: this is the process in the microVM, and the end of standard input is the user's Ctrl-C."""
GRACE_S = 5.0
"""Timeout for the command to end after SIGTERM, seconds."""
READY, PCAPNG, OUT = "ready", "pcapng", "trace"
"""Ports by which the microVM signals that it traces, and writes the capture and the trace."""


def main(options: argparse.Namespace, arguments: list[str]) -> int:
    """Trace with ``options`` on this kernel or, when it cannot be traced, in a microVM with the same ``arguments``.

    Returns the exit status: that of the command if it ended by itself and is not 0. Otherwise 0 for success, 2 for bad
    input or an unsupported kernel, 3 if events were lost, 125 if the microVM failed, 128 + N for signal N before
    tracing started.
    """
    choice = live.Selection(
        functions=[*options.functions, *(live.read_config(options.config) if options.config else ())],
        max_functions=options.max_functions,
        netns=options.netns,
        netns_to_come=bool(options.argv),
        expression=live.expression(options.filter, options.proto),
        stack=options.stack,
        bytes=bool(options.pcapng),
        engine=options.nft_tracer,
        buffer=options.buffer,
    )
    choice.check()
    if options.argv:
        refuse_not_runnable(options.argv[0])
    probes = features.function_probes()
    try:
        if not probes.able and not options.inside:
            return _in_a_guest(options, arguments, probes.reason)
        return _trace(choice, options)
    except BrokenMeasurement as broken:
        print(f"nft-harness: {broken}", file=sys.stderr)
        return LOST
    except BrokenPipeError:  # the reader of standard output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class Command:
    """The command that runs during the trace, if there is one."""

    def __init__(self, argv: list[str], *, inside: bool) -> None:
        self._argv = argv
        self._inside = inside
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def start(self) -> None:
        """Start it; it is terminated with this process. In a microVM it has no standard input, which is taken."""
        if not self._argv:
            return
        argv = ["setpriv", "--pdeathsig", "TERM", *self._argv]
        try:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL if self._inside else None)
        except OSError as error:
            raise HarnessError(f"{self._argv[0]} can't be run: {error.strerror}") from None

    def ended(self) -> bool:
        """Whether it was started and has ended."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Terminate it if it is running."""
        if self._process and self._process.poll() is None:
            self._stopped = True
            self._process.terminate()

    def status(self) -> int:
        """Its exit status, 128 + N after signal N; 0 when there is no command, or it was terminated by :meth:`stop`."""
        if not self._process:
            return 0
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return 0 if self._stopped else exit_status(code)


def _trace(choice: live.Selection, options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        interrupted = stack.enter_context(interruptible())
        capture = _capture(options, stack)
        kept = KernelCache(cache_dir())
        trace = stack.enter_context(live.LiveTrace(kept, choice))
        _keep(kept.news(), inside=options.inside)
        for name, why in sorted(trace.refused.items()):
            print(f"nft-harness: {name} can't be traced: {why}", file=sys.stderr)
        if options.dump_program:
            print(trace.program())
        if options.dump_metadata:
            print(json.dumps(live.metadata(trace.functions), indent=1))
        if number := interrupted():
            return 128 + number
        command = Command(options.argv, inside=options.inside)
        stack.callback(command.stop)

        def ready() -> None:
            print(
                f"nft-harness: {counted(trace.armed, 'function')} traced by {trace.engine}", file=sys.stderr, flush=True
            )
            if options.inside:
                port(READY).write_bytes(b"ready")
            elif options.ready_file:
                _write_ready(options.ready_file)
            command.start()

        about = About(kernel=os.uname().release, engine=str(trace.engine), functions=trace.armed)
        stored = _stored(options, stack, about)
        over = when_over(interrupted, duration=options.duration, command=command, input_ends=options.inside)
        formatter = EventFormatter(trace)
        started = time.monotonic()
        events = stack.enter_context(closing(trace.events(over, ready, settle=bool(options.argv))))
        batches: Iterable[live.Events] = events
        if options.dump_events:
            batches = _dumped(batches)
        lines_ = (line for batch in batches for line in formatter.format_batch(batch))
        entries = (line for line, _ in (_captured(lines_, capture) if capture else lines_))
        show(
            stored.passing(entries) if stored else entries,
            formatter.finished,
            as_json=options.json,
            by_packet=options.group == "packet",
            coloured=options.colour or in_colour(),
        )
        statistics = formatter.statistics(armed=trace.armed, seconds=time.monotonic() - started, loss=trace.loss)
        if stored:
            stored.end(statistics)
        if options.json:
            print(msgspec.json.encode({"statistics": statistics}).decode(), flush=True)
        else:
            print(f"\n{statistics}", flush=True)
        if status := command.status():
            print(f"nft-harness: {shlex.join(options.argv)} ended with status {status}", file=sys.stderr)
        if trace.loss.total:
            print(f"nft-harness: {incomplete(trace.loss)}", file=sys.stderr)
            return status or LOST
        return status


def _capture(options: argparse.Namespace, stack: ExitStack) -> EventCapture | None:
    if not options.pcapng:
        return None
    file = stack.enter_context(_opened(port(PCAPNG) if options.inside else options.pcapng))
    return EventCapture(file, time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC))


def _stored(options: argparse.Namespace, stack: ExitStack, about: About) -> Writer | None:
    if not options.out:
        return None
    return Writer(stack.enter_context(_opened(port(OUT) if options.inside else options.out)), about)


def _opened(path: Path) -> BinaryIO:
    if str(path) == "-":
        raise HarnessError("--out -: standard output is where the trace is printed", remedy="name a file, for --read")
    try:
        return path.open("wb")
    except OSError as error:
        raise HarnessError(f"{path} can't be written: {error.strerror}") from None


def _write_ready(path: Path) -> None:
    try:
        path.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise HarnessError(f"{path} can't be written: {error.strerror}") from None


def _keep(news: dict[str, bytes], *, inside: bool) -> None:
    if inside:
        learned.send(news)
        return
    store(cache_dir(), news)


def _captured(entries: Iterable[EventLine], capture: EventCapture) -> Iterator[EventLine]:
    for one in entries:
        capture.add(one.line, cast("EventWithBytes", one.event))
        yield one


def _dumped(batches: Iterable[live.Events]) -> Iterator[live.Events]:
    for batch in batches:
        for event in batch:
            print(event._asdict())
        yield batch


def _in_a_guest(options: argparse.Namespace, arguments: list[str], reason: str) -> int:
    from harness.vm.microvm import wrapper

    if not options.argv:
        raise Unsupported(
            f"{reason}, and a microVM has no traffic of its own",
            remedy="give a command to run in it: nft-harness trace -- COMMAND",
        )
    with progress.shown(sys.stderr) as report:
        image = images.get(options.kernel, report)
    print(f"nft-harness: tracing kernel {image.release} in a microVM: {reason}", file=sys.stderr)
    with ExitStack() as stack:
        # In a session of its own it does not get the terminal's Ctrl-C: it ends once it has printed the statistics.
        interrupted = stack.enter_context(interruptible())
        is_ready, says_ready = os.pipe()
        stack.callback(os.close, is_ready)
        outputs = {READY: says_ready, learned.PORT: os.memfd_create(learned.PORT)}
        stack.callback(os.close, outputs[learned.PORT])
        if options.pcapng:
            outputs[PCAPNG] = stack.enter_context(_opened(options.pcapng)).fileno()
        if options.out:
            outputs[OUT] = stack.enter_context(_opened(options.out)).fileno()
        vm = [*wrapper(), "--kernel", str(image.vmlinuz)]
        vm += [word for name, target in outputs.items() for word in ("--output", f"{name}:{target}")]
        command = [
            *vm,
            "--exec",
            sys.executable,
            "-m",
            "harness.cli",
            "trace",
            INSIDE,
            *(["--colour"] if in_colour() else []),
            *arguments,
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=list(outputs.values())
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        os.close(says_ready)
        traces = False
        while process.poll() is None:
            if number := interrupted():
                if not traces:
                    return 128 + number
                if process.stdin:
                    process.stdin.close()
                    process.stdin = None
            if select.select([is_ready], [], [], live.TICK_S)[0]:
                if not os.read(is_ready, 16):  # the microVM is ending
                    process.wait()
                    break
                traces = True
                if options.ready_file:
                    _write_ready(options.ready_file)
        with suppress(HarnessError):  # it has ended before
            learned.keep(outputs[learned.PORT], image.release)
    return exit_status(process.returncode)


def when_over(
    interrupted: Callable[[], int], *, duration: float | None, command: Command, input_ends: bool
) -> Callable[[], bool]:
    """A function that returns whether the trace is to end.

    It is when the command has ended, when interrupted, ``duration`` seconds after the first call, or with
    ``input_ends`` when standard input is closed. The command is terminated then: one that keeps sending would keep
    the trace from ending.
    """
    deadline: list[float] = []

    def over() -> bool:
        if duration is not None and not deadline:
            deadline.append(time.monotonic() + duration)
        if command.ended():
            return True
        if (
            not interrupted()
            and not (deadline and time.monotonic() >= deadline[0])
            and not (input_ends and _ended(sys.stdin.fileno()))
        ):
            return False
        command.stop()
        return True

    return over


def _ended(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0]) and not os.read(descriptor, 1)
