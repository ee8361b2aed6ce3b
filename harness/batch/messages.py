"""What a session of many packets is asked, and what it answers: a line of JSON each, and :data:`END`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from harness.model.observation import Connection, Place, Rule
from harness.model.result import PacketResult, Policy
from harness.packets.frames import Frame
from harness.ruleset.listing import Chain

if TYPE_CHECKING:
    from harness.scenario.case import Case

END: Final = b"\n"
"""The line behind the last answer."""


class AskedLook(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """A ruleset to be loaded and looked at: the answer is one :class:`~harness.generate.facts.Facts`."""

    paths: tuple[str, ...]


class AskedCases(msgspec.Struct, frozen=True, kw_only=True, tag="cases"):
    """Scenarios to be run, each in a lab of its own or as if it were."""

    cases: bytes
    """A pickled list: it goes to the kernel that measures, and never comes from there."""
    frames: Mapping[str, bytes] = {}
    """The frames of their packets, built already."""
    in_one_lab: bool = False
    """Whether what a packet leaves behind is taken back before the next one, instead of a lab for each."""

    @classmethod
    def of(cls, cases: Sequence[Case], frames: Mapping[str, bytes], *, in_one_lab: bool = False) -> AskedCases:
        """The request for ``cases``."""
        return cls(cases=pickle.dumps(list(cases)), frames=frames, in_one_lab=in_one_lab)


class AskedEffects(msgspec.Struct, frozen=True, kw_only=True, tag="effects"):
    """Packets for one ruleset: the answers are :class:`Loaded`, and :class:`Effects` or :class:`Sifted` of each."""

    side: bytes
    """A pickled network, and the files of the ruleset of the device under test."""
    packets: Sequence[Sequence[Sequence[Frame]]]
    """Of each: the steps in order, each one or more frames."""
    sift: bool = False
    """Whether nf_tables' trace and the arrivals alone are watched, and no functions."""


class AskedOptimized(msgspec.Struct, frozen=True, kw_only=True, tag="optimized"):
    """A ruleset to be loaded by ``nft --optimize``: the answer is one :class:`Listed`."""

    side: bytes
    """As in :class:`AskedEffects`."""


Request = AskedLook | AskedCases | AskedEffects | AskedOptimized


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


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A ruleset as nft lists it."""

    listing: str


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """What messages of nf_tables' trace are read with."""

    device: str
    """Name of the host that they come from."""
    chains: tuple[Chain, ...]
    table: str
    """Name of the tables of tracing chains."""
    interfaces: Mapping[int, str]
    """Of the device, by their indexes."""


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """What a ruleset has besides its rules that depends on time."""

    limits: Mapping[str, str] = {}
    """Named limits by family, table and name, as a rule would have them: ``limit rate 5/second burst 5 packets``."""
    elements: Mapping[str, float] = {}
    """Seconds that elements of sets and maps stay at least, by family, table and name; not of those that stay."""
    loaded: float | None = None
    """Seconds that the first to expire of the elements stays that the ruleset is loaded with."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """The ruleset that was loaded."""

    kernel: str
    rules: tuple[Rule, ...]
    policies: tuple[Policy, ...]
    whole: bool = True
    """Whether functions are watched, and not tracepoints only."""
    timed: Timed = Timed()
    traced: Traced | None = None
    """Where packets are sifted: the answers are then :class:`Sifted`."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What a ruleset did with one packet."""

    verdict: str
    """``accept``, ``reject with tcp reset``, ``undecided``."""
    decided: tuple[Place, ...]
    """What decided, as reports show it: for an accept all, else the last."""
    met: tuple[Place, ...]
    """Rules that matched and policies that decided, in order."""
    came: tuple[Place, ...] = ()
    """Where it and its answers left chains: the last rule that each came to, or with handle 0 the chain's end."""
    arrived: tuple[str, ...] = ()
    """Host, interface and headers of each frame that arrived."""
    answers: tuple[str, ...] = ()
    """Host and headers of each frame that was sent in answer."""
    mark: int = 0
    """Of the packet when the ruleset last spoke."""
    logs: tuple[str, ...] = ()
    """The log statements that it met."""
    elements: Mapping[str, tuple[str, ...]] = {}
    """What the sets hold to which the rules that it met add, by family, table and name."""
    connections: tuple[str, ...] = ()
    """What is tracked, without timeouts."""
    hooks: tuple[str, ...] = ()
    """The hooks at which chains decided about it and about answers, each with the verdict; each run of equal ones
    once."""
    ended: str = ""
    """Where the kernel itself gave it up: function and reason."""
    by_chance: str = ""
    """The rule by which chance or the clock decides about it."""
    counts_connections: bool = False
    """Whether it, or one sent with it, may have come to ``ct count``."""
    age_s: float = 0.0
    """Seconds since the ruleset was as just loaded, at most."""
    certain_s: float | None = None
    """Seconds within which time decides nothing about it: after that a limit may have more tokens, or an element be
    gone; None if it never does."""


class Effects(msgspec.Struct, frozen=True, kw_only=True, tag="effects"):
    """What a ruleset did with the packets of one request, in order."""

    seen: tuple[Effect, ...] = ()
    error: str = ""
    """Why they could not be measured."""


class Sighting(msgspec.Struct, frozen=True, array_like=True):
    """What was seen of one frame that was sent, as the kernel gave it."""

    messages: tuple[bytes, ...]
    """Datagrams of nf_tables' trace, see :mod:`harness.ruleset.nftrace`."""
    arrived: tuple[tuple[str, str, bytes], ...]
    """Host, interface and bytes of each frame that arrived."""


class SiftedStep(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of the frames of one step, in order, and what they left behind."""

    sightings: tuple[Sighting, ...]
    elements: Mapping[str, tuple[str, ...]] = {}
    """As of :class:`Effect`."""
    connections: tuple[Connection, ...] = ()
    """What is tracked, where rules may change of connections what no packet shows."""
    age_s: float = 0.0
    """As of :class:`Effect`."""


class Sifted(msgspec.Struct, frozen=True, kw_only=True, tag="sifted"):
    """What was seen of a packet and those before it; :mod:`harness.batch.sighting` makes :class:`Effects` of it."""

    steps: tuple[SiftedStep, ...] = ()
    error: str = ""
    """Why that could not be observed."""
