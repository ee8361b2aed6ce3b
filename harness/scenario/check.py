"""What the models cannot say: whether the steps of a scenario fit together and fit the lab."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import assert_never

from msgspec import UNSET

from harness.model.problem import NothingExpected, Problem, unknown
from harness.packets import answers as raw
from harness.packets import frames
from harness.packets.answers import Answer
from harness.packets.endpoints import TRANSPORTS, plan_endpoints
from harness.packets.spec import Payload, Send
from harness.scenario import flow
from harness.scenario.check_expect import (
    RECORD,
    check_expect,
    check_reject,
    check_values,
)
from harness.scenario.models.actions import (
    Action,
    ActionSpec,
    AnswerAction,
    ChangeAction,
    ClockAction,
    ConnectAction,
    ExchangeAction,
    FlushAction,
    ListenAction,
    NftAction,
    QueueAction,
    ReloadAction,
    SendAction,
    SendingAction,
    WaitAction,
)
from harness.scenario.models.expect import Expect
from harness.scenario.models.file import Scenario
from harness.scenario.models.sockets import Connect, Content, Exchange, Listen, Queue, Wait
from harness.text import counted
from harness.topology import changes
from harness.topology.network import Network

MOST_CONTENT = 65507
"""Bytes of a request or an answer: a UDP datagram by IPv4."""
LONGEST_S = 60
"""Seconds that a send may take."""

_Layers = Collection[str] | None


def check(scenario: Scenario, network: Network, layers: _Layers) -> Iterator[Problem]:
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
    for index, step in enumerate(_steps(scenario)):
        for problem in check_step(step, network, layers):
            yield problem if scenario.steps is UNSET else problem.below("steps", index)
        if step.change is not UNSET:
            with suppress(Problem):
                network = changes.plan(step.change, network).network


def actions(scenario: Scenario) -> tuple[Action, ...]:
    """The steps of ``scenario`` in order, whichever way they are written.

    Raises :class:`~harness.model.problem.Problem` for one that :func:`check` refuses.
    """
    return tuple(step.action for step in _steps(scenario))


def _steps(scenario: Scenario) -> tuple[ActionSpec, ...]:
    if scenario.steps is not UNSET:
        return tuple(scenario.steps)
    return () if scenario.send is UNSET else (ActionSpec(send=scenario.send, expect=scenario.expect),)


def to_be_recorded(actions: Iterable[Action]) -> tuple[Action, ...]:
    """``actions`` with an empty ``expect`` at each packet whose expectation is to be written.

    Those are the packets with ``expect: {}``, and all packets of a scenario without any ``expect``.
    """
    actions = tuple(actions)
    if any(action.entries for action in actions):
        return actions
    return tuple(one.expecting(Expect()) if isinstance(one, SendingAction) else one for one in actions)


def check_step(step: ActionSpec, network: Network, layers: _Layers) -> Iterator[Problem]:
    """Everything wrong with one step by itself."""
    try:
        action = step.action
    except Problem as problem:
        yield problem
        return
    match action:
        case SendAction():
            yield from _check_send_action(action, network, layers)
        case ConnectAction(connect=called):
            yield from _below("connect", _check_flow(called, network))
            yield from _check_flow_expected(action, called, network, layers)
        case ExchangeAction(exchange=called):
            yield from _below("exchange", _check_flow(called, network))
            yield from _check_flow_expected(action, called, network, layers)
        case NftAction(nft=commands):
            yield from _below("nft", _check_commands(commands))
        case ReloadAction() | FlushAction():
            pass
        case ChangeAction(change=change):
            try:
                changes.plan(change, network)
            except Problem as problem:
                yield problem.below("change")
        case ClockAction(clock=moment):
            try:
                datetime.fromisoformat(moment)
            except ValueError:
                yield Problem(f"'{moment}' is not a date and time", "clock", remedy="as in 2026-11-27 22:30")
        case ListenAction(listen=program):
            yield from _below("listen", _check_listen(program, network))
        case AnswerAction(answer=answers):
            yield from _below("answer", _check_answer(answers, network))
        case QueueAction(queue=reader):
            yield from _below("queue", _check_queue(reader, network))
        case WaitAction(wait=wait):
            yield from _below("wait", _check_wait(wait, network))
        case _:
            assert_never(action)


def _below(key: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    return (problem.below(key) for problem in problems)


def _check_send_action(action: SendAction, network: Network, layers: _Layers) -> Iterator[Problem]:
    family = yield from _check_send(action, network)
    for keys, expect in action.entries:
        problems = [*check_expect(expect, network, layers), *check_reject(expect, action.send, family)]
        problems += _check_reply(expect, action.send.from_, network)
        if expect.flow is not None:
            remedy = "make the step a connect or an exchange"
            problems.append(Problem("only real sockets have a flow", "flow", remedy=remedy, about_key=True))
        for found in problems:
            yield found.below(*keys)


def _check_flow_expected(
    action: ConnectAction | ExchangeAction, called: Connect | Exchange, network: Network, layers: _Layers
) -> Iterator[Problem]:
    if isinstance(action.expect, list):
        yield Problem(
            "a flow is judged by one packet, not by a list of expectations", "expect", remedy="make it one mapping"
        )
        return
    for keys, expect in action.entries:
        problems = [*check_expect(expect, network, layers), *_check_reply(expect, called.from_, network)]
        if expect.packets is not None:
            problems.append(Problem("a flow is judged by one packet", "packets", remedy="leave it out", about_key=True))
        for found in problems:
            yield found.below(*keys)


def _check_reply(expect: Expect, sender: str, network: Network) -> Iterator[Problem]:
    if sender == network.device and expect.reply is not None:
        why = f"what comes back to {network.device}, which is under test, is not captured"
        remedy = "make it a step of its own, sent from the other host"
        yield Problem(why, "reply", remedy=remedy, about_key=True)


def _check_send(action: SendAction, network: Network) -> Generator[Problem, None, int | None]:
    """What is wrong with a packet, its pace, and the numbers of those expected; its IP version if that is known."""
    send = action.send
    family = None
    try:
        _check_form(send)
        if send.form == "headers":
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


def _check_form(send: Send) -> None:
    """A packet is written in one form."""
    others = {"headers": (), "packet": HEADERS, "pcap": ("packet", "to", *HEADERS)}
    for key in others[send.form]:
        if getattr(send, key):
            raise Problem(f"{send.form}: and {key}: exclude each other", key, remedy="keep one of them", about_key=True)
    if isinstance(send.payload, Payload) and (send.payload.hex is None) == (send.payload.file is None):
        raise Problem("is either hex: or file:", "payload")


def _check_pace(send: Send, count: int) -> Iterator[Problem]:
    """How fast several packets follow each other."""
    if send.interval is not None and send.rate is not None:
        yield Problem("interval: and rate: exclude each other", "rate", remedy="keep one of them", about_key=True)
    elif send.rate is not None and not int(send.rate.partition("/")[0]):
        yield Problem(f"{send.rate} sends nothing", "rate")
    elif send.pace and count == 1:
        yield Problem("a pace needs several packets", "rate" if send.rate else "interval", remedy="add count:")
    elif (seconds := send.pace * (count - 1)) > LONGEST_S:
        yield Problem(f"takes {seconds:.0f} s, and {LONGEST_S} s is the limit", "rate" if send.rate else "interval")


def _check_numbers(action: SendAction, sent: int) -> Iterator[Problem]:
    """How many packets the entries of a list of expectations are about."""
    if isinstance(action.expect, Expect):
        if action.expect.packets is not None:
            remedy = "leave it out: a single expectation applies to every packet"
            yield Problem("packets: is only valid in a list of expectations", "packets", remedy=remedy, about_key=True)
        return
    numbers = [expect.packets for _, expect in action.entries]
    for index, number in enumerate(numbers[:-1]):
        if number is None:
            yield Problem("does not say to how many packets it applies", index, remedy="add packets:")
    if None in numbers[:-1] or not numbers:
        return
    covered = sum(number or 0 for number in numbers)
    if numbers[-1] is None and covered >= sent:
        yield Problem(
            f"applies to no packet: the entries before it cover {covered}, and {sent} {_are(sent)} sent",
            len(numbers) - 1,
        )
    elif numbers[-1] is not None and covered != sent:
        yield Problem(
            f"the entries cover {counted(covered, 'packet')}, and {sent} {_are(sent)} sent",
            remedy="the last entry may leave packets: out",
        )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _check_commands(commands: str) -> Iterator[Problem]:
    """Only nft can say what is wrong with its commands; it is asked when the scenario runs."""
    if not commands.strip():
        yield Problem("is empty", remedy="write one or more nft commands, such as flush chain inet filter forward")


def _check_listen(program: Listen, network: Network) -> Iterator[Problem]:
    if program.on not in network.hosts:
        yield unknown(program.on, network.hosts, "host of the lab", "on")
    elif program.device is not None and program.device not in network.hosts[program.on].interfaces:
        yield unknown(program.device, network.hosts[program.on].interfaces, f"interface of {program.on}", "device")
    if program.tcp is None and program.udp is None:
        yield Problem("has no port", remedy="add tcp: or udp: with a port")


def _check_answer(spec: Answer, network: Network) -> Iterator[Problem]:
    if spec.on not in network.hosts:
        yield unknown(spec.on, network.hosts, "host of the lab", "on")
    elif not network.hosts[spec.on].silent:
        yield Problem(f"the kernel of {spec.on} answers for itself", "on", remedy="name a host that is silent")
    for index, answer in enumerate(spec.with_):
        try:
            raw.check(answer)
        except Problem as problem:
            yield problem.below("with", index)


def _check_queue(reader: Queue, network: Network) -> Iterator[Problem]:
    if reader.on is not None and reader.on not in network.hosts:
        yield unknown(reader.on, network.hosts, "host of the lab", "on")
    for old, new in reader.replace.items():
        if not old or len(old.encode()) != len(new.encode()):
            yield Problem(f"'{new}' is not as long as '{old}'", "replace", old)


def _check_flow(called: Connect | Exchange, network: Network) -> Iterator[Problem]:
    try:
        flow.plan(called, network)
    except Problem as problem:
        yield problem
    if isinstance(called, Exchange):
        for key in ("device", "mark", "cgroup"):
            if called.tcp is not None and getattr(called, key) is not None:
                remedy = f"give {key}: to its connect"
                yield Problem("a connection has that from its connect", key, remedy=remedy, about_key=True)
        for key in ("request", "answer"):
            said = getattr(called, key)
            if isinstance(said, Content) and (said.hex is None) == (said.size is None):
                yield Problem("is either hex: or size:", key)
                continue
            size = len(flow.content(said))
            if not 0 < size <= MOST_CONTENT:
                yield Problem(f"has {size} bytes, and can have 1…{MOST_CONTENT}", key)


def _check_wait(wait: Wait, network: Network) -> Iterator[Problem]:
    if wait.elements is None and wait.conntrack is None and wait.connections is None:
        yield Problem("waits for nothing", remedy="add elements:, connections: or conntrack:")
    yield from check_values(wait, network)


def _check_order(steps: Sequence[ActionSpec]) -> Iterator[Problem]:
    """What a step needs of those before it."""
    listening: set[tuple[str, str, int]] = set()
    connected = set()
    yield from _check_answering(steps)
    yield from _check_programs(steps)
    for index, step in enumerate(steps):
        if step.listen is not UNSET:
            for protocol in ("tcp", "udp"):
                port = getattr(step.listen, protocol)
                if port is not None and (step.listen.on, protocol, port) in listening:
                    sentence = f"{step.listen.on} listens on {protocol} port {port} already"
                    yield Problem(sentence, index, "listen", protocol)
                listening.add((step.listen.on, protocol, port))
        if step.connect is not UNSET:
            connected.add((step.connect.from_, step.connect.to, step.connect.tcp, step.connect.sport))
        if step.exchange is not UNSET and step.exchange.tcp is not None and step.exchange.udp is None:
            asked = step.exchange
            if (asked.from_, asked.to, asked.tcp, asked.sport) not in connected:
                remedy = f"add a step connect: {{from: {asked.from_}, to: {asked.to}, tcp: {asked.tcp}}}"
                yield Problem("needs a connection: no earlier step connects there", index, "exchange", remedy=remedy)


def _check_programs(steps: Sequence[ActionSpec]) -> Iterator[Problem]:
    """A program has something to do."""
    for index, step in enumerate(steps):
        key = "listen" if step.listen is not UNSET else "queue" if step.queue is not UNSET else ""
        is_alone = all(later.send is later.connect is later.exchange is UNSET for later in steps[index:])
        if key and is_alone and step.expect is UNSET:
            remedy = "move it before the step that sends what the program is to get, or leave it out"
            yield Problem("has no effect: no later step sends anything", index, key, remedy=remedy)


def _check_answering(steps: Sequence[ActionSpec]) -> Iterator[Problem]:
    """Hosts that answer by hand-made packets have no program, and there is something to answer."""
    programs = {
        name
        for step in steps
        for name in (
            None if step.listen is UNSET else step.listen.on,
            None if step.connect is UNSET else step.connect.from_,
            None if step.exchange is UNSET else step.exchange.from_,
        )
    }
    for index, step in enumerate(steps):
        if step.answer is UNSET:
            continue
        if step.answer.on in programs:
            remedy = "have another host answer, or listen there instead"
            sentence = f"a program of this scenario runs on {step.answer.on}, so its kernel answers"
            yield Problem(sentence, index, "answer", "on", remedy=remedy)
        if all(later.connect is UNSET and later.exchange is UNSET for later in steps[index + 1 :]):
            remedy = "add a step connect: or exchange:, or send: the packet instead"
            yield Problem("answers nothing: no later step connects or exchanges", index, "answer", remedy=remedy)
