"""``python bench [NAME [ARGUMENTS]]``: measure, side by side with peers where there are any; all by default."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHES = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))


def main(arguments: list[str]) -> int:
    """Run the bench called by the first of ``arguments`` with the rest of them, or each in turn."""
    chosen = [path for path in BENCHES if not arguments or path.stem == arguments[0]]
    if not chosen:
        for path in BENCHES:
            print(f"{path.stem:16}" + path.read_text().splitlines()[0].strip('"'))
        return 0 if arguments[0] in ("help", "-h", "--help") else 2
    return max(subprocess.call([sys.executable, str(path), *arguments[1:]]) for path in chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
