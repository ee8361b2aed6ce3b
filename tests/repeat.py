"""Many quiet runs: scenarios that end otherwise than they always do, counted over any number of calls.

As a program it runs scenarios until each has run so many times, in sessions of pytest in shuffled order; every other
session has a fresh lab for each scenario. What became of each is added to a tally in a file, so that a call may be
interrupted, and another go on::

    python -m tests.repeat --times 200 scenarios -n 2 --nft-kernel host --nft-tracer tracepoints
    python -m tests.repeat --times 1000 --each 50 --chosen -n 2 --nft-kernel 6.12

``--chosen`` stands for :data:`CHOSEN`. A session runs each scenario ``--each`` times. Results of scenarios that
neither passed nor were skipped, or ended otherwise than before, are kept beside the tally (``nft-harness report`` reads
them), and so is what pytest said. Without ``--times`` it prints the table of the tally. It ends with status 1 if the
tally has any such scenario.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from harness.model import result
from harness.save import save
from tests.isolation import session

TALLY = Path("build/repeat/tally.json")
FRESH = "--nft-fresh-labs"
ENDED = {0, 1, 6}
"""Exit statuses of sessions that ran to their end."""
MISSING = "missing"
"""The outcome of a scenario of which there is no result."""

CHOSEN = tuple(
    f"scenarios/{name}"
    for name in (
        # time: rates, timeouts, the clock
        "limits.yaml::Of-ten-pings-five-are-answered",
        "limits.yaml::A-question-every-200-ms-keeps-the-limit-of-ten-in-a-second",
        "limits.yaml::The-fourth-and-later-attempts-are-rejected",
        "time.yaml::The-door-stands-open-for-five-seconds-after-a-knock",
        "time.yaml::An-answer-is-let-in-as-long-as-the-question-is-remembered",
        "office-hours.yaml::A-rule-ends-at-New-Year-and-an-open-connection-does-not",
        "two-firewalls.yaml::A-question-that-nobody-answers-expires-by-the-rule-s-timeout-on-the-inner-firewall-alone",
        # connections, programs, what they send and what is read from queues
        "flows.yaml::A-browser-gets-a-page-over-TCP",
        "flows.yaml::An-answer-that-is-dropped-on-its-way-back-leaves-the-caller-waiting",
        "fragments.yaml::A-long-page-comes-in-many-segments",
        "ftp.yaml::With-nf_nat_ftp-the-data-connection-to-the-gateway-s-address-is-translated-to-the-server",
        "proxy.yaml::A-page-of-several-segments-fetched-through-the-proxy",
        "inspected.yaml::What-the-program-rewrites-arrives-rewritten-and-with-the-right-checksum",
        "answers.yaml::A-server-that-resets-the-connection-as-soon-as-it-stands",
        # the flowtable, tunnels, links that go down, rulesets that change
        "reload.yaml::An-offloaded-flow-passes-a-rule-that-was-added-later",
        "reload.yaml::A-reload-keeps-open-sessions-and-closes-the-port-for-new-ones",
        "wireguard.yaml::The-office-prints-in-the-branch-whose-tunnel-the-gateway-calls",
        "ipsec.yaml::The-branch-reaches-the-files-by-packets-that-came-as-ESP",
        "failover.yaml::New-connections-take-the-spare-line-while-the-first-is-down-and-the-first-when-it-is-back",
        "bridged-containers.yaml::With-br_netfilter-a-container-does-not-reach-another-on-its-bridge",
    )
)


class Ended(msgspec.Struct, frozen=True):
    """What a tally needs of a stored result."""

    id: str
    outcome: str
    kernel: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One of pytest's."""

    commit: str
    seed: int
    each: int
    fresh: bool
    began: str
    seconds: float
    load: float
    """Of the machine at its end, over one minute."""
    status: int


class Part(msgspec.Struct):
    """The sessions with the same options, and the outcomes of each scenario in them."""

    sessions: list[Session] = []
    outcomes: dict[str, dict[str, int]] = {}

    def least(self) -> int:
        """How many times each scenario has run."""
        return min((sum(one.values()) for one in self.outcomes.values()), default=0)

    def odd(self) -> dict[str, dict[str, int]]:
        """The scenarios that did not always pass, or were not always skipped."""
        return {name: one for name, one in self.outcomes.items() if len(one) > 1 or not one.keys() & USUAL}

    def add(self, ran: Session, ended: Sequence[Ended]) -> list[Ended]:
        """Count a session; those of its outcomes that are kept for examination.

        A scenario that ran fewer times than the others is missing.
        """
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.outcomes}
        kept = []
        for one in ended:
            before = self.outcomes.get(name := scenario(one, ran.each), {})
            counts.setdefault(name, Counter())[one.outcome] += 1
            if one.outcome not in USUAL or (before and one.outcome not in before):
                kept.append(one)
        for name, count in counts.items():
            count[MISSING] = ran.each - count.total()
            known = self.outcomes.setdefault(name, {})
            for outcome, number in count.items():
                if number > 0:
                    known[outcome] = known.get(outcome, 0) + number
        self.sessions.append(ran)
        return kept


USUAL = {"passed", "skipped"}
Tally = dict[str, Part]
"""By pytest's options."""


def scenario(one: Ended, each: int) -> str:
    """Of what scenario it is a result, and on which kernel."""
    name = re.sub(r"\[\d+\]$", "", one.id) if each > 1 else one.id
    return f"{name} {one.kernel}".rstrip()


def load(file: Path) -> Tally:
    return msgspec.json.decode(file.read_bytes(), type=Tally) if file.exists() else {}


def table(tally: Mapping[str, Part]) -> Iterator[str]:
    """The tally as a table, and each scenario that was not always the same."""
    yield "| how | sessions | scenarios | each | passed | skipped | otherwise |"
    yield "|---" * 7 + "|"
    for how, part in tally.items():
        passed, skipped = (sum(one.get(name, 0) for one in part.outcomes.values()) for name in ("passed", "skipped"))
        others = sum(sum(one.values()) for one in part.outcomes.values()) - passed - skipped
        cells = (len(part.sessions), len(part.outcomes), part.least(), passed, skipped, others)
        yield f"| `{how}` | " + " | ".join(f"{cell:,}" for cell in cells) + " |"
    for how, part in tally.items():
        for ran in part.sessions:
            if ran.status not in ENDED:
                yield f"{how}: session {ran.seed} of {ran.began} ended with status {ran.status}"
        for name, one in sorted(part.odd().items()):
            yield f"{how}: {name}: {', '.join(f'{number} {outcome}' for outcome, number in sorted(one.items()))}"


def sound(tally: Mapping[str, Part]) -> bool:
    """Whether every session ran to its end and every scenario always ended in the same way."""
    return not any(part.odd() or any(ran.status not in ENDED for ran in part.sessions) for part in tally.values())


def commit() -> str:
    """The commit that is checked out, with ``+`` where files differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(part: Part, options: Sequence[str], each: int, stories: Path) -> str:
    """Run one session and count it; what to say about it."""
    seed, fresh = random.getrandbits(32), len(part.sessions) % 2 == 1
    began, started = time.strftime("%Y-%m-%dT%H:%M:%S"), time.monotonic()
    extra = [*([FRESH] if fresh else []), *([f"--nft-repeat={each}"] if each > 1 else [])]
    with tempfile.TemporaryDirectory() as name:
        done = session([*options, *extra], str(seed), folder := Path(name))
        found = {file: msgspec.json.decode(file.read_bytes(), type=Ended) for file in folder.glob(f"*{result.SUFFIX}")}
        ran = Session(
            commit=commit(),
            seed=seed,
            each=each,
            fresh=fresh,
            began=began,
            seconds=round(time.monotonic() - started, 1),
            load=round(os.getloadavg()[0], 1),
            status=done.returncode,
        )
        kept = part.add(ran, list(found.values()))
        if kept or done.returncode not in ENDED:
            (place := stories / f"{began.replace(':', '')}-{seed}").mkdir(parents=True)
            (place / "output.txt").write_text(done.stdout + done.stderr)
            for file, one in found.items():
                if one in kept:
                    shutil.copy(file, place)
    ended = f"{len(found)} results, {len(kept)} kept, status {done.returncode}"
    return f"{began} seed {seed}{' fresh labs' if fresh else ''}: {ended}, {ran.seconds:.0f} s, load {ran.load:g}"


def main(arguments: Sequence[str]) -> int:
    """Run what the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.repeat",
        description="Run scenarios many times and count how they end.",
        allow_abbrev=False,
    )
    parser.add_argument("--tally", type=Path, default=TALLY, help=f"default: {TALLY}")
    parser.add_argument("--times", type=int, default=0, help="how often each scenario is to have run at last")
    parser.add_argument("--each", type=int, default=1, help="how often in one session (default: once)")
    parser.add_argument("--chosen", action="store_true", help=f"run the {len(CHOSEN)} scenarios of CHOSEN")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no session after so long")
    choice, options = parser.parse_known_args(arguments)
    tally = load(choice.tally)
    started = time.monotonic()
    key = " ".join([*(["--chosen"] if choice.chosen else []), *options])
    while choice.times:
        part = tally.setdefault(key, Part())
        if part.sessions and part.least() >= choice.times:
            break
        if time.monotonic() - started > choice.minutes * 60:
            break
        said = run(part, [*(CHOSEN if choice.chosen else ()), *options], choice.each, choice.tally.with_suffix(""))
        print(said, flush=True)
        choice.tally.parent.mkdir(parents=True, exist_ok=True)
        save(choice.tally, msgspec.json.format(msgspec.json.encode(tally)))
        if not part.outcomes:
            print("no scenario ran; see output.txt beside the tally")
            return 1
    print(*table(tally), sep="\n")
    return 0 if sound(tally) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
