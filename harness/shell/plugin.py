"""``--nft-shell``, ``--nft-keep``, ``--nft-lab-only``: into the lab of a scenario that failed, or instead of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.pytest_plugin import distribute
from harness.pytest_plugin.selection import scenario_files
from harness.scenario.files import shortened
from harness.shell import enter
from harness.shell.enter import ShellRequest
from harness.vm import placement


class Workbench:
    """A plugin of pytest's for the session that the user started: it waits for the first scenario that fails."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._failed: pytest.TestReport | None = None
        self._distribution = config.stash.get(distribute.DISTRIBUTION, None)
        if config.option.nft_shell:
            os.close(_terminal("--nft-shell"))
        if config.option.nft_keep and self._distribution and self._distribution.guests:
            raise pytest.UsageError("nft-harness: --nft-keep: a microVM ends with the session; use --nft-shell")
        if config.option.nft_keep and os.geteuid() != 0:
            raise pytest.UsageError("nft-harness: --nft-keep needs root; use --nft-shell")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure."""
        if report.failed and getattr(report, "nft_scenario", None) and self._failed is None:
            self._failed = report

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Open the shell, or leave the lab and say how to enter it."""
        if self._failed is None:
            return
        try:
            if self._config.option.nft_keep:
                names = enter.keep(self._wish(placement.HOST))
                terminalreporter.write_line(f"nft-harness: the lab of {self._failed.nodeid} is left")
                for name in names:
                    terminalreporter.write_line(f"  enter it: ip netns exec {name} bash")
                terminalreporter.write_line("  remove it: nft-harness lab remove")
            if self._config.option.nft_shell:
                _shell(self._wish(self._kernel()), _terminal("--nft-shell"))
        except HarnessError as error:
            terminalreporter.write_line(f"nft-harness: {error}", red=True)

    def _kernel(self) -> str:
        """The kernel on which the scenario failed."""
        node = getattr(self._failed, "node", None)  # xdist's, of a worker
        if node is None or self._distribution is None:
            return placement.HOST
        guest = self._distribution.places[self._distribution.place(node.gateway.id)][1]
        return str(guest.image.vmlinuz) if guest else placement.HOST

    def _wish(self, kernel: str) -> ShellRequest:
        assert self._failed is not None
        file, _, scenario = self._failed.nft_scenario.partition("::")
        return ShellRequest(
            file=shortened(Path(file)),
            scenario=scenario,
            kernel=kernel,
            modules=_modules(self._config),
            nft_program=distribute.asked_nft(self._config),
        )


def lab_only(config: pytest.Config) -> int:
    """Instead of running scenarios: a shell in the lab of the first one that pytest's arguments name."""
    file = next(iter(scenario_files(config).files), None)
    if file is None:
        raise pytest.UsageError("nft-harness: --nft-lab-only needs a scenario file")
    scenario = config.args[0].partition("::")[2]
    asked = config.option.nft_kernel or [placement.AUTO]
    request = ShellRequest(
        file=shortened(file),
        scenario=scenario,
        kernel=asked[0],
        send=False,
        modules=_modules(config),
        nft_program=distribute.asked_nft(config),
    )
    return _shell(request, _terminal("--nft-lab-only"))


def _modules(config: pytest.Config) -> str:
    return ",".join([*config.option.nft_modules, *config.getini("nft_modules")])


def _terminal(option: str) -> int:
    """The terminal that pytest was started from; its stdin is not to be had while it captures."""
    try:
        return os.open("/dev/tty", os.O_RDWR)
    except OSError:
        remedy = "nft-harness lab enter FILE -- COMMAND runs a command without one"
        raise pytest.UsageError(f"nft-harness: {option} needs a terminal; {remedy}") from None


def _shell(request: ShellRequest, terminal: int) -> int:
    # A process of its own: it makes itself mounts, which threads of this one must not have.
    command = [sys.executable, "-m", "harness.cli", "lab", "enter", f"{request.file}::{request.scenario}"]
    command += ["--kernel", request.kernel, "--modules", request.modules]
    command += ["--nft-program", request.nft_program, *(["--fresh"] if not request.send else [])]
    with os.fdopen(terminal, "r+b", buffering=0) as tty:
        return subprocess.run(command, stdin=tty, stdout=tty, stderr=tty, check=False).returncode
