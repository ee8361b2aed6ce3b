"""Scenarios as they come out of their files, ready to run or broken; :mod:`harness.scenario.load` makes them.

They travel from the process that reads the files to the one that runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from harness.errors import Position, ScenarioError
from harness.model.node import Node
from harness.packets.spec import Send
from harness.project import Project
from harness.scenario.models.actions import Action, ChangeAction, SendAction
from harness.topology import changes
from harness.topology.network import Network


class Files(msgspec.Struct, frozen=True):
    """What a host loads."""

    paths: tuple[Path, ...]
    """At least one, in the order of loading; absolute, they exist."""
    project: Project
    """The project of who names them: they include nothing from elsewhere, unless its settings allow it."""
    defines: Mapping[str, str] = {}
    """Variables, as ``nft -D`` takes them."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, ready to run."""

    file: Path
    """As it was given to :func:`load`."""
    name: str
    id: str
    """The name as one word, unique in the file: ``HTTPS-from-the-client-reaches-the-web-server``."""
    marks: tuple[str, ...]
    network: Network
    rulesets: Mapping[str, Files]
    """By host, the device under test first."""
    actions: tuple[Action, ...]
    places: Node
    """The scenario as it stands in the file; ask :meth:`where`."""
    may_miss: tuple[str, ...] = ()
    """Words of which one stands in the reason of each skip that is accepted in CI."""

    @property
    def sends(self) -> Iterator[tuple[Send, Network]]:
        """The packets, in order, each with the lab that it is sent in."""
        network = self.network
        for action in self.actions:
            if isinstance(action, SendAction):
                yield action.send, network
            elif isinstance(action, ChangeAction):
                network = changes.plan(action.change, network).network

    @property
    def only_sends(self) -> bool:
        """Whether it sends packets, and that is all: no other step, and no other host loads a ruleset."""
        return all(isinstance(action, SendAction) for action in self.actions) and len(self.rulesets) == 1

    def where(self, action: int, *keys: str | int, at: tuple[int, int] | None = None) -> Position:
        """The place of a value, e.g. ``where(0, "expect", "path", 2)``; else of what is around it.

        ``at`` is a line and column in a text, both from 1.
        """
        steps = ("steps", action) if "steps" in self.places.children else ()
        node = self.places.nearest(*steps, *keys)
        return Position(str(self.file), *(node.at(*at) if at else node.place))


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario that cannot be run because of what is written in it."""

    file: Path
    name: str
    id: str
    marks: tuple[str, ...]
    """Those that are valid, so that ``-m`` chooses it as it would choose the repaired one."""
    errors: tuple[ScenarioError, ...]
    """At least one."""

    @property
    def position(self) -> Position:
        """The place of the first error."""
        return self.errors[0].position


class LoadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """All that a file gives."""

    cases: tuple[Case | Broken, ...]
    """In the order of the file; only the broken ones when the file as a whole is wrong."""
    errors: tuple[ScenarioError, ...]
    """What is wrong with the file as a whole: its YAML, lab or ruleset."""
    rulesets: tuple[Files, ...] = ()
    """Those that it names for its hosts, whether or not there is a scenario without mistakes; where they are known."""
