"""What the program that measures mutants is asked, and what it answers, besides :mod:`harness.batch.messages`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.batch.messages import Request as BatchRequest
from harness.model.observation import Place, Rule
from harness.model.result import Policy
from harness.mutate.edits import Edit
from harness.packets.frames import Frame
from harness.ruleset.listing import Chain

if TYPE_CHECKING:
    from harness.scenario.case import Case

Outcome = Literal["killed", "survived", "refused", "same"]
"""``refused``: by nft; ``same``: it is listed as the original is."""


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """A ruleset as a lab has loaded it."""

    kernel: str
    nft: str
    objects: list[dict[str, Any]]
    """What ``nft -j list ruleset`` shows; see libnftables-json(5)."""
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    policies: tuple[Policy, ...]
    fixed: tuple[Place, ...]
    """Rules that nft does not load from its own JSON, or loads as others."""


class AskedStructure(msgspec.Struct, frozen=True, kw_only=True, tag="structure"):
    """The ruleset of a scenario to be loaded: the answer is :class:`Structure`."""

    case: bytes
    """Pickled."""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a scenario under the ruleset as it is."""

    error: str = ""
    """Why it is not used: it fails, or could not be measured; a sentence."""
    evaluated: tuple[Place, ...] = ()
    """Rules that a packet came to, and policies that decided about one."""
    matched: tuple[Place, ...] = ()
    is_open: bool = False
    """Whether packets may have come to other places as well: a step sends some of which nothing is expected, or
    changes the ruleset."""
    seconds: float = 0.0
    kernel: str = ""
    watched: str = ""
    """What was watched: the engine."""


class AskedBaselines(msgspec.Struct, frozen=True, kw_only=True, tag="baselines"):
    """Scenarios with the same lab and ruleset to be run as they are: the answers are a :class:`Baseline` of each."""

    cases: bytes
    """A pickled list."""
    frames: Mapping[str, bytes] = {}


class AskedMutant(msgspec.Struct, frozen=True, kw_only=True):
    """A mutant, and the scenarios to be run until one kills it."""

    edit: Edit
    cases: tuple[int, ...]
    """Numbers of the scenarios, in the order in which they are run."""


class AskedMutants(msgspec.Struct, frozen=True, kw_only=True, tag="mutants"):
    """Mutants of a ruleset, and scenarios with the same lab: the answers are a :class:`Tried` of each mutant."""

    cases: bytes
    """A pickled list."""
    mutants: tuple[AskedMutant, ...]
    objects: list[dict[str, Any]]
    fixed: tuple[Place, ...]
    """Both of the original, see :class:`Structure`."""
    frames: Mapping[str, bytes] = {}
    sift: bool = False
    """Whether nf_tables' trace and the arrivals alone are watched, and no functions."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a mutant."""

    outcome: Outcome
    by: int = -1
    """The number of the scenario that killed it."""
    why: str = ""
    """What that has noticed, or why nft refuses it: a sentence."""
    open: tuple[int, ...] = ()
    """Numbers of scenarios of which not all could be judged, as functions decide about it."""
    broken: tuple[int, ...] = ()
    """Numbers of scenarios that could not be run."""
    texts: tuple[tuple[str, str], ...] = ()
    """Rules that are listed otherwise: as they were, and as they are; "" for none."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Packets for a mutant, or with no ``edit`` for the original."""

    edit: Edit | None
    packets: Sequence[Sequence[Sequence[Frame]]]
    """Of each: the steps in order, each one or more frames."""


class AskedApart(msgspec.Struct, frozen=True, kw_only=True, tag="apart"):
    """Packets for mutants of one ruleset: the answers are those of
    :class:`~harness.batch.messages.AskedEffects`, of each trial one after the other; a mutant that cannot be loaded has
    no :class:`~harness.batch.messages.Loaded`."""

    side: bytes
    """A pickled network, and the files of the ruleset of the device under test."""
    objects: list[dict[str, Any]]
    fixed: tuple[Place, ...]
    """As in :class:`AskedMutants`."""
    trials: tuple[Trial, ...]
    sift: bool = False
    """Whether nf_tables' trace and the arrivals alone are watched, and no functions."""


Request = BatchRequest | AskedStructure | AskedBaselines | AskedMutants | AskedApart


def pickled(cases: Sequence[Case]) -> bytes:
    """``cases`` for a request; they go to the kernel that measures, and never come from there."""
    return pickle.dumps(list(cases))
