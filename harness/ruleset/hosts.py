"""A lab whose hosts have loaded their rulesets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from harness.errors import Unsupported
from harness.lab import required_modules as lab_modules
from harness.lab.lab import UNFILTERED_BRIDGES, Host, Lab
from harness.lab.required_modules import BRIDGE_NETFILTER
from harness.linux import health, modules
from harness.ruleset import required_modules
from harness.ruleset.load import Ruleset
from harness.scenario.case import Files
from harness.scenario.files import shortened
from harness.topology import sysctls
from harness.topology.network import Network
from harness.vm.port import in_guest


class Loadable(NamedTuple):
    """Files of a ruleset that are there and may be loaded."""

    paths: tuple[Path, ...]
    """As they are shown."""
    filters_bridges: bool
    """Whether something in them has the kernel load br_netfilter."""

    @classmethod
    def of(cls, paths: Iterable[Path], files: Files) -> Loadable:
        """``paths``, of the project of ``files``.

        Raises :class:`~harness.errors.Unsupported` for a file that is not there, and where a module would have to be
        loaded into the machine's own kernel.
        """
        paths = tuple(paths)
        for path in paths:
            if not path.exists():
                # Those of the project were there when the scenario was read; others are the machine's.
                raise Unsupported(f"{path} is not on this machine", remedy="install what it belongs to")
        shown = tuple(map(shortened, paths))
        needs = list(required_modules.of_files(shown, files.project.allows))
        modules.refuse(needs)
        return cls(shown, any(need.alias == BRIDGE_NETFILTER for need in needs))

    def loaded(self, host: Host) -> None:
        """Do to ``host``, which has loaded them, what br_netfilter does, also where that was loaded before."""
        given = {sysctls.path(name) for name in host.plan.sysctls}
        if self.filters_bridges and os.path.exists("/proc/sys/net/bridge"):  # noqa: PTH110 - pathlib is slow to import
            host.namespace.sysctl({name: "1" for name in UNFILTERED_BRIDGES if sysctls.path(name) not in given})


@contextmanager
def built(network: Network, rulesets: Mapping[str, Files]) -> Iterator[tuple[Lab, Mapping[str, Ruleset]]]:
    """Build the lab and load the hosts' ``rulesets``; nothing of either is left after the ``with``.

    Raises :class:`~harness.errors.BrokenMeasurement` at the end if the kernel of a microVM has complained meanwhile.
    """
    modules.refuse(lab_modules.needs(network))
    loadable = {name: Loadable.of(files.paths, files) for name, files in rulesets.items()}
    needed = modules.provided(lab_modules.asked(network), unload=in_guest())
    healthy = health.watched() if in_guest() else nullcontext()
    with healthy, modules.watched(), needed, Lab.build(network) as lab:
        loaded = {}
        for name, files in rulesets.items():
            host, one = lab.hosts[name], loadable[name]
            loaded[name] = Ruleset.load(host, *one.paths, defines=files.defines, home=files.project)
            one.loaded(host)
        yield lab, loaded
