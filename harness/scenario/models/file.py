"""A scenario file and what stands at its top level: scenarios, their steps and rulesets."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from harness.model.fields import HostName, InterfaceName, Model, Name, RulesetFiles
from harness.packets.spec import Send
from harness.scenario.models import marks
from harness.scenario.models.actions import ActionSpec
from harness.scenario.models.expect import Expect, Expects
from harness.topology.spec import LabSpec

VariableName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z][A-Za-z0-9_./-]*$", description="A variable's name, without the `$`.", examples=["wan"]),
]


_WORDS = Meta(
    description="A word or expression on one line, without quotes, braces or semicolons.",
    examples=["wan0"],
)
_PATTERN = r"^[^\s;#\\{}\"][^;#\\{}\"\n]*$"
DefineText = Annotated[str, _WORDS, Meta(pattern=_PATTERN)]
DefineValue = DefineText | int
DefineWords = Annotated[str, _WORDS, Meta(extra_json_schema={"pattern": _PATTERN})]
"""A :data:`DefineText` whose pattern only the schema has. Where a value may be a list or a text with a pattern, msgspec
0.22 takes the pattern for the type of the list's elements, and a garbage collection may crash."""


class Scenario(Model, frozen=True, kw_only=True):
    """One test: a packet and what must happen to it, or several steps in order."""

    name: Annotated[
        Name,
        Meta(
            description="A sentence, unique in the file; it becomes the test's id.",
            examples=["HTTPS from the client reaches the web server"],
        ),
    ]
    send: Annotated[
        Send | UnsetType, Meta(description="The packet.", examples=[{"from": "client", "to": "server", "icmp": {}}])
    ] = UNSET
    expect: Annotated[
        Expect | Expects | UnsetType,
        Meta(description="What must happen to the packet.", examples=[{"verdict": "drop", "rule": "policy"}]),
    ] = UNSET
    steps: Annotated[
        Annotated[list[ActionSpec], Meta(min_length=1)] | UnsetType,
        Meta(
            description="Several steps in order, instead of `send` and `expect`.",
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
            description="Makes one scenario of each entry; its values replace `$name`.",
            examples=[[{"port": 80, "verdict": "accept"}, {"port": 23, "verdict": "drop"}]],
        ),
    ] = UNSET
    matrix: Annotated[
        Annotated[dict[str, Annotated[list[Any], Meta(min_length=1)]], Meta(min_length=1)] | UnsetType,
        Meta(
            description="Like `each`, for every combination of the values.",
            examples=[{"port": [80, 443], "host": ["client", "server"]}],
        ),
    ] = UNSET
    lab: Annotated[
        str | LabSpec | UnsetType, Meta(description="A lab for this scenario alone.", examples=["bridge"])
    ] = UNSET
    interfaces: Annotated[
        dict[InterfaceName, InterfaceName] | UnsetType,
        Meta(
            description="New names for interfaces of the device under test, for this scenario alone. A scenario with "
            "its own `lab` ignores those of the file.",
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
        list[
            Annotated[
                str,
                Meta(
                    pattern=marks.PATTERN,
                    description="A name, or a name with numbers and named values.",
                    examples=["slow", "timeout(60)"],
                ),
            ]
        ],
        Meta(
            description="pytest marks, for `-m` and plugins; with numbers, or numbers and texts by name.",
            examples=[["slow", "timeout(60)", "flaky(reruns=2)", 'xdist_group(name="dhcp")']],
        ),
    ] = []
    may_miss: Annotated[
        list[
            Annotated[
                str,
                Meta(
                    pattern=r"^\S(.{0,198}\S)?$",
                    description="A part of the reason of the skip; case is ignored.",
                    examples=["the kernel has no secmark"],
                ),
            ]
        ],
        Meta(
            description="Missing features that may skip the scenario: each is a part of the reason of the skip. A "
            "scenario that is skipped for such a reason does not count as untested in CI.",
            examples=[["the kernel has no secmark"]],
        ),
    ] = []


class ScenarioFile(Model, frozen=True, kw_only=True):
    """A scenario file: a lab, a ruleset, and what the ruleset must do with which packets."""

    lab: Annotated[
        str | LabSpec,
        Meta(
            description="The name of a built-in lab; a lab of your own, written here; or the path of a file with one, "
            "relative to the scenario file: `labs/NAME.yaml`. The folder must be called `labs`.",
            examples=["router", "labs/office.yaml"],
        ),
    ] = "router"
    interfaces: Annotated[
        dict[InterfaceName, InterfaceName],
        Meta(
            description="New names for interfaces of the device under test, as the ruleset uses them.",
            examples=[{"wan0": "enp1s0", "lan0": "enp2s0"}],
        ),
    ] = {}
    ruleset: Annotated[
        RulesetFiles,
        Meta(
            description="The ruleset of the device under test: an nft file, loaded as by `nft -f`; the output of "
            "iptables-save or ip6tables-save, behind that of ipset save if its rules need sets; a folder of `.nft` "
            "files; or a list of these, loaded in order. Paths are relative to the scenario file and stay within its "
            "project.",
            examples=["rulesets/edge.nft", ["rules.v4", "rules.v6"]],
        ),
    ]
    rulesets: Annotated[
        dict[HostName, RulesetFiles],
        Meta(
            description="Rulesets of other hosts of the lab. Their rules are referred to with the host's name in "
            "front: `edge: tcp dport 22 drop`.",
            examples=[{"edge": "rulesets/edge.nft"}],
        ),
    ] = {}
    defines: Annotated[
        dict[VariableName, DefineWords | int | Annotated[list[DefineValue], Meta(min_length=1)]],
        Meta(
            description="Variables for the rulesets, defined as by `nft -D`; a list becomes a set.",
            examples=[{"wan": "wan0", "open_ports": [80, 443]}],
        ),
    ] = {}
    scenarios: Annotated[
        list[Scenario],
        Meta(
            min_length=1,
            description="The scenarios; each becomes a test.",
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
