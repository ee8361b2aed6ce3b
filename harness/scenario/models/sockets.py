"""The steps of a scenario that use real sockets, or wait for a condition."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from harness.model.fields import Count, HostName, InterfaceName, Model, Number32, Port, Word
from harness.packets.spec import HEX
from harness.scenario.models.expect import Tracked

CgroupPath = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_@:.\\-]*(/[A-Za-z0-9_][A-Za-z0-9_@:.\\-]*){0,15}$",
        max_length=1000,
        description="A cgroup's path from the root, without a leading slash.",
        examples=["system.slice/nginx.service"],
    ),
]


class Content(Model, frozen=True, kw_only=True):
    """What a program sends: bytes in hexadecimal, or any of a size."""

    hex: Annotated[
        Annotated[str, Meta(pattern=HEX)] | None, Meta(description="Bytes in hexadecimal.", examples=["00 01"])
    ] = None
    size: Annotated[
        Annotated[int, Meta(ge=1, le=65507)] | None,
        Meta(
            description="Number of bytes: over TCP, in several segments if needed; over UDP, one datagram, which the "
            "sender fragments if needed.",
            examples=[4000],
        ),
    ] = None


class Listen(Model, frozen=True, kw_only=True):
    """A program that takes connections or requests, until the scenario ends.

    It is a socket of the host's own kernel, so the host has its addresses and answers for itself, as
    do all hosts that `listen`, `connect` or `exchange` name.
    """

    on: Annotated[HostName, Meta(description="The host on which it runs.", examples=["server"])]
    tcp: Annotated[Port | None, Meta(description="Its TCP port, on all addresses.", examples=[443])] = None
    udp: Annotated[Port | None, Meta(description="Its UDP port, on all addresses.", examples=[53])] = None
    transparent: Annotated[
        bool,
        Meta(
            description="Whether it accepts traffic to addresses of other hosts (IP_TRANSPARENT), as `tproxy` "
            "needs, with a route of type `local`.",
            examples=[True],
        ),
    ] = False
    device: Annotated[
        InterfaceName | None,
        Meta(description="The interface or VRF that it is bound to (SO_BINDTODEVICE).", examples=["blue"]),
    ] = None
    cgroup: Annotated[
        CgroupPath | None,
        Meta(
            description="The cgroup (version 2) that it is in, by its path from the root, for `socket cgroupv2`. "
            "Cgroups are made in a microVM only.",
            examples=["system.slice/nginx.service"],
        ),
    ] = None


class Queue(Model, frozen=True, kw_only=True):
    """A program that reads a queue of a ruleset, until the scenario ends.

    Without one, packets for the queue are dropped, or accepted where the rule says `bypass`.
    """

    on: Annotated[
        HostName | None, Meta(description="The host; the device under test unless given.", examples=["edge"])
    ] = None
    number: Annotated[Word, Meta(description="The number of the queue.", examples=[0])] = 0
    verdict: Annotated[
        Literal["accept", "drop", "repeat", "none"],
        Meta(
            description="Its verdict on each packet; `repeat` sends it through the hook again; `none` is a program "
            "that reads nothing, as if it had stopped: packets stay in the queue.",
            examples=["drop"],
        ),
    ] = "accept"
    mark: Annotated[Number32 | None, Meta(description="The mark that it sets.", examples=[1])] = None
    replace: Annotated[
        dict[str, str],
        Meta(
            description="Texts in the packet and their replacements of the same length; checksums are corrected.",
            examples=[{"GET": "PUT"}],
        ),
    ] = {}


SourcePort = Annotated[Annotated[int, Meta(ge=1, le=65535)], Meta(description="The source port.", examples=[50001])]
Family = Annotated[
    Literal["ip", "ip6"] | None,
    Meta(description="The IP version where `to` is a host that has both; `ip` unless given.", examples=["ip6"]),
]


class Connect(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A TCP connection between the kernels of both ends, with a real handshake, NAT and connection tracking.

    It stays until the scenario ends, or until it fails.
    """

    from_: Annotated[
        HostName, Meta(description="The host that connects; it may be the device under test.", examples=["client"])
    ]
    to: Annotated[
        str,
        Meta(
            description="The destination: an address, or a host of the lab, which stands for its address that faces "
            "the sender.",
            examples=["server", "203.0.113.1"],
        ),
    ]
    tcp: Annotated[Port, Meta(description="The destination port.", examples=[443])]
    sport: SourcePort = 40000
    family: Family = None
    device: Annotated[
        InterfaceName | None,
        Meta(
            description="The interface or VRF that the socket is bound to (SO_BINDTODEVICE).",
            examples=["blue"],
        ),
    ] = None
    mark: Annotated[Number32 | None, Meta(description="The mark of the socket's packets (SO_MARK).", examples=[1])] = (
        None
    )
    cgroup: Annotated[
        CgroupPath | None,
        Meta(
            description="The cgroup (version 2) that the program is in, as in `listen`.",
            examples=["user.slice/user-1000.slice"],
        ),
    ] = None


class Exchange(Model, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A request from one program and the answer of another that listens.

    Over TCP it uses the connection that an earlier `connect` to the same destination has made.
    """

    from_: Annotated[
        HostName,
        Meta(description="The host that sends the request; it may be the device under test.", examples=["client"]),
    ]
    to: Annotated[
        str,
        Meta(
            description="The destination: an address, or a host of the lab, which stands for its address that faces "
            "the sender.",
            examples=["server", "203.0.113.1"],
        ),
    ]
    tcp: Annotated[Port | None, Meta(description="The destination port of the connection.", examples=[443])] = None
    udp: Annotated[Port | None, Meta(description="The destination port of the request.", examples=[53])] = None
    sport: SourcePort = 40000
    family: Family = None
    device: Annotated[
        InterfaceName | None,
        Meta(
            description="The interface or VRF that the socket is bound to (SO_BINDTODEVICE); over TCP that of its "
            "`connect` is used.",
            examples=["blue"],
        ),
    ] = None
    mark: Annotated[
        Number32 | None,
        Meta(
            description="The mark of the socket's packets (SO_MARK); over TCP that of its `connect` is used.",
            examples=[1],
        ),
    ] = None
    cgroup: Annotated[
        CgroupPath | None,
        Meta(
            description="The cgroup (version 2) that the program is in, as in `listen`; over TCP that of its `connect` "
            "is used.",
            examples=["user.slice/user-1000.slice"],
        ),
    ] = None
    request: Annotated[
        str | Content,
        Meta(
            description="The request: UTF-8 text, bytes in hexadecimal, or a size.",
            examples=["GET / HTTP/1.0", {"hex": "00 01"}, {"size": 4000}],
        ),
    ] = "request"
    answer: Annotated[
        str | Content,
        Meta(description="The answer of the listening program.", examples=["200 OK", {"hex": "80 01"}, {"size": 9000}]),
    ] = "answer"


class Wait(Model, frozen=True, kw_only=True):
    """A wait for conditions, not for a fixed time. All given conditions must become true."""

    elements: Annotated[
        Annotated[dict[str, list[str | int]], Meta(min_length=1)] | None,
        Meta(
            description="Sets and maps, as in `expect`: each holds exactly these elements. A set whose elements time "
            "out ends up empty.",
            examples=[{"inet filter banned": []}],
        ),
    ] = None
    conntrack: Annotated[
        Literal["none"] | Tracked | None,
        Meta(
            description="The device's connection tracking table is empty, or has such an entry.",
            examples=["none", {"state": "TIME_WAIT"}],
        ),
    ] = None
    connections: Annotated[
        Count | Annotated[dict[HostName, Count], Meta(min_length=1)] | None,
        Meta(
            description="How many connections the device tracks, or each of the hosts named.",
            examples=[0, {"edge": 0}],
        ),
    ] = None
    within: Annotated[
        Annotated[float, Meta(gt=0, le=600)],
        Meta(description="Timeout in seconds; when it expires, the scenario is an error.", examples=[30]),
    ] = 10
