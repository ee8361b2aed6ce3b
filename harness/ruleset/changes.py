"""Steps of a scenario that change what a host has loaded, between its packets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from harness.errors import Position
from harness.lab.lab import Host
from harness.ruleset import cgroups, conntrack
from harness.ruleset.hosts import Loadable
from harness.ruleset.load import Ruleset
from harness.scenario.case import Files
from harness.scenario.models.actions import FlushAction, NftAction, ReloadAction

RulesetChange = NftAction | ReloadAction | FlushAction


def apply(
    change: RulesetChange,
    host: Host,
    ruleset: Ruleset,
    files: Files,
    where: Callable[..., Position],
    *,
    hidden: str = "",
) -> Ruleset:
    """Apply ``change`` on ``host``, which has loaded ``files``; its ruleset after that, the same if only elements and
    connections have changed.

    ``where`` gives the position of a value of the step, see :meth:`harness.scenario.case.Case.where`. Tables named
    ``hidden`` are not the user's. Raises as :meth:`Ruleset.load` and :meth:`Ruleset.changed`.
    """
    match change:
        case NftAction(nft=commands):
            host.cgroups.make(cgroups.named(commands))
            return ruleset.changed(
                host,
                commands,
                Path(where("nft").file).absolute().parent,
                defines=files.defines,
                place=lambda line, column: where("nft", at=(line, column)),
                hidden=hidden,
            )
        case ReloadAction(reload=names):
            loadable = Loadable.of(map(Path, [names] if isinstance(names, str) else names), files)
            after = ruleset.reloaded(host, *loadable.paths, defines=files.defines, home=files.project, hidden=hidden)
            loadable.loaded(host)
            return after
        case FlushAction():
            conntrack.flush(host)
            return ruleset
        case _:
            assert_never(change)
