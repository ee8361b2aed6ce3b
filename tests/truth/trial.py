"""Three judges of one flow: the project's observation, the reference, and the kernel's counters on every rule."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from harness.batch.sift import SETTLED_S, SiftStage, is_received
from harness.batch.stage import Stage
from harness.errors import Position
from harness.experiment.run import Experiment
from harness.model.observation import Observation, ObservedPacket, Step
from harness.packets.frames import Frame
from harness.project import find
from harness.ruleset.hosts import built
from harness.ruleset.nft import counted
from harness.scenario.case import Files
from harness.scenario.models.actions import NftAction
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.topology.spec import LabSpec
from harness.tracer.base import BaseTracer
from harness.wait import wait_until
from tests.truth import reference
from tests.truth.flow import BRIDGE, Flow
from tests.truth.packets import Packet, read

NETWORKS = {
    "router": Network.of(LABS["router"]),
    "bridge": Network.of(msgspec.convert(BRIDGE, LabSpec)),
}
ICMP = {
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv6/icmp/ratelimit": "0",
}
"""Settings by which the router answers each packet, not only some in a second; older kernels lack some."""
SENT_FROM = {"wan0": "client", "lan0": "server", "": "device"}
RECEIVES = {host: interface for interface, host in SENT_FROM.items() if interface}


class Disagreement(AssertionError):
    """Two judges of three do not agree."""


def frame(packet: Packet) -> Frame:
    """The packet as its host sends it."""
    host = SENT_FROM[packet.iif]
    return Frame(
        sender=host,
        interface="wan0" if host == "device" else "eth0",
        through="output" if host == "device" else "wire",
        data=packet.frame(),
        summary=str(packet),
    )


def judge(flow: Flow, folder: Path, tracer: BaseTracer | None) -> int:
    """Have all judges look at ``flow``; without a ``tracer`` the project watches no function.

    The number of packets that were compared one by one. Raises :class:`Disagreement`.
    """
    with _loaded(flow, folder, tracer) as stage:
        counts: list[dict[int, int]] = [_packets(stage)]

        def after(_: Sequence[Step]) -> bool:
            # On a busy machine ksoftirqd may have it yet: seen on Linux 6.1, for 5 packets of 10,000.
            wait_until(is_received, SETTLED_S, "the packet to be received")
            counts.append(_packets(stage))
            return True

        observed = stage.inject_each([[frame(one)] for one in flow.packets], after)
        router = flow.evaluator()
        compared = 0
        for number, (packet, found) in enumerate(zip(flow.packets, observed, strict=True)):
            before = dict(router.packets)
            try:
                expected = router.receive(packet) if packet.iif else router.send(packet)
            except reference.Uncovered:
                return compared
            if found is None:  # the kernel was not done with it when the next was sent: only the sums say something
                continue
            compared += 1
            compare(f"packet {number}, {packet}", expected, found[0], whole=stage.watches_functions)
            if tracer is not None or number + 1 < len(flow.packets):
                seen = _more(counts[number + 1], counts[number])
                if seen != (wanted := _more(router.packets, before)) and None not in observed:
                    raise Disagreement(f"packet {number}, {packet}: counters {seen}, the reference has {wanted}")
        sums = _sums(stage)
        wanted_sums = {
            rule.number: (router.packets[rule.number], router.bytes[rule.number]) for _, _, rule in flow.ruleset.rules()
        }
        if sums != wanted_sums:
            off = {key: (sums.get(key), wanted_sums[key]) for key in wanted_sums if sums.get(key) != wanted_sums[key]}
            raise Disagreement(f"counters at the end (rule: kernel, reference): {off}")
    return compared


def compare(what: str, expected: reference.Seen, found: Observation, *, whole: bool) -> None:
    """Compare what the reference says of a packet, and of the answer to it, with what was observed."""
    injected = [one for one in found.packets if one.injected] or list(found.packets[:1])
    _same(what, "steps", [tuple(one) for one in expected.steps], _steps(injected[0]))
    arrived = [(one.host, _read(one.frame)) for one in injected[0].deliveries if one.frame]
    others = [one for one in found.packets if one is not injected[0] and (one.steps or one.deliveries)]
    answers = [(one.host, _read(one.frame)) for packet in others for one in packet.deliveries if one.frame]
    wanted = _arrival(expected)
    wanted_answers = _arrival(expected.answer) if expected.answer else []
    if not others and not whole and len(found.packets) == 1:  # who sifts does not know which frame is an answer
        _same(what, "arrivals", sorted(wanted + wanted_answers), sorted(arrived))
        return
    _same(what, "arrivals", wanted, arrived)
    _same(what, "answers", wanted_answers, answers)
    if expected.answer is not None:
        steps = [step for one in others for step in _steps(one)]
        _same(what, "steps of the answer", [tuple(one) for one in expected.answer.steps], steps)
    if whole:
        own = any(not one.frame for one in injected[0].deliveries)
        _same(what, "delivery to the router", expected.arrived == "device", own)


def _arrival(seen: reference.Seen) -> list[tuple[str, str]]:
    if seen.arrived not in RECEIVES.values():
        return []
    return [(SENT_FROM[seen.arrived], _said(seen.packet))]


def _read(data: bytes) -> str:
    return _said(read(data))


def _said(packet: Packet) -> str:
    macs = f"{packet.smac:012x} > {packet.dmac:012x}"
    if packet.arp:
        return f"{macs} arp {packet.arp} {packet.src} > {packet.dst} ({packet.target:012x})"
    ends = f"{packet.src} > {packet.dst} {packet.proto} {packet.sport} > {packet.dport} {packet.type}/{packet.code}"
    ends = f"{macs} {ends}"
    return f"{ends} flags {packet.flags:#x} id {packet.id} ttl {packet.ttl} dscp {packet.dscp} length {packet.length}"


def _steps(packet: ObservedPacket) -> list[tuple[str, int | None, str]]:
    """As the reference has them; a chain's end without verdict is none."""
    return [
        (
            f"{step.family} {step.table} {step.chain}",
            _number(step.rule.comment) if step.rule else None,
            f"{step.verdict}",
        )
        for step in packet.steps
        if step.kind != "return" or step.rule
    ]


def _same(what: str, which: str, expected: Any, seen: Any) -> None:
    if expected != seen:
        raise Disagreement(f"{what}: {which}:\n  reference {expected}\n  observed  {seen}")


# --- counters -----------------------------------------------------------------------------------


def _number(comment: str) -> int:
    return int(comment.removeprefix("rule "))


def _packets(stage: Stage) -> dict[int, int]:
    """Counted by each rule until now, as netlink reports it."""
    known = {(one.family, one.table, one.chain, one.handle): _number(one.comment) for one in stage.ruleset.rules}
    found = stage.device.namespace.call(counted)
    return {known[tuple(handle)]: packets for handle, packets in found.items() if tuple(handle) in known}


def _more(after: dict[int, int], before: dict[int, int]) -> dict[int, int]:
    return {key: more for key, count in sorted(after.items()) if (more := count - before.get(key, 0))}


def _sums(stage: Stage) -> dict[int, tuple[int, int]]:
    """Packets and bytes counted by each rule, as nft lists them."""
    found = {}
    listed = stage.device.namespace.call(subprocess.check_output, ["nft", "-j", "list", "ruleset"])
    for one in json.loads(listed)["nftables"]:
        rule = one.get("rule", {})
        if "comment" in rule:
            counter = next(part["counter"] for part in rule["expr"] if "counter" in part)
            found[_number(rule["comment"])] = (counter["packets"], counter["bytes"])
    return found


# --- loading ------------------------------------------------------------------------------------


@contextmanager
def _loaded(flow: Flow, folder: Path, tracer: BaseTracer | None) -> Iterator[Stage]:
    (folder / "pytest.ini").touch()
    file = folder / "t.nft"
    text = flow.ruleset.text
    files = Files((file,), find((file,)))
    in_steps = flow.loaded == "steps" and tracer is not None
    if flow.loaded in ("commands", "steps"):
        text = "" if in_steps else "\n".join(flow.ruleset.commands) + "\n"
    elif flow.loaded in ("listing", "json"):
        file.write_text(text)
        text = _listed(NETWORKS[flow.lab], files, as_json=flow.loaded == "json")
    file.write_text(text)
    with _stage(NETWORKS[flow.lab], files, tracer) as stage:
        for name, value in ICMP.items():
            if stage.device.namespace.call(Path("/proc/sys", name).exists):
                stage.device.namespace.sysctl({name: value})
        for command in flow.ruleset.commands if in_steps else ():
            assert isinstance(stage, Experiment)
            stage.act(NftAction(nft=command), 0, lambda *_, **__: Position(str(file), 1, 1))
        yield stage


@contextmanager
def _stage(network: Network, files: Files, tracer: BaseTracer | None) -> Iterator[Stage]:
    if tracer is None:
        with SiftStage.open(network, files) as sifting:
            yield sifting
        return
    with Experiment.open(network, {"device": files}, tracer) as experiment:
        experiment.arm(())
        yield experiment


def _listed(network: Network, files: Files, *, as_json: bool) -> str:
    """The ruleset as nft lists it once it is loaded; with ``as_json`` after it was listed as JSON and loaded again."""
    with built(network, {"device": files}) as (lab, _):

        def nft(*arguments: str, given: str = "") -> str:
            done = subprocess.run(["nft", *arguments], input=given, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Disagreement(f"nft {' '.join(arguments)}: {done.stderr}")
            return done.stdout

        call = lab.device.namespace.call
        if as_json:
            listed = call(nft, "-j", "list", "ruleset")
            call(nft, "flush", "ruleset")
            call(nft, "-j", "-f", "-", given=listed)
        return call(nft, "-s", "list", "ruleset")
