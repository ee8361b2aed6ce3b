"""How many packets a second are sifted in a guest, as diff does, and what CPU a packet costs QEMU and the controller.

::

    python bench/sifting.py [--kernel 6.12] [--packets 400] [--rounds 3] [RULESET ...; default: edge.nft and docker.nft]

Loading is not counted. The first round after a guest's start is slower: QEMU translates code when it first runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from harness.batch.messages import Effects
from harness.batch.session import BatchSession
from harness.compare import sides
from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.pool import Pool
from harness.generate.simulate import SimulatedRuleset
from harness.model.problem import Problem
from harness.packets.frames import Frame, build
from harness.packets.spec import Send
from harness.topology.network import Network

RULESETS = [Path(__file__).parent.parent / "scenarios/rulesets" / name for name in ("edge.nft", "docker.nft")]
SEED = 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--packets", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("ruleset", nargs="*", type=Path, default=RULESETS)
    options = parser.parse_args(arguments)
    with BatchSession.open(options.kernel) as session:
        work = []
        for path in options.ruleset:
            facts = session.look([path])
            network = lab.choose(facts).network
            device = SimulatedDevice(SimulatedRuleset(facts), network)
            packets = [
                frames for one in Pool([device], SEED).packets(options.packets) if (frames := made(one.sends, network))
            ]
            work.append((path, (network, sides.of(str(path)).files), packets))
        for _ in range(options.rounds):
            for path, side, packets in work:
                answers = session.effects(side, packets, sift=True)
                next(answers)  # it is loaded
                passed, own, guest = time.monotonic(), sum(os.times()[:2]), cpu_of_qemu()
                effects = [one for one in answers if isinstance(one, Effects)]
                passed, own, guest = time.monotonic() - passed, sum(os.times()[:2]) - own, cpu_of_qemu() - guest
                print(
                    f"{path.name}: {len(effects)} packets, {len(effects) / passed:.0f} a second; CPU a packet: QEMU "
                    f"{1e3 * guest / len(effects):.2f} ms, controller {1e3 * own / len(effects):.2f} ms; "
                    f"{sum(bool(one.error) for one in effects)} not clear",
                    flush=True,
                )
    return 0


def made(sends: tuple[dict[str, object], ...], network: Network) -> tuple[tuple[Frame, ...], ...]:
    """The frames of a packet and of those before it; none for what cannot be sent in this lab."""
    with suppress(Problem, msgspec.ValidationError):
        return tuple(build(msgspec.convert(send, Send), network) for send in sends)
    return ()


def cpu_of_qemu() -> float:
    """Seconds of CPU of the QEMU that is a descendant of this process."""
    rows = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = file.read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            rows[int(file.parent.name)] = name, int(fields[1]), int(fields[11]) + int(fields[12])
    own, found = {os.getpid()}, 0
    while more := {pid for pid, (_, parent, _) in rows.items() if parent in own} - own:
        own |= more
    for pid in own:
        name, _, ticks = rows.get(pid, ("", 0, 0))
        found += ticks if name.startswith("qemu") else 0
    return found / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
