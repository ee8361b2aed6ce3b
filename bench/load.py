"""What ten thousand scenarios, packets or rules, a million elements and two hundred hosts take: time and memory.

::

    python bench/load.py [scenarios|reports|packets|rules|elements|hosts] [pytest's arguments]

As root, natively by tracepoints unless the arguments say otherwise. Each row is a run of pytest of its own. Its time is
divided into that of the process that runs the scenarios, where all of nft-harness is, that of the kernel on behalf of
it, and that of its children, which are the processes that run nft.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

NATIVE = ("--nft-kernel", "host", "--nft-tracer", "tracepoints", "-n", "0")
RULESET = """\
table inet edge {{
{objects}	chain forward {{
		type filter hook forward priority filter; policy drop;
{rules}	}}
}}
"""
LAB = """\
lab:
  hosts:
    device: {{interfaces: {{{own}}}, forwarding: true}}
{others}  links:
{links}"""
PR_SET_CHILD_SUBREAPER = 36
"""See prctl(2)."""
AT_ONCE = 1000
"""Scenarios of a file, and packets of a step: nft-harness takes no more."""


class Row(NamedTuple):
    """What a run has taken."""

    passed: float
    """Seconds."""
    own: float
    """Seconds of CPU of pytest's process in its own code."""
    kernel: float
    """The same, in the kernel."""
    children: float
    """Seconds of CPU of its children: nft."""
    memory: int
    """Most KiB of memory of pytest's process."""
    memory_of_children: int
    """The same of one of its children."""
    summary: str
    """pytest's last line."""


def ruleset(folder: Path, rules: str = "", objects: str = "") -> None:
    """Write the ruleset that all scenarios load."""
    (folder / "edge.nft").write_text(RULESET.format(rules=rules, objects=objects))


def scenario(folder: Path, body: str, head: str = "", name: str = "load.yaml") -> None:
    """Write a file with one scenario, or with those that it makes."""
    (folder / name).write_text(f"{head}ruleset: edge.nft\nscenarios:\n  - name: load\n{body}")


def scenarios(folder: Path, number: int) -> None:
    """``number`` scenarios, a thousand in a file."""
    ruleset(folder, "		tcp dport { 80, 443 } accept\n")
    for first in range(0, number, AT_ONCE):
        ports = list(range(1000, 1000 + min(number - first, AT_ONCE)))
        body = f"    matrix: {{port: {ports}}}\n    send: {{from: client, to: server, tcp: {{dport: $port}}}}\n"
        scenario(folder, f"{body}    expect: {{verdict: drop, delivered: nowhere}}\n", name=f"load{first}.yaml")


def packets(folder: Path, number: int) -> None:
    """One scenario with ``number`` packets, a thousand in a step."""
    ruleset(folder)
    step = "      - send: {{from: client, to: server, udp: {{dport: 53}}, count: {count}}}\n"
    step += "        expect: {{verdict: drop}}\n"
    counts = [min(number - first, AT_ONCE) for first in range(0, number, AT_ONCE)]
    scenario(folder, "    steps:\n" + "".join(step.format(count=count) for count in counts))


def rules(folder: Path, number: int) -> None:
    """A scenario that the last of ``number`` rules decides."""
    passed = (
        f"\t\tip saddr 10.{n >> 16}.{n >> 8 & 255}.{n & 255} tcp dport {n % 65535 + 1} accept\n"
        for n in range(number - 1)
    )
    ruleset(folder, "".join(passed) + '\t\ttcp dport 443 accept comment "the last"\n')
    scenario(
        folder,
        "    send: {from: client, to: server, tcp: {dport: 443}}\n    expect: {verdict: accept, rule: the last}\n",
    )


def elements(folder: Path, number: int) -> None:
    """A scenario with a set of ``number`` addresses, one of which is the client's."""
    own = "203.0.113.5"
    listed = ",".join([own, *(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(number - 1))])
    ruleset(folder, "\t\tip saddr @some accept\n", f"	set some {{ type ipv4_addr; elements = {{ {listed} }}; }}\n")
    scenario(folder, "    send: {from: client, to: server, tcp: {dport: 443}}\n    expect: {verdict: accept}\n")


def hosts(folder: Path, number: int) -> None:
    """A scenario in a lab of ``number`` hosts around a router."""
    ruleset(folder, "\t\taccept\n")
    around = range(number - 1)
    own = ", ".join(f"eth{n}: [10.0.{n}.1/24]" for n in around)
    others = "".join(f"    h{n}: {{interfaces: {{eth0: [10.0.{n}.2/24]}}, gateway: device}}\n" for n in around)
    links = "".join(f'    - ["h{n}:eth0", "device:eth{n}"]\n' for n in around)
    body = f"    send: {{from: h0, to: h{around[-1]}, tcp: {{dport: 443}}}}\n    expect: {{verdict: accept}}\n"
    scenario(folder, body, LAB.format(own=own, others=others, links=links))


REPORTS = (
    *("--nft-results=r", "--nft-html=r.html", "--nft-jsonl=r.jsonl", "--nft-sarif=r.sarif", "--nft-gitlab=r.json"),
    *("--nft-summary=r.md", "--nft-cov", "--nft-cov-xml=r.xml", "--junitxml=junit.xml"),
)
CASES: dict[str, tuple[Callable[[Path, int], None], tuple[int, ...], tuple[str, ...]]] = {
    "scenarios": (scenarios, (100, 1000, 10_000), ()),
    "reports": (
        scenarios,
        (100, 1000, 10_000),
        REPORTS,
    ),
    "packets": (packets, (100, 1000, 10_000), ()),
    "rules": (rules, (100, 1000, 10_000, 100_000), ()),
    "elements": (elements, (1000, 10_000, 100_000, 1_000_000), ()),
    "hosts": (hosts, (10, 50, 100, 200), ()),
}
"""The function that writes each kind of load, the sizes to write, and further arguments for pytest."""


def run(folder: Path, arguments: list[str]) -> Row:
    """Run pytest in ``folder``."""
    out = folder / "out"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *arguments]
    begun = time.monotonic()
    with out.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
        _, process.returncode, own = os.wait4(process.pid, 0)
    passed = time.monotonic() - begun
    others = list(orphans())
    ends = [line.strip("= ") for line in out.read_text(errors="replace").splitlines() if " in " in line]
    return Row(
        passed=passed,
        own=own.ru_utime,
        kernel=own.ru_stime,
        children=sum(one.ru_utime + one.ru_stime for one in others),
        memory=own.ru_maxrss,
        memory_of_children=max((one.ru_maxrss for one in others), default=0),
        summary=next((line for line in reversed(ends) if line[:1].isdigit()), "?"),
    )


def orphans() -> Iterator[resource.struct_rusage]:
    """What each child has taken that pytest did not wait for; nft-harness waits for none that runs nft."""
    with suppress(ChildProcessError):
        while True:
            yield os.wait4(-1, 0)[2]


def rows(name: str, arguments: list[str]) -> Iterator[tuple[int, Row]]:
    """A run for each size of a case."""
    write, sizes, more = CASES[name]
    for size in sizes:
        with TemporaryDirectory() as folder:
            (Path(folder) / "pytest.ini").write_text("[pytest]\n")
            write(Path(folder), size)
            yield (
                size,
                run(Path(folder), [*more, *arguments, *sorted(path.name for path in Path(folder).glob("*.yaml"))]),
            )


def main(arguments: list[str]) -> int:
    """Print a table for each case that is asked for."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    names = [one for one in arguments if one in CASES] or list(CASES)
    others = [one for one in arguments if one not in CASES] or list(NATIVE)
    for name in names:
        head = (name, "passed", "own CPU", "kernel", "nft", "most memory", "nft's", "end")
        print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
        for size, row in rows(name, others):
            seconds = " | ".join(f"{one:.2f} s" for one in (row.passed, row.own, row.kernel, row.children))
            memory = " | ".join(f"{one >> 10} MiB" for one in (row.memory, row.memory_of_children))
            print(f"| {size:,} | {seconds} | {memory} | {row.summary} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
