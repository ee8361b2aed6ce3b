"""The steps of a scenario: as they are written, and each kind as a class of its own."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.model.fields import Keys, Model, RulesetFiles
from harness.model.problem import Problem
from harness.packets.answers import Answer
from harness.packets.spec import Send
from harness.scenario.models.expect import Expect, Expects
from harness.scenario.models.sockets import Connect, Exchange, Listen, Queue, Wait
from harness.topology.changes import ChangeSpec


class ActionSpec(Model, frozen=True, kw_only=True):
    """One step: a packet, a flow between real sockets, or something that prepares them; and what must happen to it."""

    send: Annotated[
        Send | UnsetType, Meta(description="The packet.", examples=[{"from": "client", "to": "server", "icmp": {}}])
    ] = UNSET
    nft: Annotated[
        str | UnsetType,
        Meta(
            description="Instead of a packet: nft commands for the device under test, run in one transaction, as by "
            "`nft -f`.",
            examples=[
                "add element inet edge blocked { 203.0.113.5 }",
                "insert rule inet edge forward ip saddr 203.0.113.5 drop",
            ],
        ),
    ] = UNSET
    reload: Annotated[
        RulesetFiles | UnsetType,
        Meta(
            description="Instead of a packet: load a ruleset on the device under test, as `ruleset` does, while the "
            "one before is in force. A file that begins with `flush ruleset` replaces it atomically; otherwise it is "
            "added to what is loaded.",
            examples=["rulesets/edge-next.nft"],
        ),
    ] = UNSET
    flush: Annotated[
        Literal["conntrack"] | UnsetType,
        Meta(
            description="Instead of a packet: empty the connection tracking table of the device under test, as "
            "`conntrack -F`.",
            examples=["conntrack"],
        ),
    ] = UNSET
    change: Annotated[
        ChangeSpec | UnsetType,
        Meta(
            description="Instead of a packet: change links, addresses, routes or settings of a host.",
            examples=[{"links": {"wan0": "down"}, "add": {"routes": [{"to": "default", "via": "isp2"}]}}],
        ),
    ] = UNSET
    clock: Annotated[
        Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?$")] | UnsetType,
        Meta(
            description="Instead of a packet: set the wall clock, which `meta hour`, `meta day` and `meta time` read, "
            "in the time zone of the machine. It is restored when the scenario ends. Only a microVM has a clock that "
            "can be set; timeouts and rates use another clock.",
            examples=["2026-11-27 22:30"],
        ),
    ] = UNSET
    listen: Annotated[
        Listen | UnsetType,
        Meta(
            description="Instead of a packet: start a program that listens.",
            examples=[{"on": "server", "tcp": 443}],
        ),
    ] = UNSET
    answer: Annotated[
        Answer | UnsetType,
        Meta(
            description="Instead of a packet: have a silent host answer what programs of others send to it, by "
            "hand-made packets.",
            examples=[{"on": "server", "with": [{"tcp": {"flags": "SA"}}]}],
        ),
    ] = UNSET
    queue: Annotated[
        Queue | UnsetType,
        Meta(
            description="Instead of a packet: start a program that reads a queue.",
            examples=[{"number": 0, "verdict": "accept"}],
        ),
    ] = UNSET
    connect: Annotated[
        Connect | UnsetType,
        Meta(
            description="Instead of a packet: connect by TCP from a real socket.",
            examples=[{"from": "client", "to": "server", "tcp": 443}],
        ),
    ] = UNSET
    exchange: Annotated[
        Exchange | UnsetType,
        Meta(
            description="Instead of a packet: send a request and its answer between real sockets, by UDP or over a "
            "TCP connection.",
            examples=[{"from": "client", "to": "server", "udp": 53}],
        ),
    ] = UNSET
    wait: Annotated[
        Wait | UnsetType,
        Meta(
            description="Instead of a packet: wait for a condition.",
            examples=[{"elements": {"inet filter banned": []}, "within": 30}],
        ),
    ] = UNSET
    expect: Annotated[
        Expect | Expects | UnsetType,
        Meta(
            description="What must happen to the packet. Without it the packet only prepares later steps, such as the "
            "first of a flow.",
            examples=[{"verdict": "accept"}],
        ),
    ] = UNSET

    @property
    def action(self) -> Action:
        """The step as one of the kinds. Raises :class:`~harness.model.problem.Problem` unless it is exactly one."""
        found = [key for key in KINDS if getattr(self, key) is not UNSET]
        if not found:
            remedy = "add send: with a packet, connect: or exchange:, or what prepares them"
            raise Problem("does nothing", remedy=remedy)
        if len(found) > 1:
            sentence = f"a step has either {found[0]} or {found[1]}"
            raise Problem(sentence, found[1], remedy="make two steps of it", about_key=True)
        (key,) = found
        given: dict[str, Any] = {key: getattr(self, key)}
        if self.expect is not UNSET:
            if key not in SENDS:
                remedy = "expect it of a packet in a later step"
                raise Problem("a step that sends nothing expects nothing", "expect", remedy=remedy, about_key=True)
            given["expect"] = self.expect
        return KINDS[key](**given)


class BaseAction(msgspec.Struct, frozen=True, kw_only=True):
    """What the kinds of steps share. The tag of each kind is its key in a scenario file, and names its field."""

    @property
    def entries(self) -> tuple[tuple[Keys, Expect], ...]:
        """All that is expected, however it is written, and where each stands below the step."""
        return ()


class SendingAction(BaseAction, frozen=True, kw_only=True):
    """A step that sends packets, and what is expected of them."""

    expect: Expect | list[Expect] | UnsetType = UNSET

    @property
    def entries(self) -> tuple[tuple[Keys, Expect], ...]:
        """All that is expected, however it is written, and where each stands below the step."""
        if isinstance(self.expect, list):
            return tuple((("expect", index), expect) for index, expect in enumerate(self.expect))
        return () if self.expect is UNSET else ((("expect",), self.expect),)

    def expected_of(self, count: int) -> tuple[tuple[Keys, Expect], ...]:
        """What is expected of each of ``count`` packets, and where that stands below the step."""
        each: list[tuple[Keys, Expect]] = []
        for keys, expect in self.entries or ((("expect",), Expect()),):
            each += [(keys, expect)] * (count - len(each) if expect.packets is None else expect.packets)
        return tuple(each)

    def expecting(self, expect: Expect) -> Self:
        """The same step with another expectation."""
        return msgspec.structs.replace(self, expect=expect)


class SendAction(SendingAction, frozen=True, kw_only=True, tag="send"):
    """A packet, or several in a row."""

    send: Send


class ConnectAction(SendingAction, frozen=True, kw_only=True, tag="connect"):
    """A TCP connection between real sockets."""

    connect: Connect


class ExchangeAction(SendingAction, frozen=True, kw_only=True, tag="exchange"):
    """A request and its answer between real sockets."""

    exchange: Exchange


class NftAction(BaseAction, frozen=True, kw_only=True, tag="nft"):
    """Commands for nft on the device under test."""

    nft: str


class ReloadAction(BaseAction, frozen=True, kw_only=True, tag="reload"):
    """A ruleset that is loaded on the device under test, in addition to what is loaded or in its place."""

    reload: str | list[str]
    """Its files; those of an action are absolute paths, in the order of loading."""


class FlushAction(BaseAction, frozen=True, kw_only=True, tag="flush"):
    """A table of the kernel that is emptied."""

    flush: Literal["conntrack"]


class ChangeAction(BaseAction, frozen=True, kw_only=True, tag="change"):
    """A change of a host's links, addresses, routes or settings."""

    change: ChangeSpec


class ClockAction(BaseAction, frozen=True, kw_only=True, tag="clock"):
    """The wall clock, set to a moment."""

    clock: str


class ListenAction(BaseAction, frozen=True, kw_only=True, tag="listen"):
    """A program that takes connections or requests from now on."""

    listen: Listen


class AnswerAction(BaseAction, frozen=True, kw_only=True, tag="answer"):
    """A silent host that answers from now on."""

    answer: Answer


class QueueAction(BaseAction, frozen=True, kw_only=True, tag="queue"):
    """A program that decides about queued packets from now on."""

    queue: Queue


class WaitAction(BaseAction, frozen=True, kw_only=True, tag="wait"):
    """A wait for a condition."""

    wait: Wait


Action = (
    SendAction
    | NftAction
    | ReloadAction
    | FlushAction
    | ChangeAction
    | ClockAction
    | ListenAction
    | AnswerAction
    | QueueAction
    | ConnectAction
    | ExchangeAction
    | WaitAction
)
"""One thing that a scenario does. Whatever takes a step apart matches on this union, so mypy finds a kind left out."""

KINDS: Final[dict[str, type[Action]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Action)}
"""The kinds by their keys. A kind is added here, by a class in the union and a field of :class:`ActionSpec`."""

SENDS: Final = tuple(key for key, kind in KINDS.items() if issubclass(kind, SendingAction))
"""The keys of those that send packets."""
