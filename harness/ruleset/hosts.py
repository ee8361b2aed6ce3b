"""A lab whose hosts have loaded their rulesets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harness.errors import Unsupported
from harness.kernel import modules
from harness.lab import needs as lab_needs
from harness.lab.lab import Lab
from harness.ruleset import needs
from harness.ruleset.load import Ruleset
from harness.scenario.case import Files
from harness.scenario.files import shortened
from harness.scenario.network import Network


@contextmanager
def built(network: Network, rulesets: Mapping[str, Files]) -> Iterator[tuple[Lab, Mapping[str, Ruleset]]]:
    """Build the lab and load the hosts' ``rulesets``; nothing of either is left after the ``with``."""
    for path in (path for files in rulesets.values() for path in files.paths):
        if not path.exists():
            # Those of the project were there when the scenario was read; others are the machine's.
            raise Unsupported(f"{path} is not on this machine", remedy="install what it belongs to")
    modules.refuse(lab_needs.needs(network))
    modules.refuse(need for files in rulesets.values() for need in needs.of_files(map(shortened, files.paths)))
    with modules.watched(), Lab.build(network) as lab:
        yield (
            lab,
            {
                name: Ruleset.load(
                    lab.hosts[name], *map(shortened, files.paths), defines=files.defines, home=files.project
                )
                for name, files in rulesets.items()
            },
        )
