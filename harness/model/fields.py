"""Types that the values of a scenario file have in common, and the base class of its models."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Keys = tuple[str | int, ...]


"""The way to a value, e.g. ``("send", "tcp", "dport")``."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the language: immutable and strict."""


Name = Annotated[str, Meta(min_length=1, max_length=200)]


HostName = Annotated[
    str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$", description="A host of the lab.", examples=["client"])
]


InterfaceName = Annotated[
    str,
    Meta(
        pattern=r"^[^\s/:]{1,15}$",
        description="An interface as the kernel names it: up to 15 characters, no space, `/` or `:`.",
        examples=["wan0"],
    ),
]


Mac = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$",
        description="An Ethernet address.",
        examples=["02:00:00:00:00:01"],
    ),
]


Byte = Annotated[int, Meta(ge=0, le=255)]


Word = Annotated[int, Meta(ge=0, le=65535)]


Port = Word


PortChoice = Port | Annotated[str, Meta(pattern=r"^\d{1,5}( *\| *\d{1,5})+$")]
"""A port, or alternatives."""


def alternatives(value: str | int) -> tuple[str | int, ...]:
    """The values that ``value`` of an expectation allows: those of ``a | b``, or itself. Numbers are numbers."""
    if not isinstance(value, str) or "|" not in value:
        return (value,)
    return tuple(int(one) if one.isascii() and one.isdigit() else one for one in map(str.strip, value.split("|")))


Number32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


Count = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


CodePoint = Annotated[int, Meta(ge=0, le=63)]


MOST_PACKETS = 1000


"""Packets that one ``send`` may make."""


VlanId = Annotated[int, Meta(ge=0, le=4094)]


AnyAddress = Annotated[str, Meta(description="An IPv4 or IPv6 address.", examples=["10.0.0.1"])]


RulesetFiles = str | Annotated[list[str], Meta(min_length=1)]
"""Paths of a ruleset's files, relative to the scenario file."""
