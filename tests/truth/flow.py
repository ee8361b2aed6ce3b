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

from tests.truth import reference
from tests.truth.language import Ruleset
from tests.truth.packets import Packet

# The lab "router": client — wan0 device lan0 — server.
ADDRESSES = {
    "wan0": ("203.0.113.1", "2001:db8:113::1"),
    "lan0": ("10.0.2.1", "2001:db8:2::1"),
}
LAN = ("10.0.2.", "2001:db8:2:")
MACS = {"wan0": 0x02_00_00_00_02_01, "lan0": 0x02_00_00_00_02_02, "br0": 0x02_00_00_00_02_03}
NEIGHBOURS = {"wan0": 0x02_00_00_00_01_01, "lan0": 0x02_00_00_00_03_01}
"""The client's and the server's Ethernet addresses, by the side on which they are."""
BRIDGE = {
    "hosts": {
        "client": {"interfaces": {"eth0": ["203.0.113.5/24", "2001:db8:113::5/64"]}, "gateway": "device"},
        "device": {
            "interfaces": {
                "wan0": [],
                "lan0": [],
                "br0": ["203.0.113.1/24", "2001:db8:113::1/64", "10.0.2.1/24", "2001:db8:2::1/64"],
            },
            "bridges": {"br0": ["wan0", "lan0"]},
            "gateway": "client",
        },
        "server": {"interfaces": {"eth0": ["10.0.2.2/24", "2001:db8:2::2/64"]}, "gateway": "device"},
    },
    "links": [["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]],
}
"""The lab "bridge": the same addresses, but the device is a bridge and no router."""


@dataclass(frozen=True, repr=False)
class Flow:
    """A ruleset, and the packets that are sent through it one after the other."""

    ruleset: Ruleset
    packets: tuple[Packet, ...]
    loaded: str
    """How: ``file``, ``commands``, ``steps``, ``listing`` or ``json``."""
    lab: str = "router"
    """``router`` or ``bridge``."""

    def evaluator(self) -> reference.Router:
        """The reference for the device of that lab."""
        kind = reference.Bridge if self.lab == "bridge" else reference.Router
        return kind(self.ruleset, ADDRESSES, LAN, MACS, NEIGHBOURS)

    def __repr__(self) -> str:
        return "\n".join([f"lab {self.lab}, loaded as {self.loaded}", self.ruleset.text, *map(str, self.packets)])


LABS = ("router", "bridge")


def write(file: Path, rulesets: int, seed: int, labs: Sequence[str] = LABS) -> None:
    """Write as many flows as ``rulesets``, those of a seed of hypothesis, in some of ``labs`` each."""
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
    hypothesis.seed(seed)(settings(hypothesis.given(strategies.flows(labs))(lambda flow: found.append(flow))))()
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
    parser.add_argument("--lab", choices=LABS, action="append", help="only these (default: all)")
    options = parser.parse_args()
    write(options.file, options.rulesets, options.seed, options.lab or LABS)
    print(f"{options.file}: {options.rulesets} rulesets of the seed {options.seed}")


if __name__ == "__main__":
    main()
