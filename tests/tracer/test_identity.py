"""A packet is one packet, whatever the kernel does to it; what it answers is another.

Each test sends from a socket of its own, registers its cookie with the tracer, and inspects the events.
"""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from harness.cache import cache_dir
from harness.lab.capture import Capture
from harness.lab.inject import cookie_of
from harness.lab.lab import Host, Lab
from harness.linux import bpf
from harness.ruleset.nft import Nft
from harness.tracer.events import Event, EventKind
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.session import TraceData
from harness.tracer.tracer import Tracer
from harness.wait import wait_until

pytestmark = pytest.mark.kernel

SERVER = "10.0.2.2"
CLIENT = "203.0.113.5"
PORT = 4242


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(KernelCache(cache_dir())) as tracer:
        yield tracer


def run(host: Host, *command: str) -> None:
    host.namespace.call(subprocess.run, command, check=True, capture_output=True)


class Recorded:
    """What was recorded: packets that one of ``senders`` sent, and others."""

    def __init__(self, lab: Lab, recording: TraceData) -> None:
        self.recording = recording
        self._lab = lab
        births = [event for event in recording.events if event.kind == EventKind.BIRTH]
        self.sent = [event.packet for event in births if event.a]
        self.made = [event.packet for event in births if not event.a]

    def functions(self, packet: int, host: str = "") -> list[str]:
        """Names of the functions that a packet met, in order; at one host, or at all."""
        inums = [self._lab.hosts[host].inum] if host else list(self._lab.by_inum)
        return [self.name(event) for event in self.of(packet, EventKind.HOP) if event.netns in inums]

    def of(self, packet: int, kind: EventKind) -> list[Event]:
        return [event for event in self.recording.events if event.packet == packet and event.kind == kind]

    def name(self, event: Event) -> str:
        return self.recording.functions[event.function].name


def record(tracer: Tracer, lab: Lab, sockets: list[socket.socket], act: Callable[[], object]) -> Recorded:
    """Record what ``act`` sends through ``sockets``; nothing of it is lost."""
    tracer.arm()
    hosts = [host.inum for host in lab.hosts.values()]
    with tracer.watch(hosts=hosts, senders=[cookie_of(one) for one in sockets]) as watch:
        act()
        wait_until(lambda: not watch.alive(), 10, "the kernel to release the packets")
        recording = watch.finish()
    assert recording.loss.total == 0
    return Recorded(lab, recording)


def udp(host: Host) -> socket.socket:
    return host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)


def listening(host: Host, address: str) -> socket.socket:
    opened = udp(host)
    opened.settimeout(10)
    opened.bind((address, PORT))
    return opened


def test_through_veth_and_router_it_stays_one(tracer: Tracer, lab: Lab) -> None:
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)

    def act() -> None:
        sender.sendto(b"x", (SERVER, PORT))
        receiver.recv(10)

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == 1
    way = [host for host in ("client", "device", "server") if recorded.functions(recorded.sent[0], host)]
    assert way == ["client", "device", "server"]
    assert "ip_forward" in recorded.functions(recorded.sent[0], "device")
    assert "udp_rcv" in recorded.functions(recorded.sent[0], "server")
    assert not recorded.made


def test_nat_does_not_make_it_another(tracer: Tracer, lab: Lab) -> None:
    rules = f"""table ip nat {{
        chain pre {{ type nat hook prerouting priority dstnat; udp dport 53 dnat to {SERVER}:{PORT}; }}
        chain post {{ type nat hook postrouting priority srcnat; oifname "lan0" masquerade; }}
    }}"""
    Nft(lab.device.namespace).run(rules)
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)
    came_from: list[str] = []

    def act() -> None:
        sender.sendto(b"x", ("203.0.113.1", 53))
        came_from.append(receiver.recvfrom(10)[1][0])

    recorded = record(tracer, lab, [sender], act)
    assert came_from == ["10.0.2.1"]
    assert len(recorded.sent) == 1
    assert "udp_rcv" in recorded.functions(recorded.sent[0], "server")


def test_a_reply_is_another_packet(tracer: Tracer, lab: Lab) -> None:
    sender = udp(lab.hosts["client"])
    sender.connect((SERVER, PORT))
    sender.settimeout(10)

    def act() -> None:
        sender.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(10)

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == 1
    assert len(recorded.made) == 1
    assert "icmp_rcv" in recorded.functions(recorded.made[0], "client")
    assert "icmp_rcv" not in recorded.functions(recorded.sent[0])


def test_a_captured_copy_is_the_same_packet(tracer: Tracer, lab: Lab) -> None:
    capture = Capture([lab.hosts["server"]])
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)

    def act() -> None:
        sender.sendto(b"x", (SERVER, PORT))
        receiver.recv(10)
        capture.read()

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == 1
    (packet,) = recorded.sent
    assert recorded.of(packet, EventKind.COPY)
    assert "packet_rcv" in recorded.functions(packet, "server")


def test_a_copy_by_nf_tables_is_the_same_packet(tracer: Tracer, lab: Lab) -> None:
    """The statement dup clones a packet's head and copies what it changes (nf_dup_netdev_egress, nf_dup_ipv4)."""
    rules = """table ip t {
        chain c { type filter hook prerouting priority 0; udp dport 4242 dup to 10.0.2.2 device "lan0"; }
    }"""
    Nft(lab.device.namespace).run(rules)
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)

    def act() -> None:
        sender.sendto(b"x", (SERVER, PORT))
        receiver.recv(10)
        receiver.recv(10)

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == 1
    assert recorded.of(recorded.sent[0], EventKind.COPY)
    assert recorded.functions(recorded.sent[0], "server").count("udp_rcv") == 2
    assert not recorded.made


def test_segments_are_the_packet_that_they_were_cut_from(tracer: Tracer, lab: Lab) -> None:
    """A socket hands over more than fits into a frame, and the interface does not cut."""
    server = lab.hosts["server"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((SERVER, PORT))
    server.listen()
    client = lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.connect((SERVER, PORT))
    taken, _ = server.accept()
    size = 8000

    def act() -> None:
        client.sendall(bytes(size))
        got = 0
        while got < size:
            got += len(taken.recv(size))

    recorded = record(tracer, lab, [client], act)
    taken.close()
    cut = [packet for packet in recorded.sent if "skb_segment" in recorded.functions(packet)]
    assert cut
    for packet in cut:
        copies = [event for event in recorded.of(packet, EventKind.COPY) if recorded.name(event) == "skb_segment"]
        assert len(copies) >= 2
        assert recorded.functions(packet, "server").count("tcp_v4_rcv") >= 1
    # All that the server's TCP got of the client is known: nothing was born on the way.
    others = [packet for packet in recorded.made if "tcp_v4_rcv" in recorded.functions(packet, "server")]
    assert not others


def test_fragments_are_the_packet_that_they_were_cut_from(tracer: Tracer, lab: Lab) -> None:
    run(lab.device, "ip", "link", "set", "lan0", "mtu", "1000")
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)
    sender.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT

    def act() -> None:
        sender.sendto(bytes(1400), (SERVER, PORT))
        assert len(receiver.recv(2000)) == 1400

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == 1
    (packet,) = recorded.sent
    assert "ip_do_fragment" in recorded.functions(packet, "device")
    assert recorded.functions(packet, "server").count("ip_rcv") == 2
    assert recorded.functions(packet, "server").count("udp_rcv") == 1
    assert not recorded.made


@pytest.mark.parametrize("count", [3, 2])
def test_packets_are_alive_until_they_are_read_and_no_probe_is_skipped_to_learn_that(
    tracer: Tracer, lab: Lab, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """While bpf(2) is in a map the kernel skips probes, see :meth:`harness.linux.bpf.Map.memory`."""
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)
    tracer.arm()
    hosts = [host.inum for host in lab.hosts.values()]
    for _ in range(2):  # what a recording leaves behind is not of the next
        with tracer.watch(hosts=hosts, senders=[cookie_of(sender)]) as watch:
            with monkeypatch.context() as patched:
                patched.setattr(bpf, "_call", lambda *_: pytest.fail("bpf(2) while packets are under way"))
                assert watch.alive() == 0
                for _ in range(count):
                    sender.sendto(b"x", (SERVER, PORT))
                receiver.recv(1, socket.MSG_PEEK)
                wait_until(lambda: watch.alive() == count, 10, "the packets to be in the receiver's queue")
                for _ in range(count - 1):
                    receiver.recv(10)
                wait_until(lambda: watch.alive() == 1, 10, "the kernel to release those that were read")
            assert watch.finish().loss.total == 0
        receiver.recv(10)


def test_an_address_that_is_used_again_is_a_new_packet(tracer: Tracer, lab: Lab) -> None:
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], SERVER)
    count = 1000

    def act() -> None:
        for number in range(count):
            sender.sendto(number.to_bytes(2), (SERVER, PORT))
            receiver.recv(10)

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == count
    assert not recorded.made
    addresses = {event.skb for event in recorded.recording.events if event.kind == EventKind.BIRTH}
    assert len(addresses) < count
    received = Counter(
        event.packet
        for event in recorded.recording.events
        if event.kind == EventKind.HOP and recorded.name(event) == "udp_rcv"
    )
    assert received == dict.fromkeys(recorded.sent, 1)


@pytest.mark.parametrize("kind", ["gre", "vxlan"])
def test_encapsulation_does_not_make_it_another(tracer: Tracer, lab: Lab, kind: str) -> None:
    ends = {"client": (CLIENT, SERVER, "192.168.77.1"), "server": (SERVER, CLIENT, "192.168.77.2")}
    options = {"gre": [], "vxlan": ["id", "7", "dstport", "4789"]}[kind]
    for name, (own, other, inner) in ends.items():
        host = lab.hosts[name]
        run(host, "ip", "link", "add", "tun", "type", kind, *options, "local", own, "remote", other)
        run(host, "ip", "address", "add", f"{inner}/24", "dev", "tun")
        run(host, "ip", "link", "set", "tun", "up")
    sender, receiver = udp(lab.hosts["client"]), listening(lab.hosts["server"], ends["server"][2])
    sender.sendto(b"x", (ends["server"][2], PORT))  # the neighbours find each other
    receiver.recv(10)

    def act() -> None:
        sender.sendto(b"x", (ends["server"][2], PORT))
        receiver.recv(10)

    recorded = record(tracer, lab, [sender], act)
    assert len(recorded.sent) == 1
    functions = recorded.functions(recorded.sent[0], "server")
    assert "udp_rcv" in functions
    assert functions.count("ip_local_deliver") == 2  # with its outer header, and without
