"""The rules and policies of a ruleset, each of which is to get a scenario."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NamedTuple

from harness.generate import names
from harness.generate.constraints import ADDRESSES, implied
from harness.generate.device import SimulatedDevice, is_joined
from harness.generate.expressions import choices, element, field, unpacked
from harness.generate.facts import Facts
from harness.generate.finality import decides, passes
from harness.generate.packets import REPEATED_AT_MOST
from harness.generate.simulate import (
    ChainKey,
    SimulatedChain,
    SimulatedRule,
    SimulatedRuleset,
    excess,
)
from harness.model.observation import Place, Rule
from harness.recording import naming
from harness.ruleset.listing import ANONYMOUS
from harness.topology.parts import LOOPBACK

LONGEST = 150
"""Characters of a scenario's name."""
NOTHING_FOUND = "no packet was found: its matches exclude one another, or packets cannot be made for one of them"


def joined(titles: Sequence[str]) -> str:
    """One title for scenarios that are one."""
    text = "; ".join(titles)
    return text if len(text) <= LONGEST else f"{titles[0]}; and {len(titles) - 1} more"


class Target(NamedTuple):
    """A rule or a policy."""

    key: Place
    name: str
    """As scenarios name it."""
    title: str
    """Of its scenario; no other has it."""
    place: str
    """``edge.nft:18``; "" when it is not known."""

    @property
    def located(self) -> str:
        """Its place and name, once where the name is the place."""
        if self.place.rpartition("/")[2] == self.name:
            return self.place
        return f"{self.place or 'not in a file'}: {self.name}"


def targets(facts: Facts) -> Iterator[Target]:
    """Every rule, and behind those of a base chain its policy, in the order of nft's listing."""
    taken: set[str] = set()

    def title(words: str) -> str:
        words = words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
        found = next(one for n in itertools.count(1) if (one := f"{words} ({n})" if n > 1 else words) not in taken)
        taken.add(found)
        return found

    def of_rule(rule: Rule, short: str) -> Target:
        name = str(naming.name_of_rule(rule, facts.rules))
        place = f"{rule.position.file}:{rule.position.line}" if rule.position else ""
        words = rule.comment or rule.written or rule.text
        return Target(rule.place, name, title(" ".join(f"{short}: {words}".split())), place)

    chains = [chain.name for chain in facts.chains]
    held = _held(facts)
    for chain in facts.chains:
        here_is = chain.family, chain.table, chain.name
        here = " ".join(here_is)
        short = chain.name if chains.count(chain.name) == 1 else here
        yield from (of_rule(rule, short) for rule in held[here_is])
        if chain.is_base:
            place = f"{chain.position.file}:{chain.position.line}" if chain.position else ""
            yield Target((*here_is, 0), f"{here} policy", title(f"{short}: policy {chain.policy}"), place)


def _held(facts: Facts) -> dict[ChainKey, list[Rule]]:
    """The rules of each chain that has a name; those in a block stand behind the rule that holds it."""
    found: dict[ChainKey, list[Rule]] = defaultdict(list)
    holder = ("", "", "")
    for rule in facts.rules:
        if not ANONYMOUS.match(rule.chain):
            holder = rule.family, rule.table, rule.chain
        found[holder].append(rule)
    return found


def why_none(device: SimulatedDevice, key: Place, before: Sequence[str] = ()) -> str:
    """Why no packet was made for a rule or policy; ``before`` names those that decided about all that were tried."""
    ruleset = device.ruleset
    chain = ruleset.chains.get(key[:3])
    if chain is None:
        return "nft does not list the rules of its block"
    if not ruleset.is_reached(chain):
        return f"no rule leads into chain {chain.name}"
    rule = next((one for one in chain.rules if one.key == key), None)
    if rule and (empty := next(ruleset.empty(rule), "")):
        return f"set {empty} has no elements when the ruleset is loaded"
    if rule and max((excess(word, what) for word, what in rule.statements), default=0) > REPEATED_AT_MOST:
        return "it matches only after more packets, or at a higher rate, than a scenario can be relied on to send"
    if chain.hook in ("output", "postrouting", "egress") and chain.family in ("arp", "bridge"):
        return f"a lab sends nothing through the {chain.hook} hook of family {chain.family}"
    if chain.hook and chain.devices and not {LOOPBACK, *device.facing} & set(chain.devices):
        return f"the lab has no interface {' or '.join(chain.devices)}"
    if refused := _refused(device, chain, rule):
        return refused
    if _is_shadowed(ruleset, chain, key):
        return "an earlier rule decides every packet"
    if before:
        return f"every packet tried for it is decided earlier, by {' or by '.join(before[:2])}"
    return NOTHING_FOUND


def why_never(device: SimulatedDevice, key: Place) -> str:
    """Why no packet that ``init`` could send meets a rule or policy, whichever were tried; "" where that is open."""
    chain = device.ruleset.chains.get(key[:3])
    return _refused(device, chain, next((one for one in chain.rules if one.key == key), None)) if chain else ""


def _refused(device: SimulatedDevice, chain: SimulatedChain, rule: SimulatedRule | None) -> str:
    """Why the kernel lets no packet come to ``rule``, or to a policy; "" where nothing is known of that."""
    ruleset = device.ruleset
    if chain.kind == "nat" and not ruleset.is_tracked(chain.family):
        return "no rule needs connection tracking, and without it chains of type nat see no packet"
    if chain.kind == "nat" and (first := _other_nat(device, chain)):
        return f"the nat chains of family {first} were registered first, and only those see a new connection"
    if rule is None:
        return ""
    for word, what in rule.statements:
        if word == "tproxy":
            return "tproxy matches only where a program listens, and init starts none"
        if word == "match" and what["op"] in ("==", "in"):
            members = ruleset.members(rule, what["right"])
            if refused := _of_state(ruleset, what["left"], members) or _of_addresses(chain, what["left"], members):
                return refused
    return _of_announced(ruleset, rule)


def _of_announced(ruleset: SimulatedRuleset, rule: SimulatedRule) -> str:
    """Why no packet is related to a connection by a helper; "" for a rule that an ICMP error may meet as well."""
    matches = [what for word, what in rule.statements if word == "match"]
    asked = {implied(what["left"]).get("proto") for what in matches}
    related = False
    for left, members in ((what["left"], ruleset.members(rule, what["right"])) for what in matches):
        related |= field(left) == "state" and {str(one) for one in members} == {"related"}
        asked |= {names.protocol(one) for one in members if isinstance(one, str)} if field(left) == "proto" else set()
    if related and asked & names.WITH_PORTS:
        return "it needs a connection that a helper has announced: write steps with listen: and connect:"
    return ""


def _of_state(ruleset: SimulatedRuleset, left: Any, members: Sequence[Any]) -> str:
    """Why no packet has a mark or a status of ``members``; "" where nothing is known of that."""
    name, kind = field(left), unpacked(left)[0]
    if name == "mark" and kind in ("meta", "ct") and 0 not in members and not _sets(ruleset, kind):
        return "no rule sets a mark, and packets are sent without" if kind == "meta" else "no rule sets such a mark"
    if name in ("iifgroup", "oifgroup") and not {"0", "default"} & {str(one) for one in members}:
        return "interfaces of a lab are in no group but the default one"
    if name == "status" and choices("dnat", members) and not _translates(ruleset):
        return "no rule performs destination NAT"
    return _of_programs(kind, name, members)


def _of_programs(kind: str, name: str, members: Sequence[Any]) -> str:
    """Why no packet that is sent by itself has what only programs and their connections bring; "" for all else."""
    if kind == "socket":
        return "it needs a socket: write steps with listen:, connect: or exchange:, and their mark: or cgroup:"
    if kind == "meta" and name in ("skuid", "skgid") and not {"0", "root"} & {str(one) for one in members}:
        return "what a lab's hosts send is sent by root"
    if kind != "ct":
        return ""
    if name == "helper":
        return "it needs a connection that this helper has announced: write steps with listen: and connect:"
    return ""


def _of_addresses(chain: SimulatedChain, left: Any, members: Sequence[Any]) -> str:
    """Why no packet with an address of ``members`` comes to the hook of ``chain``; "" where that is not known."""
    name = field(left)
    networks = [network for member in members if (network := _network(member)) is not None]
    if chain.hook not in ("input", "forward") or name not in ADDRESSES or len(networks) < len(members):
        return ""
    if networks and all(one.is_link_local for one in networks) and networks[0].version == 6:
        return "the device of a lab has no link-local address, and forwards none"
    if networks and all(one.is_loopback for one in networks):
        return f"the kernel drops packets from other hosts with the address {networks[0]} before this hook"
    if name == "daddr" and all(one.is_multicast and not is_joined(one.network_address) for one in networks):
        return f"no program of the lab has joined the group {_shown(networks[0])}, so the device does not receive it"
    return ""


def _other_nat(device: SimulatedDevice, chain: SimulatedChain) -> str:
    """The family that sees all connections before ``chain`` does."""
    families = {"inet": ("ip", "ip6")}.get(chain.family, (chain.family,))
    first = {device.first_with_nat(family) for family in families}
    return "" if chain.family in first else " and ".join(sorted(first))


def _sets(ruleset: SimulatedRuleset, kind: str) -> bool:
    """Whether a rule sets a mark: that of a packet (``meta``), or of a connection (``ct``)."""
    mangled = [
        what.get("key")
        for chain in ruleset.chains.values()
        for rule in chain.rules
        for word, what in rule.statements
        if word == "mangle" and isinstance(what, dict)
    ]
    return {kind: {"key": "mark"}} in mangled


def _translates(ruleset: SimulatedRuleset) -> bool:
    rules = (rule for chain in ruleset.chains.values() for rule in chain.rules)
    return any(word in ("dnat", "redirect") for rule in rules for word, _ in rule.statements)


def _network(member: Any) -> IPv4Network | IPv6Network | None:
    """The address or network that ``member`` of a set is; None where it is something else."""
    kind, what = unpacked(element(member))
    try:
        return ip_network(f"{what['addr']}/{what['len']}" if kind == "prefix" else str(what), strict=False)
    except ValueError:
        return None


def _shown(network: IPv4Network | IPv6Network) -> str:
    return str(network if network.num_addresses > 1 else network.network_address)


def _is_shadowed(ruleset: SimulatedRuleset, chain: SimulatedChain, key: Place) -> bool:
    """Whether a rule of the chain before the one of ``key``, or before the policy, decides about every packet."""
    for rule in itertools.takewhile(lambda one: one.key != key, chain.rules):
        # Behind a goto only the policy is left, unless the chain that it leads to decides.
        if decides(ruleset, rule) or (key[3] and passes(rule, ("goto", "return"))):
            return True
    return False
