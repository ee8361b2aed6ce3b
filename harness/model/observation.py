"""What was seen of the packets of one scenario, as plain values.

Everything that watches a packet ends up here; expectations and reports read these values and
never the kernel. All are frozen and can be stored as JSON by :mod:`msgspec`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from harness.errors import Position


class Verdict(enum.StrEnum):
    """What became of a packet, or the verdict of one rule or chain."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    QUEUE = "queue"
    STOLEN = "stolen"
    CONTINUE = "continue"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"


class Value(msgspec.Struct, frozen=True):
    """Base of the values here: frozen and comparable."""


class Hop(Value, frozen=True, kw_only=True):
    """One traced kernel function that a packet passed."""

    time: int
    """Nanoseconds since the packet's birth."""
    cpu: int
    host: str
    """Name of the lab host in whose network namespace the packet was; "" when not known."""
    device: str
    """Name of ``skb->dev``; "" when the packet has none yet."""
    function: str
    """The kernel's name without compiler suffixes, e.g. ``ip_rcv``."""
    layer: str
    detail: Mapping[str, str] = {}
    """Arguments or results of the function, e.g. ``{"chain": "inet filter forward",
    "hook": "forward", "verdict": "accept"}`` for ``nft_do_chain``, ``{"reason":
    "NETFILTER_DROP"}`` for the functions that free a dropped packet."""


Place = tuple[str, str, str, int]
"""A rule of a ruleset: family, table, chain, handle; with handle 0, the policy of the chain."""


class InChain(Value, frozen=True, kw_only=True):
    """What belongs to a chain of a ruleset."""

    family: str
    table: str
    chain: str

    @property
    def chain_path(self) -> str:
        """``family table chain``, the name used in scenarios."""
        return f"{self.family} {self.table} {self.chain}"


class Rule(InChain, frozen=True, kw_only=True):
    """One rule of the loaded ruleset."""

    handle: int
    text: str
    """As ``nft list ruleset`` prints it, counters left out, on one line."""
    written: str = ""
    """As it stands in the user's file, where it was found there."""
    comment: str = ""
    position: Position | None = None
    """Where it stands in the user's file; None when it was not loaded from text."""

    @property
    def place(self) -> Place:
        """By which it is known in the ruleset."""
        return self.family, self.table, self.chain, self.handle


class Step(InChain, frozen=True, kw_only=True):
    """One nf_tables evaluation that ended a rule, a chain or a hook."""

    time: int
    """Nanoseconds since the packet's birth."""
    host: str
    hook: str
    """``ingress``, ``prerouting``, ``input``, ``forward``, ``output``, ``postrouting``, ``egress``."""
    kind: str
    """``rule``, ``policy`` or ``return``, as in ``NFT_TRACETYPE_*``."""
    verdict: Verdict
    target: str = ""
    """The chain of a jump or goto."""
    rule: Rule | None = None
    """The rule evaluated; None for a policy and for a return at the end of a chain."""
    policy_at: Position | None = None
    """Of a policy: where it is written, or the chain's hook if it is not."""
    headers: bytes = b""
    """In the first step of each base chain: the packet as it came there, from the IP header on, as far as the
    trace has it."""
    iif: str = ""
    oif: str = ""
    """There as well: the interfaces by which it came in and goes out."""

    @property
    def position(self) -> Position | None:
        """Where the rule or policy stands; None when that is not known, and for the end of a chain."""
        return self.rule.position if self.rule else self.policy_at

    mark: int = 0
    """The packet's mark after that."""


class Delivery(Value, frozen=True, kw_only=True):
    """A frame that arrived at a host of the lab."""

    time: int
    """Nanoseconds since the packet's birth."""
    host: str
    device: str
    frame: bytes
    """From the Ethernet header on, as the host's interface received it; b"" on the device under
    test, where it is known only that the host took the packet in."""


class Counted(Value, frozen=True, kw_only=True):
    """What one CPU has counted of the events begun there."""

    entered: int = 0
    refused: int = 0
    untracked: int = 0


class Loss(Value, frozen=True, kw_only=True):
    """What could not be seen, per channel. Zero everywhere is the contract."""

    entered: int = 0
    """Events the BPF programs began for this scenario."""
    received: int = 0
    """Events that reached us."""
    refused: int = 0
    """Events that found no room in the ring buffer."""
    missed: int = 0
    """Runs of the BPF programs that the kernel skipped (recursion), where it counts them."""
    untracked: int = 0
    """Packets that could not be followed because a map in the kernel was full or locked."""
    trace: int = 0
    """nf_tables trace messages lost by netlink (one per overrun reported)."""
    cpus: Mapping[int, Counted] = {}
    """What is counted on each CPU, of those that have met a packet. Skipped runs the kernel counts for all together."""

    @property
    def total(self) -> int:
        """Everything lost; what entered and neither arrived nor was refused counts too."""
        unaccounted = abs(self.entered - self.received - self.refused)
        return unaccounted + self.refused + self.missed + self.untracked + self.trace


class Lasting(NamedTuple):
    """What expires, and after how long."""

    what: str
    """A noun, e.g. ``an element of set knocked``."""
    seconds: float
    asked_by: str = "ct"
    """The word by which rules ask for it: ``@knocked``, or ``ct`` for a connection."""


class Pace(NamedTuple):
    """How a packet was sent, beside what its scenario asks for."""

    late: float = 0.0
    """Seconds by which its evaluation ended later behind the first packet of the scenario than the scenario asks, which
    means packets to come at once, or as their `rate` or `interval` says."""
    packets: int = 0
    """Those that the lab has seen of the scenario until then, at most."""
    bytes: int = 0
    """Those that they had together, at most."""
    lasting: tuple[Lasting, ...] = ()
    """What may have expired in that time."""


class Drop(Value, frozen=True, kw_only=True):
    """The kernel's own word on why it freed a packet."""

    host: str
    function: str
    """The function that dropped the packet: the caller of ``kfree_skb_reason`` or a similar function."""
    reason: str
    """As in ``enum skb_drop_reason`` without ``SKB_DROP_REASON_``, e.g. ``NETFILTER_DROP``."""


class Flow(Value, frozen=True, kw_only=True):
    """How a call of one program to another went, as the sockets at both ends observe it."""

    result: str
    """``connected``, ``answered``, ``refused``, ``unreachable``, ``half-open``, ``timeout`` or ``unsent``."""
    host: str
    """That called."""
    by: str = ""
    """The host whose program was reached; "" where none was."""
    src: str = ""
    """Address and port that the call came from, as the program at the other end saw it."""
    sport: int = 0
    dst: str = ""
    """Address and port that it was called at."""
    dport: int = 0
    error: str = ""
    """Of a call that failed at once: the name of its errno, e.g. ``ENETUNREACH``."""


class Direction(Value, frozen=True, kw_only=True):
    """One direction of a connection; ports are 0 for protocols without."""

    src: str
    dst: str
    sport: int = 0
    dport: int = 0


class Connection(Value, frozen=True, kw_only=True):
    """A connection that a host tracks."""

    protocol: int
    """Of IP, e.g. 6 for TCP."""
    original: Direction
    """As its first packet came in."""
    reply: Direction
    """As answers come in: NAT stands between the two."""
    state: str = ""
    """Of a TCP connection, e.g. ``ESTABLISHED``."""
    status: tuple[str, ...] = ()
    """Flags of ``enum ip_conntrack_status``, e.g. ``ASSURED``."""
    mark: int = 0
    zone: int = 0
    helper: str = ""
    timeout: int = 0
    """Seconds after which it expires."""


class ObservedPacket(Value, frozen=True, kw_only=True):
    """All that was seen of one packet: one injected, or one that the kernel made in answer."""

    number: int
    """Order of birth in the scenario, from 0."""
    sender: str
    """Host whose kernel it was born in."""
    born: int = 0
    """When, in nanoseconds since 1970: what the times of its hops, steps and deliveries count from."""
    frame: bytes
    """What was injected, from the Ethernet header on; b"" for an answer that a kernel made. Of a packet of a
    :class:`Flow`, as its host sent it, or else, behind an empty Ethernet header, the headers that
    nf_tables' trace shows."""
    injected: bool = True
    hops: tuple[Hop, ...] = ()
    steps: tuple[Step, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    drop: Drop | None = None


class Observation(Value, frozen=True, kw_only=True):
    """Everything that a packet sent showed: its own way, and what the kernel made until the next one was sent."""

    packets: tuple[ObservedPacket, ...]
    loss: Loss
    kernel: str
    """``uname -r`` of the kernel it ran on."""
    engine: str
    """How functions were traced, e.g. ``kprobe.multi``."""
    device: str
    """Name of the host under test."""
    traced: frozenset[str] = frozenset()
    """Names of the functions that were armed; empty when functions were not traced."""
    whole: bool = True
    """Whether a packet that has no hop of a function in ``traced`` did not meet it. Where only stacks at
    tracepoints were seen it may have."""
    untraceable: Mapping[str, str] = {}
    """Functions that the scenario names and that were not armed, with the reason as the end of a sentence."""
    replies: tuple[Delivery, ...] = ()
    """Frames that arrived and belong to no injected packet: what hosts answered."""

    unresolved: tuple[str, ...] = ()
    """Of a flow: neighbours that could not be resolved before it, and why, a sentence each."""
    flow: Flow | None = None
    """How the programs fared whose packets these are; None for injected frames."""
    connections: tuple[Connection, ...] = ()
    """What the device tracked afterwards; empty when that was not asked."""
    listed: bool = False
    """Whether that was asked: the scenario expects something of it, or conntrack considered a packet invalid."""
    elsewhere: Mapping[str, tuple[Connection, ...]] = {}
    """What other hosts tracked, by host: those that were asked for."""
    counters: Mapping[str, int] = {}
    """Packets that named counters have counted, by ``family table name``: those that were asked for."""
    counts: Mapping[str, int] = {}
    """Packets that the counter statements of the device's rules have counted, by ``family table chain handle``."""
    elements: Mapping[str, tuple[str, ...]] = {}
    """Elements of sets and keys of maps, as nft(8) writes them, by ``family table name``: likewise."""

    @property
    def injected(self) -> tuple[ObservedPacket, ...]:
        """The packets that the scenario sent, in order."""
        return tuple(packet for packet in self.packets if packet.injected)
