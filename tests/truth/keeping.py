"""A flow that judges do not agree about, as a scenario that can be kept: a ruleset and a file with its packets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.truth import reference
from tests.truth.flow import BRIDGE, Flow
from tests.truth.language import Ruleset
from tests.truth.packets import ICMP, REQUEST, TCP, UDP, Packet

FLAGS = "FSRPAUEC"
SENDER = {"wan0": "client", "lan0": "server", "": "device"}


def smallest(flow: Flow, fails: Callable[[Flow], bool]) -> Flow:
    """``flow`` without the packets, tables and rules that it needs not to fail."""
    smaller = True
    while smaller:
        smaller = False
        for one in _smaller(flow):
            if fails(one):
                flow, smaller = one, True
                break
    return flow


def _smaller(flow: Flow) -> Iterator[Flow]:
    """Flows that lack one thing, the largest things first."""
    for number in reversed(range(len(flow.packets) if len(flow.packets) > 1 else 0)):
        yield replace(flow, packets=flow.packets[:number] + flow.packets[number + 1 :])
    tables = flow.ruleset.tables
    for at, table in enumerate(tables):
        yield replace(flow, ruleset=Ruleset(tables[:at] + tables[at + 1 :]))
        for place, chain in enumerate(table.chains):
            for number in range(len(chain.rules)):
                rules = chain.rules[:number] + chain.rules[number + 1 :]
                chains = (*table.chains[:place], replace(chain, rules=rules), *table.chains[place + 1 :])
                changed = replace(table, chains=chains)
                yield replace(flow, ruleset=Ruleset((*tables[:at], changed, *tables[at + 1 :])))


def keep(flow: Flow, folder: Path) -> None:
    """Write ``truth.nft`` and ``truth.yaml`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.nft").write_text(flow.ruleset.text)
    (folder / "truth.yaml").write_text(scenario(flow))


def scenario(flow: Flow) -> str:
    """A scenario with the packets of ``flow`` in their order, and the verdicts that the reference expects."""
    router = flow.evaluator()
    lines = [
        f"lab: {json.dumps(BRIDGE) if flow.lab == 'bridge' else flow.lab}",
        "ruleset: truth.nft",
        "scenarios:",
        f"  - name: generated, loaded as {flow.loaded}",
        "    steps:",
    ]
    for packet in flow.packets:
        expected = router.receive(packet) if packet.iif else router.send(packet)
        lines.append(f"      - send: {_send(packet)}")
        lines.append(f"        expect: {{verdict: {_verdict(expected)}}}  # {_rules(expected)}")
    return "\n".join(lines) + "\n"


def _send(packet: Packet) -> str:
    ends = f"from: {SENDER[packet.iif]}, to: '{packet.dst}'"
    if packet.iif:
        source, destination = (one.to_bytes(6, "big").hex(":") for one in (packet.smac, packet.dmac))
        ends += f", ether: {{src: '{source}', dst: '{destination}'}}"
    if packet.arp:
        operation = "request" if packet.arp == REQUEST else "reply"
        return f"{{{ends}, arp: {{op: {operation}, src: {packet.src}, dst: {packet.dst}}}}}"
    if packet.version == 6:
        ip = f"ip6: {{src: '{packet.src}', hlim: {packet.ttl}, tc: {packet.dscp << 2}}}"
    else:
        ip = f"ip: {{src: {packet.src}, ttl: {packet.ttl}, tos: {packet.dscp << 2}}}"
    if packet.proto == TCP:
        flags = "".join(name for bit, name in enumerate(FLAGS) if packet.flags >> bit & 1)
        inner = f"tcp: {{sport: {packet.sport}, dport: {packet.dport}, flags: {flags}}}"
    elif packet.proto == UDP:
        inner = f"udp: {{sport: {packet.sport}, dport: {packet.dport}}}"
    else:
        inner = f"{'icmp' if packet.proto == ICMP else 'icmpv6'}: {{type: {packet.type}, id: {packet.id}}}"
    payload = f", payload: {{hex: '{'00' * packet.payload}'}}" if packet.payload else ""
    return f"{{{ends}, {ip}, {inner}{payload}}}"


def _verdict(seen: reference.Seen) -> str:
    if seen.arrived:
        return "accept"
    return "reject" if seen.answer else "drop"


def _rules(seen: reference.Seen) -> str:
    return "; ".join(
        f"{one.chain} {'policy' if one.rule is None else f'rule {one.rule}'} {one.verdict}" for one in seen.steps
    )
