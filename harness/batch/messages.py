"""What a session of many packets is asked, and what it answers: a line of JSON each, and :data:`END`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from harness.model.observation import Rule
from harness.model.result import PacketResult, Policy

if TYPE_CHECKING:
    from harness.scenario.case import Case

END: Final = b"\n"
"""The line behind the last answer."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A scenario file to be measured: all of its scenarios in one lab, each as if it were alone."""

    file: str
    text: str


class AskedLook(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """A ruleset to be loaded and looked at: the answer is one :class:`~harness.generate.facts.Facts`."""

    paths: tuple[str, ...]


class AskedCases(msgspec.Struct, frozen=True, kw_only=True, tag="cases"):
    """Scenarios to be run, each in a lab of its own."""

    cases: bytes
    """A pickled list: it goes to the kernel that measures, and never comes from there."""
    frames: Mapping[str, bytes] = {}
    """The frames of their packets, built already."""

    @classmethod
    def of(cls, cases: Sequence[Case], frames: Mapping[str, bytes]) -> AskedCases:
        """The request for ``cases``."""
        return cls(cases=pickle.dumps(list(cases)), frames=frames)


Request = Asked | AskedLook | AskedCases


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one scenario."""

    name: str
    kernel: str = ""
    sent: tuple[PacketResult, ...] = ()
    rules: tuple[Rule, ...] = ()
    """The ruleset's; empty where they are those of the scenario before."""
    policies: tuple[Policy, ...] = ()
    """Of its base chains; as ``rules``."""
    sets: Mapping[str, tuple[str, ...]] = {}
    """What named sets and maps hold that no rule changes; as ``rules``."""
    error: str = ""
    """Why it could not be measured: a sentence."""
    is_general: bool = False
    """Whether the error is one of the lab or the ruleset, so that no scenario can be measured."""
    is_broken: bool = False
    """Whether the error is that something could not be observed."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a request has no answer."""

    refused: str
    """A sentence, with its place where there is one."""
