"""Isolation: scenarios in any order, beside others and in kept labs give the same results as each in a lab of its own.

As a plugin of pytest it shuffles the tests of a session, the same in each worker::

    NFT_SHUFFLE=7 pytest -p tests.isolation scenarios/

As a program it runs scenarios in their order, each in a fresh lab of a guest that has booted; then once for each of
some seeds shuffled, by two workers that keep labs and may be restored from a template. What is stored of each scenario
is compared, apart from what is another each time: times, processors, ports that a kernel chose, numbers of packets::

    python -m tests.isolation --seeds 20 scenarios/ --nft-kernel 6.12

It prints each scenario with another result, and ends with status 1 if there is any.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.model import result
from harness.model.observation import ObservedPacket
from harness.model.result import PacketResult, Result
from harness.packets.headers import fields

VARIABLE = "NFT_SHUFFLE"
ALONE = ("--nft-fresh-labs", "--nft-cold", "-n", "1")
TOGETHER = ("-n", "2")

BY_THREADS = {"encrypt_packet", "decrypt_packet"}
"""Functions that a packet meets in kernel threads: the workqueues of WireGuard (drivers/net/wireguard/queueing.c)."""
SHARED = {
    *("pskb_expand_head", "skb_headers_offset_update", "__pskb_pull_tail", "skb_copy_bits"),
    *("skb_release_data", "skb_free_head"),
}
"""What is done to the data of a packet that others have as well (``skb_cloned()``): who writes to it copies it first,
and the last to let go of it frees it. A packet socket that captures has a clone until it is read."""
BY_HASH = {"fib_multipath_hash", "rt6_multipath_hash"}
"""Functions by which a packet gets one of several next hops: with a seed that the kernel draws once after it has booted
(``hashrnd`` in net/core/flow_dissector.c), so that another guest may choose another path."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if seed := os.environ.get(VARIABLE):
        random.Random(seed).shuffle(items)


def essence(one: Result) -> tuple[object, ...]:
    """What of a result must be the same each time."""
    return (one.outcome, one.where, one.engine, one.nft, *(_of_packet(sent) for sent in one.sent))


def _of_packet(sent: PacketResult) -> tuple[object, ...]:
    is_flow = sent.observation.flow is not None
    is_stream = is_flow and fields(sent.seen.frame).get("protocol") == "tcp"
    mismatches = tuple((one.key, one.expected, one.seen) for one in sent.mismatches)
    if any(hop.function in BY_HASH for hop in sent.seen.hops):
        return (sent.action, sent.verdict, sent.with_, mismatches)
    decided = ((step.chain_path, step.rule.text if step.rule else "") for step in sent.decided)
    return (
        sent.action,
        sent.verdict,
        sent.with_,
        tuple(dict.fromkeys(decided) if is_stream else decided),
        mismatches,
        tuple(_of_observed(sent.seen, scheduled=is_flow, stream=is_stream)),
    )


def _of_observed(packet: ObservedPacket, *, scheduled: bool, stream: bool) -> Iterator[object]:
    """Of a packet; where the scheduler has a part in it, the functions in no order and without :data:`SHARED`.

    That is so for packets of programs (``scheduled``) and for those that kernel threads work on. A packet of TCP
    (``stream``) is what TCP sends at once, by how fast the connection has been (tcp_tso_autosize() in
    net/ipv4/tcp_output.c), and which is cut into segments later: of these only the kinds count, not how many there are.
    """
    steps: Iterable[object] = (
        (step.host, step.hook, step.chain_path, step.kind, step.verdict, step.target, step.rule and step.rule.text)
        for step in packet.steps
    )
    hops: Iterable[object] = [(hop.host, hop.device, hop.function) for hop in packet.hops]
    if scheduled or any(hop.function in BY_THREADS for hop in packet.hops):
        hops = sorted({(hop.host, hop.device, hop.function) for hop in packet.hops if hop.function not in SHARED})
    arrivals: Iterable[object] = ((one.host, one.device, len(one.frame)) for one in packet.deliveries)
    if stream:
        steps, arrivals = dict.fromkeys(steps), dict.fromkeys((one.host, one.device) for one in packet.deliveries)
    yield from steps
    yield from hops
    yield from arrivals


def different(reference: Sequence[Result], others: Sequence[Result]) -> Iterator[str]:
    """The scenarios that are in one only, or whose results are different: sentences."""
    before = {one.id: essence(one) for one in reference}
    after = {one.id: essence(one) for one in others}
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            yield f"{name}: only in {'the shuffled run' if name in after else 'the run in order'}"
        elif before[name] != after[name]:
            old, new = _first(before[name], after[name])
            yield f"{name}:\n  in order  {old}\n  shuffled  {new}"


def _first(old: object, new: object) -> tuple[object, object]:
    """The smallest part in which two values differ first."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return next(_first(one, other) for one, other in zip(old, new, strict=True) if one != other)
    if isinstance(old, tuple) and isinstance(new, tuple):
        shorter = min(len(old), len(new))
        at = next((at for at in range(shorter) if old[at] != new[at]), shorter)
        return old[at:][:3], new[at:][:3]
    return old, new


def session(options: Sequence[str], seed: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest with ``options``, its tests shuffled by ``seed`` unless that is empty; results go into ``folder``."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.isolation", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, f"--nft-results={folder}"],
        env={**os.environ, VARIABLE: seed},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def run(options: Sequence[str], seed: str) -> list[Result]:
    """What pytest has stored with ``options``, its tests shuffled by ``seed`` unless that is empty."""
    with tempfile.TemporaryDirectory() as name:
        done = session(options, seed, folder := Path(name))
        found = [result.decode(file.read_bytes(), file.name) for file in sorted(folder.glob(f"*{result.SUFFIX}"))]
    if not found:
        raise SystemExit(f"nothing ran:\n{done.stdout}{done.stderr}")
    return found


def main() -> int:
    """Run what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.isolation", description="Compare results of shuffled runs.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=random.getrandbits(16), help="the first; default: any")
    options, arguments = parser.parse_known_args()
    reference = run([*ALONE, *arguments], "")
    print(f"{len(reference)} scenarios in order, each in a fresh lab", flush=True)
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        started = time.monotonic()
        found = list(different(reference, run([*TOGETHER, *arguments], str(seed))))
        failed += bool(found)
        print(f"seed {seed}: {len(found)} different ({time.monotonic() - started:.0f} s)", *found, sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
