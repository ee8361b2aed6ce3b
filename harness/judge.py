"""Expectation against observation: what the ruleset decided, and where that differs.

Pure: values in, values out. :func:`outcome` says what the ruleset did with one packet,
:func:`judge` compares that, the packet's way and its arrival with one ``expect``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address

from harness import drops
from harness.errors import BrokenMeasurement, Position, Unsupported
from harness.observation import Delivery, Hop, Loss, Observation, PacketSeen, Rule, Step, Value, Verdict
from harness.scenario import icmp
from harness.scenario.models import Delivered, Expect, HopDetail, PathEntry, Sees
from harness.scenario.packet import fields
from harness.scenario.problem import Problem, did_you_mean

Keys = tuple[str | int, ...]
"""The way to a value of a scenario, seen from the scenario or step: ``("expect", "path", 2)``."""

At = Callable[[Keys], Position]
"""Where a value stands in the YAML file."""

_FINAL = frozenset({Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT, Verdict.QUEUE, Verdict.STOLEN})
_REFUSED = frozenset({Verdict.DROP, Verdict.REJECT})

# What a host runs after its input hook, so only on packets that it takes for itself.
_TAKEN_IN = frozenset(
    {
        "ip_local_deliver_finish",
        "ip_protocol_deliver_rcu",
        "ip6_input_finish",
        "ip6_protocol_deliver_rcu",
        "arp_process",
    }
)


class Outcome(Value, frozen=True, kw_only=True):
    """What the ruleset of the device decided about one packet."""

    verdict: Verdict | None = None
    """None when no base chain saw the packet."""
    with_: str = ""
    """For a reject: with what, in nft(8)'s words and for this packet's protocol, e.g.
    ``icmp port-unreachable`` (never icmpx, where the packet's family is known)."""
    decided: tuple[Step, ...] = ()
    """The step, rule or policy, that ended each evaluation of a base chain, in order. The last
    one decided a drop or reject; for an accept each had its part."""

    def __str__(self) -> str:
        if self.verdict is None:
            return "undecided"
        return f"{self.verdict} with {self.with_}" if self.with_ else str(self.verdict)

    @property
    def deciding(self) -> tuple[Step, ...]:
        """The steps that an expected ``rule`` may mean: all for an accept, else the last."""
        return self.decided if self.verdict is Verdict.ACCEPT else self.decided[-1:]


class Mismatch(Value, frozen=True, kw_only=True):
    """One thing that was expected and did not happen."""

    keys: Keys
    position: Position
    expected: str
    seen: str
    note: str = ""
    """What explains it, or what to write instead; "" when there is nothing to add."""

    @property
    def key(self) -> str:
        """The keys as one word: ``expect.path[2]``."""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).lstrip(".")


class PathRow(Value, frozen=True, kw_only=True):
    """One line of an expected path laid beside the path seen."""

    expected: str = ""
    """The expected function; "" for a hop that nobody asked for."""
    hop: Hop | None = None
    """The hop seen there; None where nothing stands beside the expected function."""
    met: bool = True
    """Whether ``expected``, if any, is this hop."""


def judge(expect: Expect, observation: Observation, packet: PacketSeen, *, at: At) -> tuple[Mismatch, ...]:
    """Return everything in which ``packet`` differs from ``expect``; nothing when it passed.

    ``path``, ``layers`` and ``never`` look at the hops on the device under test; an entry of
    ``path`` or ``never`` that names a ``host`` looks there instead.

    Raises :class:`~harness.errors.BrokenMeasurement` when events were lost or two oracles disagree,
    :class:`~harness.errors.ScenarioError` for a function that this kernel cannot trace, and
    :class:`~harness.errors.Unsupported` when functions are expected and none were traced.
    """
    refuse_loss(observation.loss)
    _require_traced(expect, observation, at)
    seen = outcome(packet, observation.device)
    device = observation.device
    return tuple(
        Mismatch(keys=keys, position=at(keys), expected=expected, seen=found, note=note)
        for keys, expected, found, note in (
            *_verdict(expect, seen, packet, device),
            *_with(expect, seen),
            *_rule(expect, seen, packet, device),
            *_delivered(expect, seen, packet, device),
            *_layers(expect, packet, device),
            *_path(expect, packet, device),
            *_never(expect, packet, device),
        )
    )


def refuse_loss(loss: Loss) -> None:
    """Raise :class:`~harness.errors.BrokenMeasurement` if anything was lost: then no verdict can be trusted."""
    if loss.total:
        raise BrokenMeasurement(f"lost {describe_loss(loss)}: nothing can be said about the ruleset")


# --- the ruleset's decision ---------------------------------------------------------------------


def outcome(packet: PacketSeen, device: str) -> Outcome:
    """Return what the ruleset on the host ``device`` decided about ``packet``.

    A packet that the kernel itself gave up (reverse path filter, no route, TTL, checksum) is not
    the ruleset's drop: the verdict is then that of the chains that saw it, or None.

    Raises :class:`~harness.errors.BrokenMeasurement` when nothing at all was seen of the packet, or when its nf_tables
    trace, its functions and its arrivals tell different stories.
    """
    if not (packet.hops or packet.steps or packet.deliveries):
        raise BrokenMeasurement(
            f"packet {packet.number} from {packet.sender} was seen by no function, no nf_tables trace and no host",
            remedy="check that its interface is up and part of the lab",
        )
    evaluations = _evaluations(step for step in packet.steps if step.host == device)
    _compare_with_functions(evaluations, packet, device)
    decided = tuple(steps[-1] for steps in evaluations)
    if not decided:
        return Outcome()
    last = decided[-1]
    if last.verdict not in _REFUSED:
        return Outcome(verdict=last.verdict, decided=decided)
    _compare_with_arrivals(last, packet, device)
    answer = _rejected_with(last, packet, device)
    return Outcome(verdict=Verdict.REJECT if answer else Verdict.DROP, with_=answer, decided=decided)


def _evaluations(steps: Iterator[Step]) -> list[list[Step]]:
    """Cut a packet's steps into runs of base chains: each ends with the step that said the last word."""
    runs: list[list[Step]] = [[]]
    for step in steps:
        runs[-1].append(step)
        if step.verdict in _FINAL:
            runs.append([])
    if unfinished := runs.pop():
        raise BrokenMeasurement(
            f"the nf_tables trace breaks off in chain {unfinished[-1].chain_path}: no rule and no policy ended it"
        )
    return runs


def _compare_with_functions(evaluations: list[list[Step]], packet: PacketSeen, device: str) -> None:
    """Check the trace against the answers of ``nft_do_chain``, where those were traced.

    The first step of an evaluation is always the base chain's: a packet gets into another chain
    only by a jump, and that is a step. Reject is DROP to the hook (net/ipv4/netfilter/nft_reject_ipv4.c).
    """
    ran: dict[str, list[str]] = {}
    for hop in hops_on(packet, device):
        if hop.function == "nft_do_chain" and (chain := hop.detail.get("chain")):
            ran.setdefault(chain, []).append(hop.detail.get("verdict", ""))
    if not ran:
        return
    told: dict[str, list[str]] = {}
    for steps in evaluations:
        verdict = Verdict.DROP if steps[-1].verdict in _REFUSED else steps[-1].verdict
        told.setdefault(steps[0].chain_path, []).append(str(verdict))
    for chain in {**ran, **told}:
        functions, trace = ran.get(chain, []), told.get(chain, [])
        if len(functions) != len(trace):
            raise BrokenMeasurement(
                f"nft_do_chain ran {_times(len(functions))} for chain {chain}, "
                f"but the nf_tables trace tells of {_times(len(trace))}"
            )
        for answer, said in zip(functions, trace, strict=True):
            if answer and answer != said:
                raise BrokenMeasurement(
                    f"nft_do_chain answered {answer} for chain {chain}, but the nf_tables trace says {said}"
                )


def _compare_with_arrivals(last: Step, packet: PacketSeen, device: str) -> None:
    for delivery in packet.deliveries:
        if delivery.host not in (device, packet.sender):
            raise BrokenMeasurement(
                f"the nf_tables trace says that {describe_step(last)} dropped the packet, "
                f"but it arrived at {delivery.host} {delivery.device}"
            )


# The statement stands at the end of its rule; `jump reject` names a chain.
_REJECT = re.compile(r"(?<!\S)(?<!jump )(?<!goto )reject(?: with (?P<answer>[\w -]+?))?\s*$")
# net/ipv4/netfilter/nf_reject_ipv4.c, net/ipv6/netfilter/nf_reject_ipv6.c; the nf_reject_skb ones
# serve the netdev and bridge families.
_REJECTING = {
    "nf_send_reset": "tcp reset",
    "nf_send_reset6": "tcp reset",
    "nf_reject_skb_v4_tcp_reset": "tcp reset",
    "nf_reject_skb_v6_tcp_reset": "tcp reset",
    "nf_send_unreach": "icmp",
    "nf_send_unreach6": "icmpv6",
    "nf_reject_skb_v4_unreach": "icmp",
    "nf_reject_skb_v6_unreach": "icmpv6",
}


def _rejected_with(last: Step, packet: PacketSeen, device: str) -> str:
    """Return the answer that the deciding step sends, "" if it drops in silence.

    The rule's text knows best; the functions help out for rules without a native text, such as
    iptables' REJECT, and then the code of an ICMP answer is not known.
    """
    if last.rule and (found := _REJECT.search(_bare(last.rule.text))):
        return _concrete(found["answer"] or "", last.family, fields(packet.frame).get("family"))
    for hop in hops_on(packet, device):
        if hop.function in _REJECTING:
            return _REJECTING[hop.function]
    return ""


def _concrete(answer: str, family: str, version: str | int | None) -> str:
    """Return an answer of a reject statement in full: nft leaves the default out, and icmpx is either ICMP."""
    default = {"ip": "icmp", "ip6": "icmpv6"}.get(family, "icmpx")
    kind, _, code = (answer or f"{default} port-unreachable").replace(" type ", " ").partition(" ")
    if kind == "icmpx" and code in icmp.CODES_X and version in (4, 6):
        kind, code = ("icmp", icmp.CODES_X[code][0]) if version == 4 else ("icmpv6", icmp.CODES_X[code][1])
    return f"{kind} {code}"


# --- one function per expectation; each yields (keys, expected, seen, note) ---------------------

_Found = Iterator[tuple[Keys, str, str, str]]


def _verdict(expect: Expect, seen: Outcome, packet: PacketSeen, device: str) -> _Found:
    if expect.verdict is None:
        return
    keys: Keys = ("expect", "verdict")
    if seen.verdict != expect.verdict:
        note = ""
        if seen.verdict is None:
            note = f"no base chain of the ruleset saw it; {ended(packet, seen, device)}"
        elif expect.verdict in _REFUSED and packet.drop and seen.verdict is Verdict.ACCEPT:
            note = f"not by the ruleset: {ended(packet, seen, device)}"
        elif (expect.verdict, seen.verdict) == ("drop", Verdict.REJECT):
            note = "the sender got an answer; a drop is silent"
        elif (expect.verdict, seen.verdict) == ("reject", Verdict.DROP):
            note = "dropped in silence: the sender got no answer"
        yield keys, expect.verdict, str(seen), note
    elif seen.verdict is Verdict.ACCEPT and expect.delivered is None and not arrivals(packet, seen, device):
        yield (
            keys,
            "accept, and the packet arrives",
            "accept, but it arrived nowhere",
            f"{ended(packet, seen, device)}; say `delivered: nowhere` if that is meant",
        )


def _with(expect: Expect, seen: Outcome) -> _Found:
    if expect.with_ is None or (expect.verdict and seen.verdict is not Verdict.REJECT):
        return
    kind, _, code = " ".join(expect.with_.split()).replace(" type ", " ").partition(" ")
    answers = {f"{kind} {code}".strip()}
    if kind == "icmpx" and code in icmp.CODES_X:
        answers |= {f"icmp {icmp.CODES_X[code][0]}", f"icmpv6 {icmp.CODES_X[code][1]}"}
    if seen.with_ not in answers:
        yield ("expect", "with"), expect.with_, seen.with_ or f"{seen}, without an answer", ""


def _rule(expect: Expect, seen: Outcome, packet: PacketSeen, device: str) -> _Found:
    if expect.rule is None or any(_is_rule(expect.rule, step) for step in seen.deciding):
        return
    note = ""
    for step in packet.steps:
        if step.host == device and _is_rule(expect.rule, step):
            said = f"{step.verdict} {step.target}".strip()
            note = f"it was met, but did not decide: it said {said}"
    decided = "; ".join(describe_step(step) for step in seen.deciding)
    yield ("expect", "rule"), str(expect.rule), decided or "no rule and no policy: no base chain saw it", note


def _delivered(expect: Expect, seen: Outcome, packet: PacketSeen, device: str) -> _Found:
    if expect.delivered is None:
        return
    wanted = expect.delivered if isinstance(expect.delivered, Delivered) else Delivered(to=expect.delivered)
    keys: Keys = ("expect", "delivered")
    if wanted is expect.delivered:
        keys = (*keys, "to")
    arrived = arrivals(packet, seen, device)
    if wanted.to == "nowhere":
        if arrived:
            yield keys, "nowhere", ", ".join(arrived), ""
        return
    if wanted.to not in arrived:
        yield keys, wanted.to, ", ".join(arrived) or "nowhere", ended(packet, seen, device)
    elif wanted.sees:
        yield from _sees(wanted.sees, [delivery for delivery in packet.deliveries if delivery.host == wanted.to])


def _sees(sees: Sees, deliveries: Sequence[Delivery]) -> _Found:
    """Compare with the frame that fits best: a copy that fits in all is enough."""
    wanted = {name: value for name in sees.__struct_fields__ if (value := getattr(sees, name)) is not None}
    differing: Mapping[str, str | int] | None = None
    for delivery in deliveries:
        found = fields(delivery.frame)
        differs = {name: found.get(name, "nothing") for name in wanted if not _same(wanted[name], found.get(name))}
        if differing is None or len(differs) < len(differing):
            differing = differs
    if differing is None:
        differing = dict.fromkeys(wanted, "not captured")
    for name, value in differing.items():
        yield ("expect", "delivered", "sees", name), str(wanted[name]), str(value), ""


def _same(wanted: str | int, found: str | int | None) -> bool:
    """Compare a field; addresses may be written in several ways (2001:db8::1, 2001:DB8:0::1)."""
    if wanted == found or not isinstance(wanted, str) or not isinstance(found, str):
        return wanted == found
    try:
        return ip_address(wanted) == ip_address(found)
    except ValueError:
        return False


def _layers(expect: Expect, packet: PacketSeen, device: str) -> _Found:
    if expect.layers is None:
        return
    seen = layers_of(hops_on(packet, device))
    rest = iter(seen)
    for index, layer in enumerate(expect.layers):
        if layer not in rest:  # consumes up to and including the layer
            before = f" after {expect.layers[index - 1]}" if index else ""
            note = f"not passed{before}" if layer in seen else "not passed at all"
            yield ("expect", "layers", index), layer, " ".join(seen) or "no layer at all", note
            return


def _path(expect: Expect, packet: PacketSeen, device: str) -> _Found:
    path = expect.path or ()
    met = ""
    for index, (entry, hit) in enumerate(zip(path, _walk(path, packet, device), strict=True)):
        if hit is None:
            place = f"after {met}" if met else f"on {_entry(entry)[1].host or device}"
            yield ("expect", "path", index), describe_entry(entry), f"not met {place}", _near(entry, packet, device)
            return
        met = describe_hop(hit[1])


def _never(expect: Expect, packet: PacketSeen, device: str) -> _Found:
    for index, entry in enumerate(expect.never or ()):
        hops = located(packet)
        for number, hop in enumerate(hops):
            if _meets(entry, hop, device):
                before = f", after {describe_hop(hops[number - 1])}" if number else ""
                place = f"met on {hop.host}{before}"
                yield ("expect", "never", index), f"never {describe_entry(entry)}", f"{describe_hop(hop)} {place}", ""
                break


# --- the packet's way ---------------------------------------------------------------------------


def located(packet: PacketSeen) -> tuple[Hop, ...]:
    """Return the hops, each with a host.

    A packet without a device yet (made by a socket) or between two has no host of its own: it is
    where it was last, at first with its sender.
    """
    host = packet.sender
    hops = []
    for hop in packet.hops:
        host = hop.host or host
        hops.append(hop if hop.host else _at_host(hop, host))
    return tuple(hops)


def hops_on(packet: PacketSeen, host: str) -> tuple[Hop, ...]:
    """Return the hops of ``packet`` on ``host``."""
    return tuple(hop for hop in located(packet) if hop.host == host)


def layers_of(hops: Sequence[Hop]) -> tuple[str, ...]:
    """Return the layers of ``hops`` in order, each run of one layer once."""
    return tuple(
        hop.layer for before, hop in zip((None, *hops), hops, strict=False) if not before or before.layer != hop.layer
    )


def arrivals(packet: PacketSeen, seen: Outcome, device: str) -> tuple[str, ...]:
    """Return the hosts where ``packet`` arrived, in order.

    The device counts only when it took the packet for itself, behind its input hook: what it
    forwards or drops has passed its interfaces as well.
    """
    hosts = dict.fromkeys(delivery.host for delivery in packet.deliveries if delivery.host != device)
    if _taken_in(packet, seen, device):
        hosts[device] = None
    return tuple(hosts)


def align(path: Sequence[PathEntry], packet: PacketSeen, device: str) -> tuple[PathRow, ...]:
    """Lay the expected path beside the hops seen on the hosts it speaks of.

    An expected function that was not met stands beside the hop that came in its place, if that
    one was not asked for.
    """
    hosts = {_entry(entry)[1].host or device for entry in path}
    hops = located(packet)
    found = _walk(path, packet, device)
    wanted = {hit[0]: entry for entry, hit in zip(path, found, strict=True) if hit}
    missing: dict[int, list[PathEntry]] = {}  # by the number of the hop that came in their place
    place = 0
    for entry, hit in zip(path, found, strict=True):
        if hit:
            place = hit[0] + 1
        else:
            missing.setdefault(place, []).append(entry)
    rows: list[PathRow] = []
    pending: list[PathEntry] = []
    for number, hop in enumerate(hops):
        pending += missing.get(number, [])
        if hop.host not in hosts:
            continue
        if number in wanted:
            rows += [PathRow(expected=describe_entry(entry), met=False) for entry in pending]
            rows.append(PathRow(expected=describe_entry(wanted[number]), hop=hop))
            pending = []
        elif pending:
            rows.append(PathRow(expected=describe_entry(pending.pop(0)), hop=hop, met=False))
        else:
            rows.append(PathRow(hop=hop))
    pending += missing.get(len(hops), [])
    return (*rows, *(PathRow(expected=describe_entry(entry), met=False) for entry in pending))


def _at_host(hop: Hop, host: str) -> Hop:
    return Hop(
        time=hop.time,
        cpu=hop.cpu,
        host=host,
        device=hop.device,
        function=hop.function,
        layer=hop.layer,
        detail=hop.detail,
    )


def _taken_in(packet: PacketSeen, seen: Outcome, device: str) -> bool:
    if seen.verdict in _REFUSED:
        return False
    if seen.decided and seen.decided[-1].hook == "input":
        return seen.verdict is Verdict.ACCEPT
    return any(hop.function in _TAKEN_IN for hop in hops_on(packet, device))


def _entry(entry: PathEntry) -> tuple[tuple[str, ...], HopDetail]:
    """Return the alternatives of a path entry, and what they must have met."""
    names, detail = (entry, HopDetail()) if isinstance(entry, str) else next(iter(entry.items()))
    return tuple(name.strip() for name in names.split("|")), detail


def _meets(entry: PathEntry, hop: Hop, device: str) -> bool:
    names, detail = _entry(entry)
    return hop.function in names and hop.host == (detail.host or device) and not _differing(detail, hop)


def _differing(detail: HopDetail, hop: Hop) -> dict[str, str]:
    """Return what ``hop`` met instead, by key, of all that ``detail`` asks for."""
    seen = {"device": hop.device, **hop.detail}
    wanted = {
        "device": detail.device,
        "chain": detail.chain and " ".join(detail.chain.split()),
        "hook": detail.hook,
        "verdict": detail.verdict,
        "reason": detail.reason and detail.reason.removeprefix("SKB_DROP_REASON_"),
    }
    return {key: seen.get(key, "") for key, value in wanted.items() if value is not None and seen.get(key) != value}


def _walk(path: Sequence[PathEntry], packet: PacketSeen, device: str) -> list[tuple[int, Hop] | None]:
    """Return for each expected entry the first hop, with its number, behind the one before; None where there is none.

    After an entry that was not met the search goes on from the same place, for the report.
    """
    hops = located(packet)
    found: list[tuple[int, Hop] | None] = []
    place = 0
    for entry in path:
        hit = next((n for n in range(place, len(hops)) if _meets(entry, hops[n], device)), None)
        found.append(None if hit is None else (hit, hops[hit]))
        place = place if hit is None else hit + 1
    return found


def _near(entry: PathEntry, packet: PacketSeen, device: str) -> str:
    """Say what comes nearest to an entry that was not met in its place."""
    names, detail = _entry(entry)
    hops = [hop for hop in located(packet) if hop.function in names]
    if not hops:
        return "the packet never met it"
    here = [hop for hop in hops if hop.host == (detail.host or device)]
    if not here:
        return f"met on {', '.join(dict.fromkeys(hop.host for hop in hops))} only; `host:` names another host"
    if any(_meets(entry, hop, device) for hop in here):
        return "met earlier: the order differs"
    others = dict.fromkeys(
        ", ".join(f"{key} {value or 'unknown'}" for key, value in _differing(detail, hop).items()) for hop in here
    )
    return f"met with {'; with '.join(others)}"


def _require_traced(expect: Expect, observation: Observation, at: At) -> None:
    """Refuse functions that this kernel cannot trace: to call them "not met" would be a guess."""
    if not (expect.path or expect.never or expect.layers):
        return
    if not observation.traced:
        raise Unsupported(
            f"{at(('expect',))}: path, layers and never need function tracing, "
            f"and kernel {observation.kernel} was run without",
            remedy="run with --nft-kernel auto",
        )
    for key, path in (("path", expect.path), ("never", expect.never)):
        for index, entry in enumerate(path or ()):
            names, _ = _entry(entry)
            if observation.traced.isdisjoint(names):
                raise Problem(
                    f"kernel {observation.kernel} can't trace {' or '.join(names)}: inlined or absent",
                    *("expect", key, index),
                    remedy=did_you_mean(names[0], observation.traced, "give an alternative that it can, as in 'a | b'"),
                ).at(at(("expect", key, index)))


# --- the ruleset's words ------------------------------------------------------------------------


def _is_rule(wanted: str | int, step: Step) -> bool:
    """Whether ``step`` is the rule or policy meant: by handle, chain policy, file:line, comment or text."""
    if isinstance(wanted, int):
        return step.rule is not None and step.rule.handle == wanted
    wanted = " ".join(wanted.split())
    if step.kind == "policy":
        return wanted in ("policy", f"{step.chain_path} policy")
    return step.rule is not None and (
        wanted == step.rule.comment or _stands_at(wanted, step.rule.position) or same_rule(wanted, step.rule)
    )


def _stands_at(wanted: str, position: Position | None) -> bool:
    file, _, line = wanted.rpartition(":")
    if not (position and file and line == str(position.line)):
        return False
    return f"/{position.file}".endswith(f"/{file.removeprefix('./')}")


def same_rule(text: str, rule: Rule) -> bool:
    """Whether ``text`` is the text of ``rule``, however spaced and quoted, with or without counter and comment."""
    return _canonical(text) == _canonical(rule.text)


_IGNORED = re.compile(
    r"""\bcounter(?:\s+packets\s+\d+\s+bytes\s+\d+)?(?!\s+(?:name\b|"))(?=\s|$)"""
    r"""|\bcomment\s+"[^"]*" | \#\s*handle\s+\d+\s*$""",
    re.VERBOSE,
)


def _canonical(text: str) -> str:
    return re.sub(r"\s*([{},:;=<>!|&])\s*", r"\1", " ".join(_IGNORED.sub(" ", text).replace('"', " ").split()))


def _bare(text: str) -> str:
    """Return a rule's text without quoted strings: a comment or log prefix may contain any word."""
    return re.sub(r'\s*(?:\bcomment\s+)?"[^"]*"', "", text)


# --- in words -----------------------------------------------------------------------------------


def describe_step(step: Step) -> str:
    """Return one step in one line: chain, place, handle, text."""
    if step.kind == "policy":
        return f"{step.chain_path}, policy {step.verdict}"
    if step.rule is None:
        return f"{step.chain_path}, {step.verdict}"
    place = f", {step.rule.position.file}:{step.rule.position.line}" if step.rule.position else ""
    return f"{step.chain_path}{place} (handle {step.rule.handle}): {step.rule.text}"


def describe_hop(hop: Hop) -> str:
    """Return one hop in a few words: ``nft_do_chain inet filter forward → accept``."""
    words = [hop.function, hop.detail.get("chain") or hop.detail.get("hook", ""), hop.detail.get("reason", "")]
    if verdict := hop.detail.get("verdict"):
        words += ["→", verdict]
    return " ".join(word for word in words if word)


def describe_entry(entry: PathEntry) -> str:
    """Return an expected function in the words of :func:`describe_hop`."""
    names, detail = _entry(entry)
    words = [" | ".join(names), detail.chain, detail.hook, detail.reason]
    words += ["→", detail.verdict] if detail.verdict else []
    words += ["device", detail.device] if detail.device else []
    words += ["on", detail.host] if detail.host else []
    return " ".join(word for word in words if word)


def describe_loss(loss: Loss) -> str:
    """Return the loss line: ``0 of 212 events (refused 0, missed 0, trace 0)``."""
    parts = [f"refused {loss.refused}", f"missed {loss.missed}", f"trace {loss.trace}"]
    if loss.untracked:
        parts.append(f"not followed {loss.untracked}")
    if unaccounted := abs(loss.entered - loss.received - loss.refused):
        parts.append(f"unaccounted {unaccounted}")
    return f"{loss.total} of {loss.entered} events ({', '.join(parts)})"


def ended(packet: PacketSeen, seen: Outcome, device: str) -> str:
    """Return where and why the packet's way ended, as a part of a sentence."""
    if seen.verdict in _REFUSED:
        did = "dropped" if seen.verdict is Verdict.DROP else f"rejected with {seen.with_}"
        return f"{did} on {device} by {describe_step(seen.decided[-1])}"
    parts = [
        f"delivered to {host}" if host != device else f"taken in by {device}" for host in arrivals(packet, seen, device)
    ]
    if drop := packet.drop:
        words = drops.explain(drop.function, drop.reason).words
        parts.append(
            f"dropped by the kernel on {drop.host} in {drop.function}: {drop.reason}" + (f" ({words})" if words else "")
        )
    if parts:
        return ", then ".join(parts)
    if seen.verdict in (Verdict.QUEUE, Verdict.STOLEN):
        did = "handed to a queue" if seen.verdict is Verdict.QUEUE else "taken away"
        return f"{did} on {device} by {describe_step(seen.decided[-1])}"
    if hops := located(packet):
        return f"last seen on {hops[-1].host} in {describe_hop(hops[-1])}"
    return "seen nowhere after that"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
