"""How long it takes to check the shipped scenarios, and to load a thousand; both without a kernel.

::

    python bench/loading.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
RULESET = """\
table inet edge {
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
"""
SCENARIO = """\
  - name: Port {port} of the server is closed
    send: {{from: client, to: server, tcp: {{dport: {port}, flags: S}}}}
    expect:
      verdict: drop
      rule: inet edge forward policy
      delivered: nowhere
      reply: none
      path:
        - ip_forward
        - nft_do_chain: {{chain: inet edge forward, verdict: drop}}
"""


def best(what: str, goal: float, *command: str | Path) -> bool:
    """Run ``command`` three times; whether it takes at most ``goal`` seconds of CPU, which say less of others' work."""
    seconds = []
    for _ in range(3):
        start, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append((used, time.perf_counter() - start))
    used, passed = min(seconds)
    print(f"{what:54}{used:6.2f} s of CPU, {passed:.2f} s passed; at most {goal:g} s are meant")
    return used <= goal


def main() -> int:
    with TemporaryDirectory() as name:
        folder = Path(name) / "scenarios"
        folder.mkdir()
        (folder / "edge.nft").write_text(RULESET)
        head, ports = "ruleset: edge.nft\nscenarios:\n", range(1, 1001)
        (written := folder / "written.yaml").write_text(head + "".join(SCENARIO.format(port=port) for port in ports))
        one = SCENARIO.format(port="$port").replace("    send", f"    matrix: {{port: {list(ports)}}}\n    send", 1)
        (made := folder / "made.yaml").write_text(head + one)
        pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only")
        good = [
            best("nft-harness check scenarios/", 1, "nft-harness", "check", ROOT / "scenarios"),
            best("nft-harness check, 1,000 scenarios written down", 3, "nft-harness", "check", written),
            best("nft-harness check, 1,000 scenarios by matrix:", 3, "nft-harness", "check", made),
            best("pytest --collect-only, 1,000 scenarios written down", 3, *pytest, written),
        ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
