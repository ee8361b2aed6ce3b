"""A ping flood through a router with ten rules: untraced, traced, and traced by pwru.

    python bench flood [--kernel 6.12] [--packets 1000] [--many 10000] [--pwru]

Everything happens in one microVM, one run after the other, on the same lab. A flood is one process
that sends echo requests as fast as the kernel takes them, and is over when all answers are back: each
request and each answer crosses the router. What is said of a tracer is what it said itself.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import cache
from harness.lab.lab import Lab
from harness.linux import bpf
from harness.model import layers
from harness.ruleset.nft import Nft
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.topology.spec import HostSpec, LabSpec
from harness.tracer import events, live
from harness.tracer.contract import Trait
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import LiveOptions, Tracer
from harness.tracer.traits import ALLOCATORS, TRAITS
from harness.vm import images
from harness.wait import wait_until

HERE = Path(__file__).parent
FIFTY = 50
RATE = 1000
DEADLINE_S = 300.0
RUNS = 10
ANSWERED = {
    **LABS["router"].hosts,
    "server": HostSpec(interfaces={"eth0": ["10.0.2.2/24"]}, gateway="device", forwarding=True),
}
"""The router of the scenarios, and a server that answers."""


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def echo(lab: Lab) -> bytes:
    """An echo request of 98 bytes, as ping sends it."""
    client, router = lab.network.hosts["client"].interfaces["eth0"], lab.network.hosts["device"].interfaces["wan0"]
    macs = bytes.fromhex((router.mac + client.mac).replace(":", ""))
    addresses = socket.inet_aton("203.0.113.5") + socket.inet_aton("10.0.2.2")
    head = struct.pack(">BBHHHBB", 0x45, 0, 84, 1, 0, 64, 1)
    head += checksum(head + b"\0\0" + addresses) + addresses
    body = struct.pack(">HH", 1, 1) + bytes(56)
    return macs + b"\x08\0" + head + b"\x08\0" + checksum(b"\x08\0\0\0" + body) + body


class Flood:
    """The lab, and floods through it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._client = lab.hosts["client"].namespace
        self._socket = self._client.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind(("eth0", 0))
        self._frame = echo(lab)

    def answers(self) -> int:
        """Packets that the client has received."""
        text = self._client.call(Path("/proc/thread-self/net/dev").read_text)
        return next(int(line.split()[1 + 1]) for line in text.splitlines() if line.strip().startswith("eth0:"))

    def run(self, packets: int, meanwhile: Callable[[], object] = lambda: None, *, rate: int = 0) -> float:
        """Seconds that a flood takes, of ``rate`` packets a second if given; ``meanwhile`` is called over and over."""
        before, started = self.answers(), time.monotonic()
        child = os.fork()
        if not child:
            for number in range(packets):
                if rate:
                    time.sleep(max(started + number / rate - time.monotonic(), 0))
                self._socket.send(self._frame)
            os._exit(0)

        def over() -> bool:
            meanwhile()
            return self.answers() - before >= packets

        wait_until(over, DEADLINE_S, f"{packets} answers")
        took = time.monotonic() - started
        os.waitpid(child, 0)
        return took


@contextmanager
def flooded() -> Iterator[Flood]:
    plan = LabSpec(hosts=ANSWERED, links=LABS["router"].links)
    with Lab.build(Network.of(plan)) as lab:
        lab.device.namespace.call(lambda: Nft().run((HERE / "flood.nft").read_text()))
        flood = Flood(lab)
        flood.run(10)  # neighbours, conntrack's tables
        yield flood


def traced(flood: Flood, tracer: Tracer, packets: int, what: str, *, rate: int = 0) -> float:
    """Flood and record all; print what came of it."""
    hosts = [host.inum for host in flood.lab.hosts.values()]
    with tracer.live(hosts=hosts) as watch:
        took = flood.run(packets, watch.drain, rate=rate)
        names: Counter[str] = Counter()
        numbers = set()
        while taken := watch.take(1 << 14):
            names.update(
                tracer.functions[event.function].name
                for event in taken
                if event.kind in (events.EventKind.HOP, events.EventKind.RETURN, events.EventKind.RULE)
            )
            numbers.update(event.packet for event in taken if event.kind == events.EventKind.BIRTH)
        loss = watch.finish().loss
    hops = sum(names.values())
    unknown = sum(count for name, count in names.items() if layers.layer(name) == layers.UNKNOWN)
    say(
        what,
        f"{packets} packets in {took:.2f} s ({packets / took:.0f}/s), "
        f"{loss.received} events ({loss.received / took:.0f}/s), "
        f"{len(numbers)} packets known, {len(names)} functions hit, {100 * unknown / max(hops, 1):.2f} % Unknown, "
        f"lost {loss.total} (refused {loss.refused}, missed {loss.missed}, untracked {loss.untracked})",
    )
    return took


def say(what: str, result: str) -> None:
    print(f"{what:34}{result}", flush=True)


def inside(options: argparse.Namespace) -> None:
    """All of it, in the guest."""
    packets = options.packets
    with flooded() as flood:
        bare = min(flood.run(packets) for _ in range(3))
        say("untraced", f"{packets} packets in {bare:.2f} s ({packets / bare:.0f}/s)")
        kept = KernelCache(cache.cache_dir())
        with Tracer(kept, live=LiveOptions()) as tracer:
            functions = live.select_functions(
                tracer.known(), live.Selection(max_functions=FIFTY), everything=tracer.engine.everything
            )
            tracer.arm_only(functions)
            traced(flood, tracer, packets, f"{len(functions)} functions")
            traced(flood, tracer, packets, f"{len(functions)} functions, {RATE} a second", rate=RATE)
        started = time.monotonic()
        with Tracer(kept) as tracer:  # as scenarios have it
            tracer.arm()
            say("time to armed, for scenarios", f"{time.monotonic() - started:.2f} s")
            slow = min(flood.run(packets) for _ in range(3))
            say("armed, nothing wanted", f"{slow:.2f} s, {slow / bare:.2f}x untraced")
            with tracer.watch(hosts=[1], senders=[1]):
                slow = min(flood.run(packets) for _ in range(3))
            say("armed, others wanted", f"{slow:.2f} s, {slow / bare:.2f}x untraced")
            names = [one.kernel_name for one in tracer.functions if one.kernel_name not in tracer.refused]
            returning = [
                one.kernel_name for one in tracer.functions if TRAITS.get(one.name, 0) & (Trait.RETURNS | Trait.COPIES)
            ]
        empty(flood, names, [], packets, bare)
        empty(flood, names, [*returning, ALLOCATORS[0]], packets, bare)
        started = time.monotonic()
        with Tracer(kept, live=LiveOptions()) as tracer:
            tracer.arm()
            say(
                "time to armed",
                f"{time.monotonic() - started:.2f} s, {len(tracer.functions)} functions by {tracer.engine.name}",
            )
            slow = traced(flood, tracer, packets, "all functions")
            say("", f"{slow / bare:.2f}x untraced")
            traced(flood, tracer, options.many, "all functions, many packets")
            sizes = []
            for _ in range(RUNS):
                with tracer.live(hosts=[host.inum for host in flood.lab.hosts.values()]) as watch:
                    flood.run(100, watch.drain)
                    watch.finish()
                gc.collect()
                sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 10)
            say(f"memory after each of {RUNS} runs", f"{', '.join(map(str, sizes))} KiB")
        if options.pwru:
            pwru(flood, options.pwru, packets, bare)


def empty(flood: Flood, names: list[str], returning: list[str], packets: int, bare: float) -> None:
    """An empty program on the same functions, and on return of those that are ``returning``."""
    program = bpf.load_nothing(bpf.TRACE_KPROBE_MULTI)
    links = [bpf.link_functions(program, names, [0] * len(names))]
    if returning:
        links.append(bpf.link_functions(program, returning, [0] * len(returning), returns=True))
    slow = min(flood.run(packets) for _ in range(3))
    for descriptor in (*links, program):
        os.close(descriptor)
    what = "an empty program, and on return" if returning else "an empty program on all"
    say(what, f"{slow:.2f} s, {slow / bare:.2f}x untraced")


def pwru(flood: Flood, program: str, packets: int, bare: float) -> None:
    """pwru on the same flood."""
    with tempfile.TemporaryDirectory() as folder:
        ready, output = Path(folder, "ready"), Path(folder, "output")
        started = time.monotonic()
        with output.open("w") as out, Path(folder, "errors").open("w") as err:
            process = subprocess.Popen(
                [program, "--backend", "kprobe-multi", "--ready-file", str(ready), "icmp"],
                stdout=out,
                stderr=err,
            )
            try:
                wait_until(lambda: ready.exists() or process.poll() is not None, DEADLINE_S, "pwru")
                if process.poll() is not None:
                    say("pwru", f"ended with {process.returncode}: {Path(folder, 'errors').read_text()[-300:]}")
                    return
                armed = time.monotonic() - started
                took = flood.run(packets)
                size = -1
                while size != output.stat().st_size:  # it goes on printing what it has
                    size = output.stat().st_size
                    time.sleep(3)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait()
        text = output.read_text()
        told = Path(folder, "errors").read_text().replace("\n", " | ")
        say(
            "pwru",
            f"armed in {armed:.2f} s; flood {took:.2f} s, {took / bare:.2f}x untraced; "
            f"{len(text.splitlines()) - 1} events shown",
        )
        say("", told[-400:])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default=images.DEFAULT)
    parser.add_argument("--packets", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10000)
    parser.add_argument("--pwru", nargs="?", const="get", help="a program, or fetch it from the Debian archive")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        inside(options)
        return 0
    if options.pwru == "get":
        options.pwru = str(fetch_pwru())
    from harness.vm import microvm

    own = ["--inside", "--packets", str(options.packets), "--many", str(options.many)]
    if options.pwru:
        own += ["--pwru", options.pwru]
    return microvm.main(["--kernel", options.kernel, "--exec", sys.executable, __file__, *own])


def fetch_pwru() -> Path:
    """Debian's pwru, unpacked into the cache folder; nothing is installed."""
    from harness.vm import debian, progress

    place = cache.cache_dir() / "bench/pwru"
    program = place / "usr/bin/pwru"
    if not program.exists():
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            tell = stack.enter_context(progress.shown(sys.stderr))
            place.mkdir(parents=True, exist_ok=True)
            debian.unpack(debian.download("sid", "pwru", folder, tell), place)
    return program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
