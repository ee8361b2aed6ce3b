"""The expectations of a scenario."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from harness.model.fields import MOST_PACKETS, Count, HostName, Model, Number32, PortChoice, Word
from harness.packets.spec import Sees

FlowResult = Literal["connected", "answered", "refused", "unreachable", "half-open", "timeout", "unsent"]


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
    """Where the packet must arrive, and with which header fields."""

    to: Annotated[str, Meta(description="A host, alternatives `a | b`, or `nowhere`.", examples=["server", "nowhere"])]
    sees: Annotated[
        Sees | None, Meta(description="Header fields on arrival, after NAT.", examples=[{"src": "203.0.113.1"}])
    ] = None

    @classmethod
    def of(cls, written: str | Delivered) -> Delivered:
        """The long form."""
        return cls(to=written) if isinstance(written, str) else written


class Dropped(Model, frozen=True, kw_only=True):
    """How the kernel dropped the packet; each key given must hold."""

    reason: Annotated[
        str | None,
        Meta(
            description="The drop reason without `SKB_DROP_REASON_`, or alternatives `a | b`, since kernels differ.",
            examples=["NETFILTER_DROP", "IP_RPFILTER", "IP_INHDR | NOT_SPECIFIED"],
        ),
    ] = None
    function: Annotated[
        str | None,
        Meta(
            description="The function that dropped it, or alternatives.",
            examples=["ip_rcv_finish_core", "ip_forward | ip6_forward"],
        ),
    ] = None
    host: Annotated[
        HostName | None, Meta(description="The host; the device under test unless given.", examples=["edge"])
    ] = None

    @classmethod
    def of(cls, written: str | Dropped) -> Dropped:
        """The long form."""
        return cls(reason=written) if isinstance(written, str) else written


class HopDetail(Model, frozen=True, kw_only=True):
    """Details of a function call in a path; each key given must hold."""

    host: Annotated[
        HostName | None, Meta(description="The host; the device under test unless given.", examples=["server"])
    ] = None
    device: Annotated[str | None, Meta(description="The interface in `skb->dev`.", examples=["wan0"])] = None
    chain: Annotated[
        str | None, Meta(description="For `nft_do_chain`: family, table and chain.", examples=["inet filter forward"])
    ] = None
    hook: Annotated[str | None, Meta(description="For `nft_do_chain`: the hook.", examples=["forward"])] = None
    verdict: Annotated[
        Literal["accept", "drop", "queue", "stolen"] | None,
        Meta(description="For `nft_do_chain`: its verdict; a reject counts as a drop.", examples=["accept"]),
    ] = None
    reason: Annotated[
        str | None, Meta(description="For functions that drop: the drop reason.", examples=["NETFILTER_DROP"])
    ] = None
    optional: Annotated[
        bool,
        Meta(
            description="The entry may be absent, for functions that only some kernels have. It is matched where it "
            "occurs before the next entry that is not optional.",
            examples=[True],
        ),
    ] = False


PathEntry = Annotated[
    str | Annotated[dict[str, HopDetail], Meta(min_length=1, max_length=1)],
    Meta(
        description="A function, or alternatives `a | b`; as a mapping, with details of the call.",
        examples=["ip_rcv", "dev_queue_xmit | __dev_queue_xmit", {"nft_do_chain": {"chain": "inet filter forward"}}],
    ),
]


class FlowSeen(Model, frozen=True, kw_only=True):
    """The result of a `connect` or `exchange`, and what the program at the other end saw of it."""

    result: Annotated[FlowResult | None, Meta(description="The result; see `flow`.", examples=["connected"])] = None
    by: Annotated[
        str | None,
        Meta(description="The host whose program accepted it, or alternatives `a | b`.", examples=["server"]),
    ] = None
    src: Annotated[
        str | None,
        Meta(
            description="The source address that the program sees, after NAT, or alternatives.", examples=["10.0.2.1"]
        ),
    ] = None
    sport: Annotated[
        PortChoice | None, Meta(description="The source port that the program sees, or alternatives.", examples=[40000])
    ] = None
    dst: Annotated[
        str | None,
        Meta(
            description="The destination address that the program sees, after NAT, or alternatives.",
            examples=["10.0.2.2"],
        ),
    ] = None
    dport: Annotated[
        PortChoice | None,
        Meta(description="The destination port that the program sees, or alternatives.", examples=[8443]),
    ] = None
    error: Annotated[
        Annotated[str, Meta(pattern="^E[A-Z0-9]+$")] | None,
        Meta(
            description="The name of the errno, if the calling host's kernel refuses the call at once.",
            examples=["ENETUNREACH", "EPERM"],
        ),
    ] = None

    @classmethod
    def of(cls, written: FlowResult | FlowSeen) -> FlowSeen:
        """The long form."""
        return written if isinstance(written, FlowSeen) else cls(result=written)


class Ends(Model, frozen=True, kw_only=True):
    """One direction of a connection tracking entry; each key given must hold."""

    src: Annotated[str | None, Meta(description="Source address.", examples=["203.0.113.5"])] = None
    dst: Annotated[str | None, Meta(description="Destination address.", examples=["203.0.113.1"])] = None
    sport: Annotated[PortChoice | None, Meta(description="Source port.", examples=[40000])] = None
    dport: Annotated[PortChoice | None, Meta(description="Destination port.", examples=[443])] = None


class Tracked(Model, frozen=True, kw_only=True):
    """An entry in a connection tracking table; each key given must hold."""

    host: Annotated[
        HostName | None, Meta(description="The host; the device under test unless given.", examples=["edge"])
    ] = None
    state: Annotated[
        ConntrackState | None,
        Meta(description="State of a TCP connection, as conntrack(8) writes it.", examples=["ESTABLISHED"]),
    ] = None
    status: Annotated[
        Annotated[list[ConntrackStatus], Meta(min_length=1)] | None,
        Meta(
            description="Flags that are set; with a leading `!`, that are not set.",
            examples=[["ASSURED"], ["SEEN_REPLY", "!ASSURED"]],
        ),
    ] = None
    mark: Annotated[Number32 | None, Meta(description="Connection mark, `ct mark`.", examples=[16])] = None
    zone: Annotated[Word | None, Meta(description="Conntrack zone.", examples=[1])] = None
    helper: Annotated[str | None, Meta(description="Conntrack helper, or `none`.", examples=["ftp", "none"])] = None
    timeout: Annotated[
        Annotated[list[int], Meta(min_length=2, max_length=2)] | None,
        Meta(
            description="The seconds after which the entry expires: at least, and at most.",
            examples=[[1, 30]],
        ),
    ] = None
    original: Annotated[
        Ends | None,
        Meta(
            description="The original direction, as the first packet was sent.",
            examples=[{"dst": "203.0.113.1", "dport": 443}],
        ),
    ] = None
    reply: Annotated[
        Ends | None,
        Meta(
            description="The reply direction, in which NAT is visible.", examples=[{"src": "10.0.2.2", "sport": 8443}]
        ),
    ] = None


class Exactly(Model, frozen=True, kw_only=True):
    """A complete path: the functions that it names are called nowhere else."""

    exactly: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)],
        Meta(
            description="Functions that the packet passes, in this order. On the hosts that are named (the device "
            "where none is) it passes none of these functions anywhere else or more often.",
            examples=[["ip_rcv", {"nft_do_chain": {"chain": "inet edge forward", "verdict": "accept"}}, "ip_output"]],
        ),
    ]
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers whose other functions are forbidden as well: the list names all of their functions "
            "that the packet passes.",
            examples=[["NAT"]],
        ),
    ] = None


class Expect(Model, frozen=True, kw_only=True, rename={"with_": "with"}):
    """What must be true of the packet, or of each packet if several are sent. At least one key must be given. After
    `connect` and `exchange`, which send several packets, it applies to the first that the ruleset dropped or
    rejected, in either direction; if it accepted all, to the first.
    """

    packets: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_PACKETS)] | None,
        Meta(
            description="In a list of expectations: the number of packets that this entry applies to, after those of "
            "the entry before. The last entry may leave it out: it applies to the rest.",
            examples=[5],
        ),
    ] = None
    verdict: Annotated[
        Literal["accept", "drop", "reject", "queue", "stolen", "undecided"] | None,
        Meta(
            description="What the ruleset decides; `undecided` when no base chain sees the packet, as when a "
            "flowtable forwards it.",
            examples=["accept"],
        ),
    ] = None
    with_: Annotated[
        str | None,
        Meta(
            description="For `verdict: reject`: the answer that is sent, as nft writes it.",
            examples=["tcp reset", "icmp port-unreachable", "icmpv6 admin-prohibited"],
        ),
    ] = None
    rule: Annotated[
        str | int | None,
        Meta(
            description="The deciding rule: its text, comment, handle or file:line; or `policy`, or `inet filter "
            "forward policy`.",
            examples=["tcp dport 443 accept", "edge.nft:18", 9, "policy"],
        ),
    ] = None
    rules: Annotated[
        Annotated[list[str | int], Meta(min_length=1)] | None,
        Meta(
            description="Rules and policies that the packet meets, in this order, named as in `rule`; others may come "
            "between. A packet meets a rule whose expressions all match, whether it issues a verdict, jumps, or "
            "continues.",
            examples=[["iifname wan0 jump from_wan", "tcp dport 443 accept"]],
        ),
    ] = None
    dropped: Annotated[
        str | Dropped | None,
        Meta(
            description="The reason for which the kernel drops the packet, whether or not the ruleset decided it.",
            examples=["NETFILTER_DROP", {"reason": "IP_RPFILTER"}],
        ),
    ] = None
    delivered: Annotated[
        str | Delivered | None,
        Meta(
            description="The host where the packet arrives, alternatives `a | b`, or `nowhere`.",
            examples=["server", "server | backup", "nowhere"],
        ),
    ] = None
    reply: Annotated[
        Literal["none"] | Sees | None,
        Meta(
            description="What the sender receives in reply, from the device or another host that answers, or `none`.",
            examples=[{"tcp": {"flags": "RA"}}, {"icmp": {"type": "echo-reply"}}, "none"],
        ),
    ] = None
    flow: Annotated[
        FlowResult | FlowSeen | None,
        Meta(
            description="The result of `connect` or `exchange`. `connected`: established at both ends; `answered`: "
            "the answer arrived; `refused`: a TCP reset arrived; `unreachable`: an ICMP error arrived that is "
            "reported to the program; `half-open`: established at the caller only; `timeout`: nothing arrived that is "
            "reported to the program, and the kernel has none of its packets left; `unsent`: the kernel of the "
            "calling host refused the call at once, so that no packet was sent.",
            examples=["connected", {"result": "answered", "by": "server", "src": "10.0.2.1"}],
        ),
    ] = None
    conntrack: Annotated[
        Literal["none"] | Tracked | None,
        Meta(
            description="The packet's entry in the device's connection tracking table afterwards, or `none`.",
            examples=[{"state": "ESTABLISHED", "status": ["ASSURED"]}, "none"],
        ),
    ] = None
    connections: Annotated[
        Count | Annotated[dict[HostName, Count], Meta(min_length=1)] | None,
        Meta(
            description="How many connections the device tracks afterwards, or each of the hosts named.",
            examples=[1, {"device": 1, "edge": 0}],
        ),
    ] = None
    mark: Annotated[
        Number32 | None,
        Meta(
            description="The packet's mark (`meta mark`) in the last evaluation of a rule or chain on the device.",
            examples=[16],
        ),
    ] = None
    log: Annotated[
        str | None,
        Meta(
            description="The prefix of a `log` statement that was executed for the packet on the device. It is "
            "derived from the kernel's call and the rule; the log itself is not read, since a kernel writes none for "
            "namespaces other than the initial one.",
            examples=["refused: "],
        ),
    ] = None
    route: Annotated[
        str | None,
        Meta(
            description="The interface by which the device sends the packet on, alternatives `a | b`, or `lo` where it "
            "delivers it locally.",
            examples=["lan0", "wan0 | wan1"],
        ),
    ] = None
    counters: Annotated[
        Annotated[dict[str, Count], Meta(min_length=1)] | None,
        Meta(
            description="Named counters by family, table and name, with another host's name in front, and the number "
            "of packets that each has counted since the ruleset was loaded.",
            examples=[{"inet filter refused": 1, "edge: inet border refused": 0}],
        ),
    ] = None
    elements: Annotated[
        Annotated[dict[str, list[str | int]], Meta(min_length=1)] | None,
        Meta(
            description="Sets and maps by family, table and name, with another host's name in front, and all elements "
            "(of a map: its keys) that each holds afterwards, in any order, as nft writes them.",
            examples=[{"inet filter blocked": ["203.0.113.5", "198.51.100.0/24"]}],
        ),
    ] = None
    layers: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(
            description="Layers that the packet passes on the device, in this order; others may come between.",
            examples=[["Device", "IPv4", "Netfilter", "Routing", "Xmit"]],
        ),
    ] = None
    path: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | Exactly | None,
        Meta(
            description="Kernel functions that the packet passes, in this order; others may come between, except with "
            "`exactly`.",
            examples=[["ip_rcv", {"nft_do_chain": {"chain": "inet filter forward"}}, "ip_forward"]],
        ),
    ] = None
    never: Annotated[
        Annotated[list[PathEntry], Meta(min_length=1)] | None,
        Meta(
            description="Kernel functions that the packet must not pass.",
            examples=[["kfree_skb_reason | sk_skb_reason_drop"]],
        ),
    ] = None


Expects = Annotated[
    list[Expect],
    Meta(
        min_length=1,
        description="Entries in order, each applying to as many packets as it says.",
        examples=[[{"packets": 5, "verdict": "accept"}, {"verdict": "drop"}]],
    ),
]
