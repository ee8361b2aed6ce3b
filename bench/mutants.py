"""How long mutate takes for a ruleset of thousands of rules, and the CPU and memory of it.

::

    python bench/mutants.py [--rules 5000] [OPTION OF nft-harness mutate ...; default: --nft-kernel 6.12]

The ruleset is one chain of rules of five forms; four scenarios load it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

FORMS = (
    "ip saddr 198.{high}.{middle}.{low}/32 tcp dport {port} accept",
    'iifname "wan0" udp dport {{ {port}, {next} }} drop',
    'ip daddr 10.0.2.2 tcp dport {port} accept comment "service {number}"',
    "ip saddr 192.{high}.{middle}.{low} drop",
    "tcp dport {port} ct state new counter accept",
)
CHAIN = """\
table inet large {{
	chain forward {{
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
{rules}
		tcp dport 22 accept
	}}
}}
"""
SCENARIO = "  - {{name: '{what}', send: {{from: client, to: server, {what}}}, expect: {{verdict: {verdict}}}}}\n"
SCENARIOS = {
    "tcp: {dport: 22}": "accept",
    "tcp: {dport: 23}": "drop",
    "tcp: {dport: 10002}": "accept",
    "udp: {dport: 10001}": "drop",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", type=int, default=5_000)
    options, more = parser.parse_known_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").touch()
        (folder / "large.nft").write_text(CHAIN.format(rules="\n".join(map(rule, range(options.rules - 2)))))
        scenarios = "".join(SCENARIO.format(what=what, verdict=verdict) for what, verdict in SCENARIOS.items())
        (folder / "large.yaml").write_text(f"lab: router\nruleset: large.nft\nscenarios:\n{scenarios}")
        started = time.monotonic()
        command = [Path(sys.executable).with_name("nft-harness"), "mutate", "large.yaml", "--fresh"]
        status = subprocess.call([*command, *(more or ["--nft-kernel", "6.12"])], cwd=folder)
        passed, used = time.monotonic() - started, sum(os.times()[2:4])
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
        print(f"{passed:.0f} s; {used:.0f} s of CPU without a guest's; the largest process had {largest} MiB")
    return status


def rule(number: int) -> str:
    """The rule of a number: no two are about the same packets."""
    low, middle, high = number % 250, number // 250 % 250, number // 62_500 + 18
    form = FORMS[number % len(FORMS)]
    port = 10_000 + number % 50_000
    return "\t\t" + form.format(number=number, port=port, next=port + 1, low=low, middle=middle, high=high)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
