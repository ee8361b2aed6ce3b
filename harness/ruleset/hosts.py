"""A lab whose hosts have loaded their rulesets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harness.errors import Unsupported
from harness.lab import required_modules as lab_modules
from harness.lab.lab import UNFILTERED_BRIDGES, Host, Lab
from harness.linux import modules
from harness.ruleset import required_modules
from harness.ruleset.load import Ruleset
from harness.ruleset.required_modules import BRIDGE_NETFILTER
from harness.scenario.case import Files
from harness.scenario.files import shortened
from harness.topology import sysctls
from harness.topology.network import Network


@contextmanager
def built(network: Network, rulesets: Mapping[str, Files]) -> Iterator[tuple[Lab, Mapping[str, Ruleset]]]:
    """Build the lab and load the hosts' ``rulesets``; nothing of either is left after the ``with``."""
    for path in (path for files in rulesets.values() for path in files.paths):
        if not path.exists():
            # Those of the project were there when the scenario was read; others are the machine's.
            raise Unsupported(f"{path} is not on this machine", remedy="install what it belongs to")
    modules.refuse(lab_modules.needs(network))
    modules.refuse(
        need
        for files in rulesets.values()
        for need in required_modules.of_files(map(shortened, files.paths), files.project.allows)
    )
    with modules.watched(), Lab.build(network) as lab:
        loaded = {}
        for name, files in rulesets.items():
            paths = [shortened(path) for path in files.paths]
            loaded[name] = Ruleset.load(lab.hosts[name], *paths, defines=files.defines, home=files.project)
            if any(need.alias == BRIDGE_NETFILTER for need in required_modules.of_files(paths, files.project.allows)):
                _filter_bridges(lab.hosts[name])
        yield lab, loaded


def _filter_bridges(host: Host) -> None:
    """What br_netfilter does when it is loaded, also where it was loaded before, unless the lab sets them."""
    given = {sysctls.path(name) for name in host.plan.sysctls}
    if os.path.exists("/proc/sys/net/bridge"):  # noqa: PTH110 - pathlib is slow to import in a guest
        host.namespace.sysctl({name: "1" for name in UNFILTERED_BRIDGES if sysctls.path(name) not in given})
