"""A generated ruleset with the packets that are sent through it, and the file in which a guest finds some.

``python -m tests.truth.flow FILE --rulesets 500`` makes them here, where hypothesis is quick: under emulation it takes
longer than the kernel.
"""

from __future__ import annotations

import argparse
import pickle
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.truth.language import Ruleset
from tests.truth.packets import Packet

# The lab "router": client — wan0 device lan0 — server.
ADDRESSES = {
    "wan0": ("203.0.113.1", "2001:db8:113::1"),
    "lan0": ("10.0.2.1", "2001:db8:2::1"),
}
LAN = ("10.0.2.", "2001:db8:2:")


@dataclass(frozen=True, repr=False)
class Flow:
    """A ruleset, and the packets that are sent through it one after the other."""

    ruleset: Ruleset
    packets: tuple[Packet, ...]
    loaded: str
    """How: ``file``, ``commands``, ``steps``, ``listing`` or ``json``."""

    def __repr__(self) -> str:
        return "\n".join([f"loaded as {self.loaded}", self.ruleset.text, *map(str, self.packets)])


def write(file: Path, rulesets: int, seed: int) -> None:
    """Write as many flows as ``rulesets``, those of a seed of hypothesis."""
    import hypothesis

    from tests.truth import strategies

    found: list[Flow] = []
    settings = hypothesis.settings(
        max_examples=rulesets,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.seed(seed)(settings(hypothesis.given(strategies.flows())(lambda flow: found.append(flow))))()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(found))


def read(file: Path, part: int, parts: int) -> Sequence[Flow]:
    """Every flow of number ``part`` modulo ``parts`` that this command has written."""
    flows: list[Flow] = pickle.loads(file.read_bytes())
    return flows[part::parts]


def main() -> None:
    """Write a file of flows."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth.flow", description="Make rulesets and packets.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rulesets", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    options = parser.parse_args()
    write(options.file, options.rulesets, options.seed)
    print(f"{options.file}: {options.rulesets} rulesets of the seed {options.seed}")


if __name__ == "__main__":
    main()
