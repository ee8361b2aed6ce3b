"""Engines are ways to the same events."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from harness.errors import Unsupported
from harness.inject import cookie_of
from harness.kernel import bpf
from harness.kernel.images import cache_dir
from harness.lab.lab import Lab
from harness.ruleset.nft import Nft
from harness.scenario.labs import LABS
from harness.scenario.models import HostSpec, LabSpec
from harness.scenario.network import Network
from harness.tracer import attach
from harness.tracer.events import Kind
from harness.tracer.kept import Kept
from harness.tracer.tracer import Tracer

pytestmark = pytest.mark.kernel

RULES = "table ip t { chain c { type filter hook forward priority 0; udp dport 4242 accept; }; }"
FEW = ("ip_rcv", "nf_hook_slow", "nft_do_chain", "ip_forward", "ip_output", "__dev_queue_xmit", "udp_rcv", "skb_clone")
"""Detaching kprobes takes a tenth of a second for each in an emulated CPU."""


def hops(engine: str) -> list[tuple[Kind, str, int]]:
    """What one packet through the router meets: kind of event, function and a verdict or result."""
    server = HostSpec(interfaces={"eth0": ["10.0.2.2/24"]}, gateway="device", forwarding=True)
    client = HostSpec(interfaces={"eth0": ["203.0.113.5/24"]}, gateway="device", forwarding=True)
    hosts = {**LABS["router"].hosts, "server": server, "client": client}
    plan = Network.of(LabSpec(hosts=hosts, links=LABS["router"].links))
    with Lab.build(plan) as lab, Tracer(Kept(cache_dir()), engine=engine) as tracer:
        lab.device.namespace.call(lambda: Nft().run(RULES))
        tracer.arm_only(tracer.known().named(FEW))
        assert not tracer.refused
        sender = lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver = lab.hosts["server"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("10.0.2.2", 4242))
        receiver.settimeout(10)
        inums = [host.inum for host in lab.hosts.values()]
        with tracer.watch(hosts=inums, senders=[cookie_of(sender)]) as watch:
            sender.sendto(b"x", ("10.0.2.2", 4242))
            receiver.recv(10)
            recording = watch.finish()
        assert recording.loss.total == 0
        wanted = (Kind.HOP, Kind.RETURN)
        return [
            (Kind(event.kind), recording.functions[event.function].name, event.a if event.kind == Kind.RETURN else 0)
            for event in recording.events
            if event.kind in wanted
        ]


@pytest.fixture(scope="module")
def by_engine() -> dict[str, list[tuple[Kind, str, int]]]:
    """The same packet as each engine of this kernel tells it."""
    told = {}
    for engine in attach.ENGINES:
        try:
            told[engine.name] = hops(engine.name)
        except Unsupported as refused:
            assert engine.name in str(refused)  # noqa: PT017
    return told


def test_all_engines_tell_the_same(by_engine: dict[str, list[tuple[Kind, str, int]]]) -> None:
    if len(by_engine) < 2:
        pytest.skip(f"this kernel has no engine but {', '.join(by_engine)}")
    first, *others = by_engine.values()
    assert all(other == first for other in others)
    names = [name for _, name, _ in first]
    assert names.index("ip_rcv") < names.index("ip_forward") < names.index("nft_do_chain") < names.index("udp_rcv")


def test_auto_takes_the_best(by_engine: dict[str, list[tuple[Kind, str, int]]]) -> None:
    with Tracer(Kept(cache_dir())) as tracer:
        assert tracer.engine.name == next(iter(by_engine))


def test_an_engine_that_the_kernel_lacks_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(bpf, "link_functions", refuse)
    with pytest.raises(Unsupported, match=r"refuses .* by kprobe.multi \(Operation .*; leave out --nft-tracer"):
        Tracer(Kept(cache_dir()), engine="kprobe.multi")
