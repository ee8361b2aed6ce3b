"""Machines of all kinds, built by iproute2 from ``machines/NAME.sh``, and packets sent through them and their twins."""

from __future__ import annotations

import os
import pickle
import re
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest

from harness.batch import effects as batch
from harness.batch import sighting
from harness.batch.messages import Effect, Effects, Loaded
from harness.batch.sift import SiftStage, _on_one_cpu, sifted
from harness.batch.sighting import SightingReader
from harness.batch.stage import ICMP
from harness.errors import HarnessError, Unsupported
from harness.generate import facts, pool
from harness.generate.device import SimulatedDevice
from harness.generate.pool import Pool
from harness.generate.simulate import SimulatedRuleset
from harness.lab.capture import Capture, Captured
from harness.lab.inject import Senders, Wire
from harness.lab.lab import Host
from harness.lab.namespace import Namespace
from harness.model.problem import Problem
from harness.packets.frames import Frame, build
from harness.packets.spec import Send
from harness.project import find
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace_chains import TraceChains
from harness.scenario.case import Files
from harness.scenario.load import load_lab
from harness.topology.network import Network
from harness.topology.parts import Bridge, HostPlan, Tunnel, Vlan, Vxlan
from harness.twin import collect, machine, project

FOLDER = Path(__file__).with_name("machines")
PRELUDE = """
set -e
ip link set lo up
for file in /proc/sys/net/bridge/bridge-nf-call-*; do # of a new namespace, where br_netfilter is loaded
	[ ! -e $file ] || echo 0 >$file
done
sysctl() { # -qw NAME=VALUE...: as that of procps, which is not everywhere
	shift
	for setting in "$@"; do
		echo "${setting#*=}" >"/proc/sys/$(echo "${setting%%=*}" | tr . /)"
	done
}
wire() { # NAME: an interface whose other end is outside
	ip link add "$1" type veth peer name "x-$1" netns "$OUTSIDE"
	nsenter --net="$OUTSIDE" ip link set "x-$1" up
	ip link set "$1" up
}
"""
NOISE = re.compile(
    r" (?:ARP|arp)|icmpv6? (?:nd-|mld|13[0-7]|143)|neighbour|router|multicast|ff02::|unreachable|protocol 41"
)
"""Frames that kernels send by themselves, or later than the packet that has caused them; and those of tunnels that
labs do not have."""
ETHERNET, TTL = 14, {4: 8, 6: 7}


class Outcome(NamedTuple):
    """What became of a packet."""

    verdict: str
    met: tuple[str, ...]
    """Rules and policies."""
    left: tuple[str, ...]
    """Frames at the hosts around it."""


class Compared(NamedTuple):
    """A packet on a machine and on its twin."""

    packet: str
    machine: Outcome
    twin: Outcome


class Built:
    """A machine in a namespace, and the other end of its wires in another."""

    def __init__(self, name: str) -> None:
        self.inside, self.outside = Namespace("machine"), Namespace("outside")
        self.ruleset = tuple(path for end in ("nft", "v4", "v6") if (path := FOLDER / f"{name}.{end}").exists())
        place = f"/proc/{os.getpid()}/fd/{self.outside.fd}"
        text = PRELUDE + (FOLDER / f"{name}.sh").read_text()
        made = self.inside.call(
            subprocess.run, ["sh", "-c", text], env=os.environ | {"OUTSIDE": place}, capture_output=True, text=True
        )
        self.problem = made.stderr if made.returncode else ""

    def run(self, command: Sequence[str], text: str = "") -> str:
        """What ``command`` prints in the machine."""
        ran = self.inside.call(subprocess.run, list(command), input=text, capture_output=True, text=True)
        assert not ran.returncode, ran.stderr
        return str(ran.stdout)

    def load(self) -> None:
        """Load its ruleset by the programs that the machine has."""
        for path in self.ruleset:
            version = "6" if path.suffix == ".v6" else ""
            program = (
                ["nft", "-f", str(path)] if path.suffix == ".nft" else [f"ip{version}tables-nft-restore", str(path)]
            )
            self.run(program)

    def host(self, plan: HostPlan) -> Host:
        """The machine as a host of a lab with its ``plan``."""
        return Host(plan, self.inside, self._indexes(self.inside))

    def around(self) -> Host:
        """What is outside as a host."""
        plan = msgspec.structs.replace(EMPTY, name="outside", silent=True)
        # Not those that modules of tunnels make in every namespace.
        ends = {name: index for name, index in self._indexes(self.outside).items() if name.startswith("x-")}
        return Host(plan, self.outside, ends)

    @staticmethod
    def _indexes(namespace: Namespace) -> dict[str, int]:
        import socket

        return {name: index for index, name in namespace.call(socket.if_nameindex) if name.removeprefix("lo")}

    def close(self) -> None:
        self.inside.close()
        self.outside.close()


EMPTY = HostPlan(
    name="device", interfaces={}, made={}, routes=(), rules=(), neighbours=(), forwarding=False, sysctls={},
    silent=False, speaking=frozenset(),
)  # fmt: skip


@pytest.fixture
def built() -> Iterator[Callable[[str], Built]]:
    """Builds machines; a kernel without what one needs skips the test."""
    made: list[Built] = []

    def build_one(name: str) -> Built:
        made.append(Built(name))
        if "Unknown device type" in made[-1].problem or "Operation not supported" in made[-1].problem:
            pytest.skip(f"this kernel lacks what {name} needs: {made[-1].problem.strip().splitlines()[-1]}")
        assert not made[-1].problem, made[-1].problem
        return made[-1]

    yield build_one
    for one in made:
        one.close()


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Callable[[Built, Path, int], list[Compared]]:
    """Sends packets through a machine, whose ruleset is loaded here, and through its twin in a folder."""

    def run(one: Built, folder: Path, packets: int) -> list[Compared]:
        monkeypatch.setattr(pool, "TRIED_AT_MOST", 150)
        host = one.host(EMPTY)
        try:
            looked = facts.load(*one.ruleset)
        except Unsupported as lacking:
            pytest.skip(str(lacking))
        one.load()
        twin = project.of(machine.read(one.inside.call(collect.here)))
        assert twin.rulesets, twin.notes
        project.write(twin, folder)
        one.run(["nft", "flush", "ruleset"])
        loaded = Ruleset.load(host, *one.ruleset)
        network = load_lab(folder / "labs" / f"{twin.name}.yaml")
        files = tuple(folder / name for name in twin.files)
        device = SimulatedDevice(SimulatedRuleset(looked), network)
        sent = list(_sent(Pool([device], 1).packets(packets * 2), network))
        outside = Outside(one, host, network)
        sent = [(words, frames) for words, frames in sent if outside.reaches(frames[-1])][:packets]
        frames = [[own] for _, own in sent]
        outside.prepare()
        answers = sighting.effects(sifted(pickle.dumps((network, Files(files, find(files)))), frames), frames)
        try:
            twins = list(_outcomes(answers, outside.hosts, outside.answering))
        except Unsupported as lacking:
            pytest.skip(str(lacking))
        with MachineStage.of(one, host, loaded, outside) as stage:
            machines = list(_outcomes(_measured(stage, frames), outside.hosts, outside.answering))
        return [
            Compared(words, here, there)
            for (words, _), here, there in zip(sent, machines, twins, strict=True)
            if here is not None and there is not None
        ]

    return run


def _sent(packets: Sequence[pool.PooledPacket], network: Network) -> Iterator[tuple[str, tuple[Frame, ...]]]:
    for packet in packets:
        if len(packet.sends) == 1:
            with suppress(Problem, msgspec.ValidationError):
                frames = build(msgspec.convert(packet.sends[0], Send), network)
                yield pool.describe_send(packet.sends[0]), frames[:1]


def _outcomes(
    answers: Iterator[Loaded | Effects], hosts: Mapping[str, str], answering: frozenset[str]
) -> Iterator[Outcome | None]:
    """The outcome of each packet; None for one that could not be measured."""
    texts: dict[Any, str] = {}
    for one in answers:
        if isinstance(one, Loaded):
            texts = {(rule.family, rule.table, rule.chain, rule.handle): rule.text for rule in one.rules}
        elif one.error or not one.seen:
            print("not measured:", one.error or "nothing was seen")  # shown where the test fails
            # What the kernel drops before any hook is seen by nobody.
            yield Outcome("unseen", (), ()) if "was seen by no function" in one.error else None
        else:
            yield _outcome(one.seen[0], texts, hosts, answering)


def _outcome(effect: Effect, texts: Mapping[Any, str], hosts: Mapping[str, str], answering: frozenset[str]) -> Outcome:
    met = (" ".join([*map(str, place[:3]), texts.get(place, "policy")]) for place in effect.met)
    left = {one for one in effect.arrived if one.split(":")[0] in hosts and not NOISE.search(one)}
    # A router around the machine answers what is sent to itself; outside of a machine nobody does.
    left = {
        one
        for one in left
        if "tcp RA" not in one or one.split(": ", 1)[1].split()[0].rpartition(":")[0] not in answering
    }
    return Outcome(effect.verdict, tuple(met), tuple(sorted(left)))


def _measured(stage: MachineStage, frames: Sequence[batch.Packet]) -> Iterator[Loaded | Effects]:
    measuring = batch.Measuring(stage)
    yield Loaded(kernel="", rules=stage.ruleset.rules, policies=stage.ruleset.policies)
    for packet in frames:
        try:
            (found,) = measuring.measure([packet])
            yield found
        except HarnessError as error:
            yield Effects(error=str(error))


# --- the machine from outside --------------------------------------------------------------------


class Outside:
    """The hosts of a twin's lab as the machine sees them: which of its wires they are at, and with which tags."""

    def __init__(self, one: Built, host: Host, network: Network) -> None:
        self._one, self._host, self._network = one, host, network
        self._plan = network.hosts[network.device]
        self._macs = {own.mac: own.end for own in network.interfaces}
        links = msgspec.json.decode(one.run(["ip", "-j", "link", "show"]))
        self._own = {link["ifname"]: link["address"] for link in links if "address" in link}
        outside = set(one.around().interfaces)
        self.ends = {
            name: next((end for end in (f"x-{name}", *_parts(links, name)) if end in outside), "")
            for name in self._plan.interfaces
            if name not in self._plan.made
        }
        """By wire, what it is called outside; "" for what is a wire in the lab only, such as a tunnel."""
        self.at: dict[tuple[str, bytes], str] = {}
        """By wire and VLAN tags the host there."""
        self._wires: dict[str, tuple[str, bytes]] = {}
        for name, interface in self._plan.interfaces.items():
            if name in self._plan.made or interface.peer.host == network.device or not self.ends[name]:
                continue
            peer = network.hosts[interface.peer.host]
            if isinstance(switch := peer.made.get("br0"), Bridge):
                for port in switch.ports[1:]:
                    vlan = switch.vlans[port].untagged or 0
                    tag = b"" if switch.vlans["up"].untagged == vlan else struct.pack("!HH", 0x8100, vlan)
                    self._enter(peer.interfaces[port].peer.host, name, tag)
            else:
                self._enter(peer.name, name, b"")
        self.hosts = {f"{name} eth0": name for name in self._wires}
        routers = (host for host in network.hosts.values() if host.forwarding and host is not self._plan)
        self.answering = frozenset(
            str(a.ip) for host in routers for one in host.interfaces.values() for a in one.addresses
        )

    def _enter(self, host: str, wire: str, tag: bytes) -> None:
        self.at[wire, tag] = host
        self._wires[host] = wire, tag

    def prepare(self) -> None:
        """Have the machine know the neighbours and stations that its twin knows."""
        commands = [
            f"neigh replace {one.address} lladdr {one.mac} dev {one.interface} nud permanent"
            for one in self._plan.neighbours
            if not isinstance(self._plan.made.get(one.interface), Tunnel)
        ]
        self._one.run(["ip", "-force", "-batch", "-"], "\n".join(commands))
        for name, bridge in self._plan.bridges.items():
            for one in bridge.stations:
                vlan = ["vlan", str(one.vlan)] if one.vlan else []
                self._one.run(["bridge", "fdb", "replace", one.mac, "dev", one.port, "master", "static", *vlan])
            assert name in self._own

    def reaches(self, frame: Frame) -> bool:
        """Whether a frame gets to the machine's wires as it would in the lab."""
        return (frame.through == "output" and frame.sender == self._network.device) or self.way(frame) is not None

    def way(self, frame: Frame) -> tuple[str, bytes] | None:
        """The wire at which a frame arrives, and its bytes there; None where it does not."""
        data, sender = frame.data, frame.sender
        plan = self._network.hosts[sender]
        if frame.through == "output":
            return self._routed(sender, data) if plan.forwarding or plan.made else None
        while isinstance(vlan := plan.made.get(frame.interface), Vlan):
            protocol = 0x8100 if vlan.protocol == "802.1q" else 0x88A8
            data = data[:12] + struct.pack("!HH", protocol, vlan.id) + data[12:]
            frame = msgspec.structs.replace(frame, interface=vlan.link)
        if sender in self._wires:
            wire, tag = self._wires[sender]
            return wire, self._addressed(data, tag)
        router = self._macs.get(data[:6].hex(":"))
        return self._routed(router.host, data, hop=True) if router else None

    def _routed(self, router: str, data: bytes, *, hop: bool = False) -> tuple[str, bytes] | None:
        """``data`` as the host ``router`` sends it to the machine."""
        family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(data[12:14], 0)
        if router not in self._wires or not family:
            return None
        packet = bytearray(data[ETHERNET:])
        try:
            there = self._network.route(router, ip_address(bytes(packet[16:20] if family == 4 else packet[24:40])))
        except Problem:
            return None
        near = self._macs.get(there.mac)
        if (
            near is None
            or near.host != self._network.device
            or isinstance(self._network.hosts[router].made.get(there.interface.name), Tunnel | Vxlan)
        ):
            return None
        if hop:
            source = ip_address(bytes(packet[12:16] if family == 4 else packet[8:24]))
            own = (one.ip for of in self._network.hosts[router].interfaces.values() for one in of.addresses)
            if source.is_loopback or source.is_multicast or source in own:
                return None  # a router does not pass these on
            packet[TTL[family]] -= 1
            if not packet[TTL[family]] or (family == 4 and packet[0] & 15 > 5):
                return None
            if family == 4:
                packet[10:12] = b"\0\0"
                packet[10:12] = _checksum(bytes(packet[:20]))
        wire, tag = self._wires[router]
        ethernet = bytes.fromhex((there.mac + there.interface.mac).replace(":", "")) + data[12:14]
        return wire, self._addressed(ethernet + packet, tag)

    def _addressed(self, data: bytes, tag: bytes) -> bytes:
        """``data`` with the machine's own Ethernet address in place of its twin's, and ``tag``."""
        end = self._macs.get(data[:6].hex(":"))
        if end is not None and end.host == self._network.device:
            data = bytes.fromhex(self._own[end.interface].replace(":", "")) + data[6:]
        return data[:12] + tag + data[12:]


def _parts(links: Sequence[Mapping[str, Any]], bond: str) -> list[str]:
    """The other ends of the parts of a bond, of which the first is active."""
    return [f"x-{one['ifname']}" for one in links if one.get("master") == bond]


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack("!10H", header))
    return struct.pack(
        "!H", ~(total + (total >> 16)) & 0xFFFF if total >> 16 == 0 else ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    )


class MachineStage(SiftStage):
    """As :class:`SiftStage`, of a machine that is not a lab."""

    def __init__(self, one: Built, host: Host, loaded: Ruleset, outside: Outside) -> None:
        around = one.around()
        self._lab = SimpleNamespace(device=host)  # type: ignore[assignment]
        self._files = Files(one.ruleset, find(one.ruleset))
        self._ruleset = loaded
        self._tracing = TraceChains(host, loaded)
        self._capture = _Capture(around, outside)  # type: ignore[assignment]
        self._neighbours = SimpleNamespace(of_frame=lambda _: None)  # type: ignore[assignment]
        self._senders = _Senders(host, around, outside)  # type: ignore[assignment]
        self._reader = SightingReader(self._tracing.steps, host.name, os.uname().release)

    @classmethod
    @contextmanager
    def of(cls, one: Built, host: Host, loaded: Ruleset, outside: Outside) -> Iterator[MachineStage]:
        """It, ready."""
        for name, value in ICMP.items():
            with suppress(OSError, HarnessError):
                one.inside.sysctl({name: value})
        with _on_one_cpu():
            yield cls(one, host, loaded, outside)


class _Capture:
    """Frames that leave the machine, as those that the hosts at its wires receive."""

    def __init__(self, around: Host, outside: Outside) -> None:
        self._capture = Capture([around])
        self._outside = outside

    def read(self) -> list[Captured]:
        found = []
        for one in self._capture.read():
            wire = next((name for name, end in self._outside.ends.items() if end == one.device), one.device)
            frame = one.frame
            tag = frame[12:16] if frame[12:14] == b"\x81\x00" else b""
            host = self._outside.at.get((wire, tag))
            if host is not None and tag:
                frame = frame[:12] + frame[16:]
            host = host or self._outside.at.get((wire, b""), f"?{wire}")
            found.append(msgspec.structs.replace(one, host=host, device="eth0", frame=frame))
        return found


class _Senders:
    def __init__(self, host: Host, around: Host, outside: Outside) -> None:
        self._own = Senders({host.name: host})
        self._around, self._outside = around, outside
        self._wires: dict[str, Wire] = {}

    def of(self, frame: Frame) -> Any:
        if frame.sender == "device":
            return self._own.of(frame)
        way = self._outside.way(frame)
        assert way is not None
        wire, data = way
        if wire not in self._wires:
            self._wires[wire] = Wire(self._around, self._outside.ends[wire])
        return SimpleNamespace(send=lambda _: self._wires[wire].send(data))
