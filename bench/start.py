"""From command to prompt, cold and restored, side by side; all scenarios, by one guest and two; one more natively.

::

    python bench/start.py [--runs N] [--kernel 6.12]... [--all] [--write]

The subjects take turns, N times (default: 10): a cold boot, a restored guest, and virtme-ng with the same kernel to a
shell, where ``vng`` is installed. ``--all`` also runs every shipped scenario once with one and with two guests, and,
for root, measures on this machine's own kernel what one more scenario takes in a lab that is kept: the difference
between runs of many and of two, by tracepoints. ``--write`` puts the table into docs/performance.md. The figures mean
little on a busy machine; the load stands beside the table.
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
from harness.vm.accelerator import accelerator

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- bench start: begin -->", "<!-- bench start: end -->"
ONE = ["scenarios/edge.yaml", "-k", "HTTPS-from"]
NATIVE = ["-n", "0", "--nft-kernel", "host", "--nft-tracer", "tracepoints"]
KEPT = "scenarios/nat-gateway.yaml::The-server-cannot-be-reached-past-the-gateway"
MANY = 300


class Measured:
    """Seconds and seconds of CPU, children included, of runs of one command."""

    def __init__(self, what: str, *command: str, proof: str = "") -> None:
        """``proof`` is what the command prints where it succeeds, for one whose exit status does not say that."""
        self.what = what
        self._command = command
        self._proof = proof
        self.passed: list[float] = []
        self.used: list[float] = []

    def warm_up(self) -> None:
        """Run the command once, uncounted: it compiles, and fills caches."""
        self._output()

    def run(self) -> str:
        """Run the command once; what it prints. Raises :class:`subprocess.CalledProcessError` when it fails."""
        before, start = os.times(), time.monotonic()
        output = self._output()
        after = os.times()
        self.passed.append(time.monotonic() - start)
        self.used.append(after.children_user + after.children_system - before.children_user - before.children_system)
        return output

    def _output(self) -> str:
        done = subprocess.run(
            self._command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if self._proof else None,
            text=True,
        )
        if self._proof not in done.stdout if self._proof else done.returncode:
            raise subprocess.CalledProcessError(done.returncode, self._command, done.stdout)
        return done.stdout

    def row(self) -> str:
        """A line of the table."""
        return f"| {self.what} | {spread(self.passed)} | {spread(self.used)} | {len(self.passed)} |"


def spread(values: list[float], digits: int = 2) -> str:
    """Median, and the least and the most in parentheses, of seconds."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


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
        same = ["--disable-kvm"] if accelerator(image).name == "tcg" else []
        # Where the kernel has its ports in a module, and there is no udev to load it, the status is 255.
        command = [vng, "--verbose", *same, "--run", str(image.vmlinuz), "--", "true"]
        subjects.append(Measured(f"{kernel}: `vng`, to a shell", *command, proof="script exited with code 0"))
    for subject in subjects:
        subject.warm_up()
    for _ in range(runs):
        for subject in subjects:
            subject.run()
    if everything:
        for copies in ("1", "2"):
            subject = Measured("", *pytest, "-n", copies, "scenarios")
            found = re.search(r"(\d+) passed", subject.run())
            number = int(found[1]) if found else 0
            each = f", {subject.passed[0] / number:.3f} s for each of {number}" if number else ""
            subject.what = f"{kernel}: all of scenarios/, `-n {copies}`{each}"
            subjects.append(subject)
    return [subject.row() for subject in subjects]


def kept(runs: int) -> str:
    """A line of the table about one more scenario in a lab that is kept, on this machine's own kernel."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NATIVE, KEPT]
    few, many = (Measured("", *pytest, f"--nft-repeat={number}") for number in (2, 2 + MANY))
    few.warm_up()
    one = Measured(f"natively: one more scenario in a kept lab (of {MANY})")
    for _ in range(runs):
        few.run()
        many.run()
        one.passed.append((many.passed[-1] - few.passed[-1]) / MANY)
        one.used.append((many.used[-1] - few.used[-1]) / MANY)
    return f"| {one.what} | {spread(one.passed, 4)} | {spread(one.used, 4)} | {runs} |"


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
    if options.all and os.geteuid() == 0:
        measured.append(kept(options.runs))
    newest = {one.name.partition("-")[0]: one for one in reversed(template.all_templates())}
    sizes = ", ".join(f"{one.bytes >> 20} MiB ({release})" for release, one in sorted(newest.items()))
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
