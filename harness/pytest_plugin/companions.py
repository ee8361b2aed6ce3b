"""Other plugins of pytest, where they must know that a session runs in workers, and in guests without a network.

pytest-cov chooses how to measure before any kernel is chosen. pytest-rerunfailures has each worker connect to the
controller by TCP, which a guest cannot: there it gets a server of its own, so reruns are counted for each guest.
Hypothesis's plugin imports all of Hypothesis to write its part of the summary, which takes as long as a scenario.
pytest's own header, which nobody sees of a worker, reads the versions of all plugins.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from harness.vm.port import in_guest


def in_workers(config: pytest.Config) -> None:
    """The controller, once it is decided that the session runs in workers."""
    coverage: Any = config.pluginmanager.get_plugin("_cov")
    before = getattr(coverage, "cov_controller", None)
    if before is None or type(before).__name__ != "Central":
        return
    from pytest_cov.engine import DistMaster

    before.cov.stop()
    before.cov._warn_no_data = before.cov._warn_unimported_source = False  # workers will have run it
    coverage.start(DistMaster)  # removes what earlier sessions have measured
    before.cov.save()  # this one, until now


def in_a_guest(config: pytest.Config) -> None:
    """A worker, before its plugins are configured."""
    if not in_guest():
        return
    config.option.no_header = True
    given: dict[str, object] = config.workerinput  # type: ignore[attr-defined]
    if "sock_port" not in given or not config.pluginmanager.has_plugin("rerunfailures"):
        return
    from pytest_rerunfailures import ServerStatusDB

    server = ServerStatusDB()
    given["sock_port"] = server.sock_port
    if "statusdb_token" in given:
        given["statusdb_token"] = server.token


def before_the_summary(config: pytest.Config) -> None:
    """Unregister Hypothesis's plugin when no test has used Hypothesis: its summary would be empty."""
    plugin, reporter = map(config.pluginmanager.get_plugin, ("hypothesispytest", "terminalreporter"))
    if plugin is None or reporter is None or "hypothesis" in sys.modules:
        return
    reports = [report for reports in reporter.stats.values() for report in reports]
    if not any(name.startswith("_hypothesis") for report in reports for name in getattr(report, "__dict__", ())):
        config.pluginmanager.unregister(plugin)


def count(config: pytest.Config) -> int:
    """How often pytest-repeat is to run each test; 1 without it."""
    names = ("repeat", "pytest_repeat")  # since 0.9.3, and before
    times = config.option.count if any(map(config.pluginmanager.has_plugin, names)) else 1
    return max(int(times), 1)
