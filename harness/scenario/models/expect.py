"""The expectations of a scenario."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from harness.model.fields import MOST_PACKETS, Count, HostName, InterfaceName, Model, Number32, Port, Word
from harness.packets.spec import Sees

FlowResult = Literal["connected", "answered", "refused", "unreachable", "half-open", "timeout"]


ConntrackState = Literal[
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
]


"""``enum tcp_conntrack`` in include/uapi/linux/netfilter/nf_conntrack_tcp.h, by number."""


ConntrackStatus = Annotated[
    str,
    Meta(
        pattern="^!?(EXPECTED|SEEN_REPLY|ASSURED|CONFIRMED|SRC_NAT|DST_NAT|SEQ_ADJUST|FIXED_TIMEOUT|TEMPLATE"
        "|UNTRACKED|HELPER|OFFLOAD|HW_OFFLOAD)$",
        description="A flag of `enum ip_conntrack_status` without `IPS_`.",
        examples=["ASSURED", "!ASSURED"],
    ),
]


class Delivered(Model, frozen=True, kw_only=True):
    """Where the packet must have arrived, and as what."""

    to: Annotated[str, Meta(description="A host, or `nowhere`.", examples=["server", "nowhere"])]
    sees: Annotated[
        Sees | None, Meta(description="How it must look there, after NAT.", examples=[{"src": "203.0.113.1"}])
    ] = None


class Dropped(Model, frozen=True, kw_only=True):
    """How the kernel gave the packet up; each key given must hold."""

    reason: Annotated[
        str | None,
        Meta(
            description="The kernel's reason without `SKB_DROP_REASON_`, or alternatives `a | b`: kernels differ.",
            examples=["NETFILTER_DROP", "IP_RPFILTER", "IP_INHDR | NOT_SPECIFIED"],
        ),
    ] = None
    function: Annotated[
        str | None,
        Meta(
            description="The function that gave it up, or alternatives.",
            examples=["ip_rcv_finish_core", "ip_forward | ip6_forward"],
        ),
    ] = None
    host: Annotated[
        HostName | None, Meta(description="On this host; without it, on the device under test.", examples=["edge"])
    ] = None


class HopDetail(Model, frozen=True, kw_only=True):
    """What a function of the path must have met; each key given must hold."""

    host: Annotated[
        HostName | None, Meta(description="On this host; without it, on the device under test.", examples=["server"])
    ] = None
    device: Annotated[str | None, Meta(description="With `skb->dev` being this interface.", examples=["wan0"])] = None
    chain: Annotated[
        str | None, Meta(description="For `nft_do_chain`: family, table and chain.", examples=["inet filter forward"])
    ] = None
    hook: Annotated[str | None, Meta(description="For `nft_do_chain`: the hook.", examples=["forward"])] = None
    verdict: Annotated[
        Literal["accept", "drop", "queue", "stolen"] | None,
        Meta(description="For `nft_do_chain`: its answer; a reject is a drop to it.", examples=["accept"]),
    ] = None
    reason: Annotated[
        str | None, Meta(description="For functions that drop: the kernel's reason.", examples=["NETFILTER_DROP"])
    ] = None
    optional: Annotated[
        bool,
        Meta(
            description="It may be left out: some kernels have it, others do not. Where it is met before the next "
            "entry that is not optional, it counts.",
            examples=[True],
        ),
    ] = False


PathEntry = Annotated[
    str | Annotated[dict[str, HopDetail], Meta(min_length=1, max_length=1)],
    Meta(
        description="A function, or alternatives `a | b`; as a mapping, with what it must have met.",
        examples=["ip_rcv", "dev_queue_xmit | __dev_queue_xmit", {"nft_do_chain": {"chain": "inet filter forward"}}],
    ),
]


class FlowSeen(Model, frozen=True, kw_only=True):
    """How a `connect` or `exchange` went, and what the program at its other end saw of it."""

    result: Annotated[FlowResult | None, Meta(description="How it went; see `flow`.", examples=["connected"])] = None
    by: Annotated[HostName | None, Meta(description="The host whose program took it.", examples=["server"])] = None
    src: Annotated[
        str | None, Meta(description="The address that the program was called from, after NAT.", examples=["10.0.2.1"])
    ] = None
    sport: Annotated[Port | None, Meta(description="The port that it was called from.", examples=[40000])] = None
    dst: Annotated[
        str | None, Meta(description="The address that it was called at, after NAT.", examples=["10.0.2.2"])
    ] = None
    dport: Annotated[Port | None, Meta(description="The port that it was called at.", examples=[8443])] = None


class Ends(Model, frozen=True, kw_only=True):
    """One direction of a connection, as conntrack knows it; each key given must hold."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["203.0.113.5"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.", examples=["203.0.113.1"])] = None
    sport: Annotated[Port | None, Meta(description="Source port.", examples=[40000])] = None
    dport: Annotated[Port | None, Meta(description="Destination port.", examples=[443])] = None


class Tracked(Model, frozen=True, kw_only=True):
    """The packet's entry in the device's connection tracking, afterwards; each key given must hold."""

    state: Annotated[
        ConntrackState | None,
        Meta(description="Of a TCP connection, as conntrack(8) writes it.", examples=["ESTABLISHED"]),
    ] = None
    status: Annotated[
        Annotated[list[ConntrackStatus], Meta(min_length=1)] | None,
        Meta(
            description="Flags that it has; a `!` before one says that it has not.",
            examples=[["ASSURED"], ["SEEN_REPLY", "!ASSURED"]],
        ),
    ] = None
    mark: Annotated[Number32 | None, Meta(description="Its mark, `ct mark`.", examples=[16])] = None
    zone: Annotated[Word | None, Meta(description="Its zone.", examples=[1])] = None
    helper: Annotated[str | None, Meta(description="Its helper.", examples=["ftp"])] = None
    original: Annotated[
        Ends | None, Meta(description="As the first packet came.", examples=[{"dst": "203.0.113.1", "dport": 443}])
    ] = None
    reply: Annotated[
        Ends | None,
        Meta(description="As answers come, which is where NAT shows.", examples=[{"src": "10.0.2.2", "sport": 8443}]),
    ] = None


class Exactly(Model, frozen=True, kw_only=True):
    """A path without gaps: of the functions that it names, no call but these."""

    exactly: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)],
        Meta(
            description="Functions that the packet meets, in this order. On the hosts that are named, and on the "
            "device where none is, it meets none of these functions at another place or more often.",
            examples=[["ip_rcv", {"nft_do_chain": {"chain": "inet edge forward", "verdict": "accept"}}, "ip_output"]],
        ),
    ]
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers whose other functions are forbidden as well: what it meets of them is all listed.",
            examples=[["NAT"]],
        ),
    ] = None


class Expect(Model, frozen=True, kw_only=True, rename={"with_": "with"}):
    """What must be true of the packet, and of each packet where several are sent. At least one key must be given.

    After `connect` and `exchange`, which are of several packets, it is about the one that decided: the
    first that the ruleset dropped or rejected, on its way or on the way back; when it let all pass, the
    first.
    """

    packets: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_PACKETS)] | None,
        Meta(
            description="In a list of expectations: how many packets this entry is about, from where the one before it "
            "ended. The last one may leave it out: it is about the rest.",
            examples=[5],
        ),
    ] = None
    verdict: Annotated[
        Literal["accept", "drop", "reject", "queue", "stolen", "undecided"] | None,
        Meta(
            description="What the ruleset decides; `undecided` when no base chain sees the packet, as when a flowtable "
            "forwards it.",
            examples=["accept"],
        ),
    ] = None
    with_: Annotated[
        str | None,
        Meta(
            description="For `verdict: reject`: with what, in nft's words.",
            examples=["tcp reset", "icmp port-unreachable", "icmpv6 admin-prohibited"],
        ),
    ] = None
    rule: Annotated[
        str | int | None,
        Meta(
            description="The deciding rule: its text, comment, handle or file:line; or `policy`, or "
            "`inet filter forward policy`.",
            examples=["tcp dport 443 accept", "edge.nft:18", 9, "policy"],
        ),
    ] = None
    rules: Annotated[
        Annotated[list[str | int], Meta(min_length=1)] | None,
        Meta(
            description="Rules and policies that the packet meets, in this order, named as in `rule`; others may stand "
            "between. Met is a rule that said something: a verdict, a jump, or to go on after all its tests held.",
            examples=[["iifname wan0 jump from_wan", "tcp dport 443 accept"]],
        ),
    ] = None
    dropped: Annotated[
        str | Dropped | None,
        Meta(
            description="The kernel's reason to give the packet up, whoever decided it.",
            examples=["NETFILTER_DROP", {"reason": "IP_RPFILTER"}],
        ),
    ] = None
    delivered: Annotated[
        str | Delivered | None,
        Meta(description="The host where the packet arrives, or `nowhere`.", examples=["server", "nowhere"]),
    ] = None
    reply: Annotated[
        Literal["none"] | Sees | None,
        Meta(
            description="What the sender gets in answer, by the device or another host that answers, or `none`.",
            examples=[{"tcp": {"flags": "RA"}}, {"icmp": {"type": "echo-reply"}}, "none"],
        ),
    ] = None
    flow: Annotated[
        FlowResult | FlowSeen | None,
        Meta(
            description="How `connect` or `exchange` went. `connected`: both ends have the connection; `answered`: the "
            "answer came; `refused`: a TCP reset came; `unreachable`: an ICMP error came that a program sees; "
            "`half-open`: only the caller has the connection; `timeout`: nothing came that a program sees, and the "
            "kernel has no packet of it left.",
            examples=["connected", {"result": "answered", "by": "server", "src": "10.0.2.1"}],
        ),
    ] = None
    conntrack: Annotated[
        Literal["none"] | Tracked | None,
        Meta(
            description="The connection that the device's connection tracking has for the packet, or `none`.",
            examples=[{"state": "ESTABLISHED", "status": ["ASSURED"]}, "none"],
        ),
    ] = None
    mark: Annotated[
        Number32 | None,
        Meta(
            description="The packet's mark (`meta mark`) when the last chain or rule of the device spoke of it.",
            examples=[16],
        ),
    ] = None
    log: Annotated[
        str | None,
        Meta(
            description="The prefix of a `log` statement that the device ran for the packet. Seen is the call in the "
            "kernel and the rule; what a kernel writes for other namespaces than its first nobody can read.",
            examples=["refused: "],
        ),
    ] = None
    route: Annotated[
        InterfaceName | None,
        Meta(description="The interface by which the device sends it on, or `lo` to itself.", examples=["lan0"]),
    ] = None
    counters: Annotated[
        Annotated[dict[str, Count], Meta(min_length=1)] | None,
        Meta(
            description="Named counters by family, table and name, and how many packets each counts afterwards, since "
            "the ruleset was loaded.",
            examples=[{"inet filter refused": 1}],
        ),
    ] = None
    elements: Annotated[
        Annotated[dict[str, list[str | int]], Meta(min_length=1)] | None,
        Meta(
            description="Sets and maps by family, table and name, and all elements (of a map: keys) that each has "
            "afterwards, in any order, as nft writes them.",
            examples=[{"inet filter blocked": ["203.0.113.5", "198.51.100.0/24"]}],
        ),
    ] = None
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers that the packet passes on the device, in this order; others may stand between.",
            examples=[["Device", "IPv4", "Netfilter", "Routing", "Xmit"]],
        ),
    ] = None
    path: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | Exactly | None,
        Meta(
            description="Kernel functions that the packet meets, in this order; others may stand between, unless it "
            "says `exactly`.",
            examples=[["ip_rcv", {"nft_do_chain": {"chain": "inet filter forward"}}, "ip_forward"]],
        ),
    ] = None
    never: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | None,
        Meta(
            description="Kernel functions that the packet must not meet.",
            examples=[["kfree_skb_reason | sk_skb_reason_drop"]],
        ),
    ] = None


Expects = Annotated[
    list[Expect],
    Meta(
        min_length=1,
        description="One entry after the other, each about as many packets as it says.",
        examples=[[{"packets": 5, "verdict": "accept"}, {"verdict": "drop"}]],
    ),
]
