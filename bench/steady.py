"""Whether scenarios that are hard to judge end alike 200 times in a row.

::

    python bench/steady.py [N] [pytest's arguments; default: scenarios/hard-cases.yaml]

Everything happens in one session: one guest, one tracer. It ends at the first scenario that ends otherwise.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCENARIOS = Path(__file__).parent.parent / "scenarios/hard-cases.yaml"


def main(arguments: list[str]) -> int:
    times = arguments.pop(0) if arguments and arguments[0].isdecimal() else "200"
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"--nft-repeat={times}", *(arguments or [str(SCENARIOS)])]
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
