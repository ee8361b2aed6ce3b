"""From command to prompt, cold and restored, side by side; and all scenarios, by one guest and by two.

::

    python bench/start.py [--runs N] [--kernel 6.12]... [--all] [--write]

The subjects take turns, N times (default: 10): a cold boot, a restored guest, and virtme-ng with the same kernel to a
shell, where ``vng`` is installed. ``--all`` also runs every shipped scenario once with one and with two guests,
``--write`` puts the table into docs/performance.md. The figures mean little on a busy machine; the
load stands beside the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness.vm import images, template

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- bench start: begin -->", "<!-- bench start: end -->"
ONE = ["scenarios/edge.yaml", "-k", "HTTPS-from"]


class Measured:
    """Seconds and seconds of CPU, children included, of runs of one command."""

    def __init__(self, what: str, *command: str) -> None:
        self.what = what
        self._command = command
        self._passed: list[float] = []
        self._used: list[float] = []

    def warm_up(self) -> None:
        """Run the command once, uncounted: it compiles, and fills caches."""
        subprocess.run(self._command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def run(self) -> None:
        """Run the command once. Raises :class:`subprocess.CalledProcessError` when it fails."""
        before, start = os.times(), time.monotonic()
        subprocess.run(self._command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        self._passed.append(time.monotonic() - start)
        self._used.append(after.children_user + after.children_system - before.children_user - before.children_system)

    def row(self) -> str:
        """A line of the table."""
        return f"| {self.what} | {spread(self._passed)} | {spread(self._used)} | {len(self._passed)} |"


def spread(values: list[float]) -> str:
    """Median, and the least and the most in parentheses, of seconds."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def rows(kernel: str, runs: int, *, everything: bool) -> list[str]:
    """Lines of the table about one kernel."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nft-kernel", kernel]
    subprocess.run([sys.executable, "-m", "harness.cli", "kernels", "warm", kernel], cwd=ROOT, check=True)
    one = " ".join(ONE)
    subjects = [
        Measured(f"{kernel}: `pytest {one}`, cold", *pytest, "--nft-cold", *ONE),
        Measured(f"{kernel}: `pytest {one}`, restored", *pytest, *ONE),
    ]
    if kernel == images.DEFAULT_SERIES:
        subjects.append(
            Measured(f"{kernel}: `./run scenarios -k HTTPS-from`, restored", "./run", "scenarios", "-k", "HTTPS-from")
        )
    image = images.find(kernel)
    if image and (vng := shutil.which("vng")):
        subjects.append(Measured(f"{kernel}: `vng`, to a shell", vng, "-r", str(image.vmlinuz), "--", "true"))
    for subject in subjects:
        subject.warm_up()
    for _ in range(runs):
        for subject in subjects:
            subject.run()
    if everything:
        for copies in ("1", "2"):
            subjects.append(Measured(f"{kernel}: all of scenarios/, `-n {copies}`", *pytest, "-n", copies, "scenarios"))
            subjects[-1].run()
    return [subject.row() for subject in subjects]


def main(arguments: list[str]) -> int:
    """Measure and print, or write, the table."""
    parser = argparse.ArgumentParser(prog="./run bench start")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kernel", action="append", choices=images.SERIES)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    measured = [
        line
        for kernel in options.kernel or [images.DEFAULT_SERIES]
        for line in rows(kernel, options.runs, everything=options.all)
    ]
    sizes = ", ".join(f"{one.bytes >> 20} MiB ({one.name.partition('-')[0]})" for one in template.all_templates())
    about = (
        f"{os.cpu_count()} processors, load {load:.1f} before, Python {platform.python_version()}; "
        f"median (least to most) in seconds; templates on disk: {sizes}."
    )
    table = "\n".join([about, "", "| | passed | CPU | runs |", "|---|---|---|---|", *measured])
    print(table)
    if options.write:
        page = PAGE.read_text()
        PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table}\n{END}", page, flags=re.DOTALL))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
