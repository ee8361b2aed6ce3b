"""What the models cannot say: whether the values of a scenario fit together and fit the lab."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from ipaddress import ip_address

from msgspec import UNSET, structs

from harness.model.problem import NothingExpected, Problem, unknown
from harness.netfilter import FAMILY_NAMES, HOOK_NAMES
from harness.nft_syntax import is_change, is_name
from harness.packets import frames, icmp
from harness.packets.endpoints import TRANSPORTS, plan_endpoints
from harness.packets.spec import Payload, Sees, Send
from harness.scenario import flow
from harness.scenario.models.expect import (
    Delivered,
    Dropped,
    Ends,
    Exactly,
    Expect,
    FlowSeen,
    HopDetail,
    PathEntry,
    Tracked,
)
from harness.scenario.models.file import Action, Scenario
from harness.scenario.models.sockets import Exchange
from harness.topology.network import Network
from harness.topology.parts import LOOPBACK

MOST_CONTENT = 1200
"""Bytes of a request or an answer: one packet on every link."""

RECORD = "have pytest --nft-record write it"
LONGEST_S = 60
"""Seconds that a send may take."""

_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def check(scenario: Scenario, network: Network, layers: Collection[str] | None) -> Iterator[Problem]:
    """Everything wrong with ``scenario``; ``layers`` are the names known, None to let any pass."""
    if scenario.send is UNSET and scenario.steps is UNSET:
        yield Problem("sends nothing", remedy="add send: with a packet, or steps: with several")
    elif scenario.steps is UNSET:
        if scenario.expect is UNSET:
            yield NothingExpected("expects nothing", remedy=f"add expect:, or {RECORD}")
    else:
        for key in ("send", "expect"):
            if getattr(scenario, key) is not UNSET:
                yield Problem(f"a scenario with steps: has no {key}: of its own", key, remedy="make it a step")
        if all(step.expect is UNSET for step in scenario.steps):
            yield NothingExpected("no step expects anything", "steps", remedy=f"add expect: to one, or {RECORD}")
        for problem in _check_order(scenario.steps):
            yield problem.below("steps")
    for index, action in enumerate(actions(scenario)):
        for problem in _check_action(action, network, layers):
            yield problem if scenario.steps is UNSET else problem.below("steps", index)


def actions(scenario: Scenario) -> tuple[Action, ...]:
    """The packets of ``scenario`` in order, whichever way they are written."""
    if scenario.steps is not UNSET:
        return tuple(scenario.steps)
    return () if scenario.send is UNSET else (Action(send=scenario.send, expect=scenario.expect),)


def to_be_recorded(actions: Iterable[Action]) -> tuple[Action, ...]:
    """``actions`` with an empty ``expect`` at each packet whose expectation is to be written.

    Those are the packets with ``expect: {}``, and all packets of a scenario without any ``expect``.
    """
    actions = tuple(actions)
    if any(action.expect is not UNSET for action in actions):
        return actions
    return tuple(structs.replace(one, expect=Expect()) if sends(one) else one for one in actions)


_KINDS = ("send", "nft", "listen", "connect", "exchange", "wait")
"""What a step can do."""
SENDS = ("send", "connect", "exchange")
"""What of that sends packets, of which something can be expected."""

_Layers = Collection[str] | None


def sends(action: Action) -> bool:
    """Whether packets are sent in a step."""
    return any(getattr(action, key) is not UNSET for key in SENDS)


def check_step(action: Action, network: Network, layers: _Layers) -> Iterator[Problem]:
    """Everything wrong with one step by itself."""
    return _check_action(action, network, layers)


def _check_action(action: Action, network: Network, layers: _Layers) -> Iterator[Problem]:
    done = [key for key in _KINDS if getattr(action, key) is not UNSET]
    if not done:
        yield Problem("does nothing", remedy="add send: with a packet, connect: or exchange:, or what prepares them")
        return
    if len(done) > 1:
        yield Problem(
            f"a step has either {done[0]} or {done[1]}", done[1], remedy="make two steps of it", about_key=True
        )
        return
    (key,) = done
    if key not in SENDS and action.expect is not UNSET:
        remedy = "expect it of a packet in a later step"
        yield Problem("a step that sends nothing expects nothing", "expect", remedy=remedy, about_key=True)
        return
    family = None
    if action.send is not UNSET:
        family = yield from _check_send(action, action.send, network)
    else:
        for problem in _CHECKS[key](action, network):
            yield problem.below(key)
        if isinstance(action.expect, list):
            yield Problem("of a flow one packet is judged, not a list", "expect", remedy="make it one mapping")
            return
    for keys, expect in action.entries:
        problems = [*_check_expect(expect, network, layers)]
        if action.send is not UNSET:
            problems += _check_reject(expect, action.send, family)
        if getattr(action, key).from_ == network.device and expect.reply is not None:
            why = f"what comes back to {network.device}, the host under test, is not captured"
            remedy = "make it a step of its own, sent from the other host"
            problems.append(Problem(why, "reply", remedy=remedy, about_key=True))
        if expect.flow is not None and key == "send":
            remedy = "make the step a connect or an exchange"
            problems.append(Problem("only real sockets have a flow", "flow", remedy=remedy, about_key=True))
        if expect.packets is not None and key != "send":
            problems.append(Problem("of a flow one packet is judged", "packets", remedy="leave it out", about_key=True))
        for found in problems:
            yield found.below(*keys)


def _check_send(action: Action, send: Send, network: Network) -> Generator[Problem, None, int | None]:
    """What is wrong with a packet, its pace, and the numbers of those expected; its IP version if that is known."""
    family = None
    try:
        _check_form(send)
        if _is_short(send):
            family, count = plan_endpoints(send, network).family, send.count
        else:
            count = len(frames.build(send, network))
    except Problem as problem:
        yield problem.below("send")
        return None
    for found in _check_pace(send, count):
        yield found.below("send")
    for found in _check_numbers(action, count):
        yield found.below("expect")
    return family


HEADERS = ("ether", "arp", "ip", "ip6", *TRANSPORTS, "payload")
"""Keys of the short form."""


def _is_short(send: Send) -> bool:
    return send.packet is None and send.pcap is None


def _check_form(send: Send) -> None:
    """A packet is written in one form."""
    form = "pcap" if send.pcap is not None else "packet"
    others = () if _is_short(send) else ("packet", "to", *HEADERS) if form == "pcap" else HEADERS
    for key in others:
        if getattr(send, key):
            raise Problem(f"{form}: says it all, and {key}: beside it", key, remedy="keep one of them", about_key=True)
    if isinstance(send.payload, Payload) and (send.payload.hex is None) == (send.payload.file is None):
        raise Problem("is either hex: or file:", "payload")


def _check_pace(send: Send, count: int) -> Iterator[Problem]:
    """How fast several packets follow each other."""
    if send.interval is not None and send.rate is not None:
        yield Problem("interval: and rate: say the same", "rate", remedy="keep one of them", about_key=True)
    elif send.rate is not None and not int(send.rate.partition("/")[0]):
        yield Problem(f"{send.rate} sends nothing", "rate")
    elif send.pace and count == 1:
        yield Problem("one packet follows no other", "rate" if send.rate else "interval", remedy="say how many: count:")
    elif (seconds := send.pace * (count - 1)) > LONGEST_S:
        yield Problem(f"takes {seconds:.0f} s, and {LONGEST_S} s is the limit", "rate" if send.rate else "interval")


def _check_numbers(action: Action, sent: int) -> Iterator[Problem]:
    """How many packets the entries of a list of expectations are about."""
    if isinstance(action.expect, Expect):
        if action.expect.packets is not None:
            remedy = "leave it out: what is expected is expected of each packet"
            yield Problem("packets: stands only in a list of expectations", "packets", remedy=remedy, about_key=True)
        return
    numbers = [expect.packets for _, expect in action.entries]
    for index, number in enumerate(numbers[:-1]):
        if number is None:
            yield Problem("does not say how many packets it is about", index, remedy="add packets:")
    if None in numbers[:-1] or not numbers:
        return
    told = sum(number or 0 for number in numbers)
    if numbers[-1] is None and told >= sent:
        yield Problem(
            f"is about no packet: those before it are about {told}, and {sent} {_are(sent)} sent", len(numbers) - 1
        )
    elif numbers[-1] is not None and told != sent:
        yield Problem(
            f"is about {told} packets, and {sent} {_are(sent)} sent", remedy="the last entry may leave packets: out"
        )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


# What changes rules or chains would have to be traced and indexed anew.
def _check_change(action: Action, network: Network) -> Iterator[Problem]:
    assert action.nft is not UNSET
    if not is_change(action.nft):
        remedy = (
            "write 'add element FAMILY TABLE SET { … }', or create, delete, destroy; or 'flush set FAMILY TABLE SET'"
        )
        yield Problem("is no change of a set's elements", remedy=remedy)


def _check_listen(action: Action, network: Network) -> Iterator[Problem]:
    assert action.listen is not UNSET
    if action.listen.on not in network.hosts:
        yield unknown(action.listen.on, network.hosts, "host of the lab", "on")
    if action.listen.tcp is None and action.listen.udp is None:
        yield Problem("does not say at which port", remedy="add tcp: or udp: with a port")


def _check_flow(action: Action, network: Network) -> Iterator[Problem]:
    called = action.connect if action.connect is not UNSET else action.exchange
    assert called is not UNSET
    try:
        flow.plan(called, network)
    except Problem as problem:
        yield problem
    if isinstance(called, Exchange):
        for key in ("request", "answer"):
            size = len(flow.content(getattr(called, key)))
            if not 0 < size <= MOST_CONTENT:
                yield Problem(f"has {size} bytes, and can have 1…{MOST_CONTENT}", key)


def _check_wait(action: Action, network: Network) -> Iterator[Problem]:
    assert action.wait is not UNSET
    wait = action.wait
    if wait.elements is None and wait.conntrack is None:
        yield Problem("waits for nothing", remedy="add elements: or conntrack: none")
    yield from _check_names("elements", wait.elements)


_CHECKS = {
    "nft": _check_change,
    "listen": _check_listen,
    "connect": _check_flow,
    "exchange": _check_flow,
    "wait": _check_wait,
}


def _check_order(steps: Sequence[Action]) -> Iterator[Problem]:
    """What a step needs of those before it."""
    listening: set[tuple[str, str, int]] = set()
    connected = set()
    for index, step in enumerate(steps):
        if step.listen is not UNSET:
            for protocol in ("tcp", "udp"):
                port = getattr(step.listen, protocol)
                if port is not None and (step.listen.on, protocol, port) in listening:
                    sentence = f"{step.listen.on} listens at {protocol} port {port} already"
                    yield Problem(sentence, index, "listen", protocol)
                listening.add((step.listen.on, protocol, port))
        if step.connect is not UNSET:
            connected.add((step.connect.from_, step.connect.to, step.connect.tcp, step.connect.sport))
        if step.exchange is not UNSET and step.exchange.tcp is not None and step.exchange.udp is None:
            asked = step.exchange
            if (asked.from_, asked.to, asked.tcp, asked.sport) not in connected:
                remedy = f"add a step connect: {{from: {asked.from_}, to: {asked.to}, tcp: {asked.tcp}}}"
                yield Problem("has no connection: no step before it connects there", index, "exchange", remedy=remedy)


def _check_expect(expect: Expect, network: Network, layers: Collection[str] | None) -> Iterator[Problem]:
    if structs.replace(expect, packets=None) == Expect():
        yield NothingExpected("expects nothing", remedy=f"say at least the verdict, or {RECORD}")
    delivered = expect.delivered
    if isinstance(delivered, Delivered):
        yield from _check_receiver(delivered.to, network, "delivered", "to")
        if delivered.sees is not None:
            if delivered.to == "nowhere":
                yield Problem("a packet that arrives nowhere is seen by nobody", "delivered", "sees")
            for problem in _check_sees(delivered.sees):
                yield problem.below("delivered", "sees")
    elif delivered is not None:
        yield from _check_receiver(delivered, network, "delivered")
    if isinstance(expect.dropped, Dropped):
        if expect.dropped == Dropped():
            yield Problem("says nothing", "dropped", remedy="give the reason or the function")
        if expect.dropped.host is not None and expect.dropped.host not in network.hosts:
            yield unknown(expect.dropped.host, network.hosts, "host of the lab", "dropped", "host")
    if isinstance(expect.reply, Sees):
        for problem in _check_sees(expect.reply):
            yield problem.below("reply")
    yield from _check_names("counters", expect.counters)
    yield from _check_names("elements", expect.elements)
    yield from _check_layers(expect.layers, layers, "layers")
    if isinstance(expect.path, Exactly):
        yield from _check_layers(expect.path.layers, layers, "path", "layers")
        yield from _check_entries(expect.path.exactly, network, "path", "exactly")
    else:
        yield from _check_entries(expect.path, network, "path")
    yield from _check_entries(expect.never, network, "never", optional=False)
    if isinstance(expect.flow, FlowSeen):
        yield from _check_flow_seen(expect.flow, network)
    if isinstance(expect.conntrack, Tracked):
        yield from _check_tracked(expect.conntrack)
    if expect.route is not None:
        own = ("lo", *network.hosts[network.device].interfaces)
        if expect.route not in own:
            yield unknown(expect.route, own, f"interface of {network.device}", "route")
    if expect.log == "":
        yield Problem("names no prefix", "log", remedy="give the log statement a prefix, and write it here")


def _check_names(key: str, names: Iterable[str] | None) -> Iterator[Problem]:
    for name in names or ():
        words = name.split(" ")
        if len(words) != 3:
            remedy = "as in 'inet filter blocked'"
            yield Problem(f"'{name}' is not family, table and name", key, name, remedy=remedy, about_key=True)
        elif words[0] not in FAMILY_NAMES:
            yield unknown(words[0], FAMILY_NAMES, "family", key, name)
        elif wrong := [word for word in words[1:] if not is_name(word)]:
            remedy = "letters, digits, and / \\ _ . - behind the first one"
            yield Problem(f"'{wrong[0]}' is no name that nft reads", key, name, remedy=remedy, about_key=True)


def _check_layers(names: Sequence[str] | None, layers: _Layers, *keys: str) -> Iterator[Problem]:
    for index, layer in enumerate(names or ()):
        if layers is not None and layer not in layers:
            yield unknown(layer, layers, "layer", *keys, index)


def _check_entries(
    entries: Sequence[PathEntry] | None, network: Network, *keys: str, optional: bool = True
) -> Iterator[Problem]:
    for index, entry in enumerate(entries or ()):
        for problem in _check_entry(entry, network):
            yield problem.below(*keys, index)
        if not optional and not isinstance(entry, str):
            (name, detail) = next(iter(entry.items()))
            if detail.optional:
                yield Problem("what must not be met is not optional", *keys, index, name, "optional")
    if optional and entries and all(not isinstance(one, str) and next(iter(one.values())).optional for one in entries):
        yield Problem("expects nothing: every entry is optional", *keys)


def _check_flow_seen(seen: FlowSeen, network: Network) -> Iterator[Problem]:
    if seen == FlowSeen():
        yield Problem("says nothing", "flow", remedy="give at least the result")
    if seen.by is not None and seen.by not in network.hosts:
        yield unknown(seen.by, network.hosts, "host of the lab", "flow", "by")
    yield from _check_addresses(seen, "flow")
    if seen.result in ("refused", "unreachable", "timeout", "half-open"):
        for key in ("by", "src", "sport", "dst", "dport"):
            if getattr(seen, key) is not None:
                yield Problem(f"no program has seen a flow that ends as {seen.result}", "flow", key)


def _check_tracked(tracked: Tracked) -> Iterator[Problem]:
    if tracked == Tracked():
        yield Problem("says nothing", "conntrack", remedy="give at least the state, or `none`")
    for key, ends in (("original", tracked.original), ("reply", tracked.reply)):
        if ends is not None:
            if ends == Ends():
                yield Problem("says nothing", "conntrack", key, remedy="give at least one field, such as src")
            yield from _check_addresses(ends, "conntrack", key)


def _check_addresses(given: Sees | FlowSeen | Ends, *keys: str) -> Iterator[Problem]:
    for key in ("src", "dst"):
        if (text := getattr(given, key)) is not None:
            try:
                ip_address(text)
            except ValueError:
                yield Problem(f"'{text}' is not an address", *keys, key)


def _check_receiver(name: str, network: Network, *keys: str) -> Iterator[Problem]:
    if name not in network.hosts and name != "nowhere":
        yield unknown(name, (*network.hosts, "nowhere"), "host of the lab", *keys)


def _check_sees(sees: Sees) -> Iterator[Problem]:
    if sees == Sees():
        yield Problem("says nothing", remedy="give at least one field, such as src")
    yield from _check_addresses(sees)
    protocols = [key for key in ("tcp", "udp", "icmp", "icmpv6", "arp") if getattr(sees, key) is not None]
    if len(protocols) > 1:
        yield Problem(f"a packet cannot be {protocols[0]} and {protocols[1]} at once", protocols[1])
    for key, header in (("icmp", sees.icmp), ("icmpv6", sees.icmpv6)):
        if header is not None:
            try:
                icmp.numbers(header, key)
            except Problem as problem:
                yield problem.below(key)


def _check_entry(entry: PathEntry, network: Network) -> Iterator[Problem]:
    """An entry of ``path`` or ``never``."""
    names, detail = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
    functions = [name.strip() for name in names.split("|")]
    for function in functions:
        if not _FUNCTION.fullmatch(function):
            yield Problem(f"'{function}' is no name of a function", remedy="write a name, or several as in 'a | b'")
    if detail is not None:
        for problem in _check_detail(detail, functions, network):
            yield problem.below(names)


def _check_detail(detail: HopDetail, functions: Collection[str], network: Network) -> Iterator[Problem]:
    if detail.host is not None and detail.host not in network.hosts:
        yield unknown(detail.host, network.hosts, "host of the lab", "host")
    elif detail.device is not None:
        interfaces = network.hosts[detail.host or network.device].interfaces
        if detail.device not in interfaces and detail.device != LOOPBACK:
            yield unknown(detail.device, interfaces, f"interface of {detail.host or network.device}", "device")
    for key in ("chain", "hook", "verdict"):
        if getattr(detail, key) is not None and "nft_do_chain" not in functions:
            yield Problem("only nft_do_chain meets one", key)
    if detail.hook is not None and detail.hook not in HOOK_NAMES:
        yield unknown(detail.hook, HOOK_NAMES, "hook", "hook")
    if detail.chain is not None:
        words = detail.chain.split()
        if len(words) != 3:
            yield Problem(
                f"'{detail.chain}' is not family, table and chain", "chain", remedy="as in 'inet filter forward'"
            )
        elif words[0] not in FAMILY_NAMES:
            yield unknown(words[0], FAMILY_NAMES, "family", "chain")


def _check_reject(expect: Expect, send: Send, family: int | None) -> Iterator[Problem]:
    """``with``, against the verdict and the packet."""
    if expect.with_ is None:
        return
    keys = ("with",)
    if expect.verdict != "reject":
        yield Problem("only a packet that is rejected is answered with something", *keys, remedy="add verdict: reject")
        return
    try:
        answers = icmp.check_reject(expect.with_)
    except Problem as problem:
        yield problem.below(*keys)
        return
    if answers is not None and family is not None and answers != family:
        yield Problem(f"an IPv{family} packet is not answered with '{expect.with_}'", *keys)
    if expect.with_.split()[0] == "tcp" and any(getattr(send, name) for name in (*TRANSPORTS, "arp") if name != "tcp"):
        yield Problem("only a TCP packet is answered with a reset", *keys)
