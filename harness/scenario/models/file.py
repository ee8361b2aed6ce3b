"""A scenario file and what stands at its top level: scenarios, their steps and rulesets."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from harness.model.fields import HostName, InterfaceName, Keys, Model, Name
from harness.packets.spec import Send
from harness.scenario.models.expect import Expect, Expects
from harness.scenario.models.sockets import Connect, Exchange, Listen, Wait
from harness.topology.spec import LabSpec

RulesetFiles = str | Annotated[list[str], Meta(min_length=1)]


VariableName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z][A-Za-z0-9_./-]*$", description="A variable's name, without the `$`.", examples=["wan"]),
]


DefineValue = (
    Annotated[
        str,
        Meta(
            pattern=r"^[^\s;#\\{}\"][^;#\\{}\"\n]*$",
            description="A word or expression on one line, without quotes, braces and semicolons.",
            examples=["wan0"],
        ),
    ]
    | int
)


class Action(Model, frozen=True, kw_only=True):
    """One thing done, and what must become of it: a packet sent, a flow of real sockets, or what prepares them."""

    send: Annotated[
        Send | UnsetType, Meta(description="The packet.", examples=[{"from": "client", "to": "server", "icmp": {}}])
    ] = UNSET
    nft: Annotated[
        str | UnsetType,
        Meta(
            description="Instead of a packet: an nft command that changes elements of a set or map.",
            examples=["add element inet edge blocked { 203.0.113.5 }"],
        ),
    ] = UNSET
    listen: Annotated[
        Listen | UnsetType,
        Meta(
            description="Instead of a packet: a program that listens from now on.",
            examples=[{"on": "server", "tcp": 443}],
        ),
    ] = UNSET
    connect: Annotated[
        Connect | UnsetType,
        Meta(
            description="Instead of a packet: a TCP connection between the kernels of two hosts.",
            examples=[{"from": "client", "to": "server", "tcp": 443}],
        ),
    ] = UNSET
    exchange: Annotated[
        Exchange | UnsetType,
        Meta(
            description="Instead of a packet: a request and its answer, by UDP or through a TCP connection.",
            examples=[{"from": "client", "to": "server", "udp": 53}],
        ),
    ] = UNSET
    wait: Annotated[
        Wait | UnsetType,
        Meta(
            description="Instead of a packet: a wait for a fact.",
            examples=[{"elements": {"inet filter banned": []}, "within": 30}],
        ),
    ] = UNSET
    expect: Annotated[
        Expect | Expects | UnsetType,
        Meta(
            description="What must become of it. Without it the packet only sets the stage, as the first of a flow.",
            examples=[{"verdict": "accept"}],
        ),
    ] = UNSET

    @property
    def entries(self) -> tuple[tuple[Keys, Expect], ...]:
        """All that is expected, however it is written, and where each stands below the action."""
        if isinstance(self.expect, list):
            return tuple((("expect", index), expect) for index, expect in enumerate(self.expect))
        return () if self.expect is UNSET else ((("expect",), self.expect),)

    def expected_of(self, count: int) -> tuple[tuple[Keys, Expect], ...]:
        """What is expected of each of ``count`` packets, and where that stands below the action."""
        each: list[tuple[Keys, Expect]] = []
        for keys, expect in self.entries or ((("expect",), Expect()),):
            each += [(keys, expect)] * (count - len(each) if expect.packets is None else expect.packets)
        return tuple(each)


class Scenario(Model, frozen=True, kw_only=True):
    """One test: a packet and what must become of it, or several steps in a row."""

    name: Annotated[
        Name,
        Meta(
            description="A sentence that no other scenario of the file has; it becomes the test's id.",
            examples=["HTTPS from the client reaches the web server"],
        ),
    ]
    send: Annotated[
        Send | UnsetType, Meta(description="The packet.", examples=[{"from": "client", "to": "server", "icmp": {}}])
    ] = UNSET
    expect: Annotated[
        Expect | Expects | UnsetType,
        Meta(description="What must become of the packet.", examples=[{"verdict": "drop", "rule": "policy"}]),
    ] = UNSET
    steps: Annotated[
        Annotated[list[Action], Meta(min_length=1)] | UnsetType,
        Meta(
            description="Several packets and flows in order, instead of `send` and `expect`.",
            examples=[
                [
                    {"send": {"from": "client", "to": "server", "tcp": {"dport": 443}}},
                    {
                        "send": {
                            "from": "server",
                            "to": "client",
                            "tcp": {"sport": 443, "dport": 40000, "flags": "SA"},
                        },
                        "expect": {"verdict": "accept"},
                    },
                ]
            ],
        ),
    ] = UNSET
    each: Annotated[
        Annotated[list[Annotated[dict[str, Any], Meta(min_length=1)]], Meta(min_length=1)] | UnsetType,
        Meta(
            description="Makes a scenario of each entry, whose values take the place of `$name` in it.",
            examples=[[{"port": 80, "verdict": "accept"}, {"port": 23, "verdict": "drop"}]],
        ),
    ] = UNSET
    matrix: Annotated[
        Annotated[dict[str, Annotated[list[Any], Meta(min_length=1)]], Meta(min_length=1)] | UnsetType,
        Meta(
            description="As `each`, for every combination of the values.",
            examples=[{"port": [80, 443], "host": ["client", "server"]}],
        ),
    ] = UNSET
    lab: Annotated[
        str | LabSpec | UnsetType, Meta(description="A lab for this scenario alone.", examples=["bridge"])
    ] = UNSET
    interfaces: Annotated[
        dict[InterfaceName, InterfaceName] | UnsetType,
        Meta(
            description="New names for interfaces of the device under test, for this scenario alone. With a `lab` of "
            "its own a scenario does not use those of the file.",
            examples=[{"eth0": "ens3"}],
        ),
    ] = UNSET
    ruleset: Annotated[
        RulesetFiles | UnsetType,
        Meta(
            description="A ruleset for this scenario alone; with `matrix`, the same scenario for several.",
            examples=["rulesets/edge-next.nft"],
        ),
    ] = UNSET
    marks: Annotated[
        list[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="A name.", examples=["slow"])]],
        Meta(description="pytest marks, for `-m`.", examples=[["slow"]]),
    ] = []
    may_miss: Annotated[
        list[
            Annotated[
                str,
                Meta(
                    pattern=r"^\S(.{0,198}\S)?$",
                    description="A part of the reason of the skip, upper or lower case.",
                    examples=["the kernel has no secmark"],
                ),
            ]
        ],
        Meta(
            description="What the scenario needs and may miss, each as a part of the reason of the skip: skipped for "
            "that, it is no scenario that a run in CI has left untested.",
            examples=[["the kernel has no secmark"]],
        ),
    ] = []


class ScenarioFile(Model, frozen=True, kw_only=True):
    """A scenario file: a lab, a ruleset, and what the ruleset must do with which packets."""

    lab: Annotated[
        str | LabSpec,
        Meta(
            description="A built-in lab by its name; a lab of your own, written here; or one in a file: "
            "`labs/NAME.yaml`, seen from the scenario file. The folder must be called `labs`.",
            examples=["router", "labs/office.yaml"],
        ),
    ] = "router"
    interfaces: Annotated[
        dict[InterfaceName, InterfaceName],
        Meta(
            description="New names for interfaces of the device under test, as the ruleset has them.",
            examples=[{"wan0": "enp1s0", "lan0": "enp2s0"}],
        ),
    ] = {}
    ruleset: Annotated[
        RulesetFiles,
        Meta(
            description="nft file to load in the device under test, as `nft -f` would; or a file of iptables-save or "
            "ip6tables-save, a folder of `.nft` files, or a list of these, loaded in order; seen from the scenario "
            "file, and within the same project.",
            examples=["rulesets/edge.nft", ["rules.v4", "rules.v6"]],
        ),
    ]
    rulesets: Annotated[
        dict[HostName, RulesetFiles],
        Meta(
            description="What other hosts of the lab load. Their rules are named with the host: `edge: tcp dport 22 "
            "drop`.",
            examples=[{"edge": "rulesets/edge.nft"}],
        ),
    ] = {}
    defines: Annotated[
        dict[VariableName, DefineValue | Annotated[list[DefineValue], Meta(min_length=1)]],
        Meta(
            description="Variables for the rulesets, as `nft -D` sets them; a list becomes a set.",
            examples=[{"wan": "wan0", "open_ports": [80, 443]}],
        ),
    ] = {}
    scenarios: Annotated[
        list[Scenario],
        Meta(
            min_length=1,
            description="The scenarios; each is a test.",
            examples=[
                [
                    {
                        "name": "Nobody reaches SSH from outside",
                        "send": {"from": "client", "to": "device", "tcp": {"dport": 22}},
                        "expect": {"verdict": "drop", "rule": "policy", "delivered": "nowhere"},
                    }
                ]
            ],
        ),
    ]
