"""pytest's hooks, in the order in which pytest calls them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.ending import ignore_an_interrupt, interrupts_deferred

with interrupts_deferred():
    from harness import project
    from harness.errors import HarnessError, shortage
    from harness.numbers import MOST_BUFFER_KIB, percent, whole
    from harness.pytest_plugin import companions, distribute, fixtures, foreseen, items, selection
    from harness.pytest_plugin.early_end import EarlyEnd
    from harness.pytest_plugin.fixtures import nft_lab as nft_lab
    from harness.pytest_plugin.fixtures import nft_module_lab as nft_module_lab
    from harness.pytest_plugin.fixtures import nft_run as nft_run
    from harness.pytest_plugin.fixtures import nft_session_lab as nft_session_lab
    from harness.pytest_plugin.session import SESSION, Session
    from harness.report import kinds
    from harness.scenario.files import take
    from harness.text import lines
    from harness.tracer import engines

BELOW_ARGUMENTS = pytest.StashKey[dict[Path, bool]]()
"""Whether a folder is one of pytest's arguments, or in one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, each with its ini setting."""
    group = parser.getgroup("nft-harness")
    group.addoption(
        "--nft-kernel",
        action="append",
        metavar="KERNEL",
        help="kernel to run on: auto (default), host, a version such as 6.12, installed, or a folder with vmlinuz and "
        "modules; "
        "several times for several kernels (environment: NFT_KERNEL)",
    )
    group.addoption(
        "--nft-cold",
        action="store_true",
        help="boot microVMs even where a template could be restored (see nft-harness kernels warm)",
    )
    group.addoption(
        "--nft-fresh-labs",
        action="store_true",
        help="build a new lab for every scenario, even where the one before could be kept",
    )
    group.addoption(
        "--nft-tracer",
        choices=(*engines.NAMES, engines.TRACEPOINTS),
        default=engines.AUTO,
        help="how functions are traced: kprobe.multi carries all of them, fentry and kprobe a chosen few; "
        "auto (default) takes the best that the kernel has; tracepoints needs no probes and shows part of the path",
    )
    group.addoption(
        "--nft-modules",
        action="append",
        default=[],
        metavar="NAMES",
        help="kernel modules that rulesets and labs may load into this machine's own kernel, or all; without it only "
        "netfilter's own (environment: NFT_MODULES)",
    )
    group.addoption(
        "--nft-program",
        metavar="WHICH",
        help="the nft that reads rulesets: image (default; of the same Debian release as the kernel image, natively "
        "this machine's own), host (always this machine's own), or a kernel image whose nft is used, e.g. 7.2 "
        "(environment: NFT_PROGRAM)",
    )
    group.addoption(
        "--nft-buffer",
        type=whole(1, MOST_BUFFER_KIB),
        metavar="KIB",
        help="size of the ring buffer, to be raised if events are lost; default: 8192",
    )
    group.addoption(
        "--nft-require",
        action="store_true",
        help="report as an error, not as a skip, what this machine cannot do",
    )
    group.addoption(
        "--nft-record",
        action="store_true",
        help="update scenario files with what was seen, where nothing is expected or it differs",
    )
    group.addoption(
        "--nft-shell", action="store_true", help="open a shell in the lab of the first scenario that fails, at the end"
    )
    group.addoption(
        "--nft-keep",
        action="store_true",
        help="keep the lab of the first scenario that fails, and print how to enter it",
    )
    group.addoption(
        "--nft-lab-only",
        action="store_true",
        help="run nothing: open a shell in the lab of the first scenario, until Ctrl-D",
    )
    group.addoption(
        "--nft-repeat",
        type=whole(1),
        default=1,
        metavar="N",
        help="run every scenario N times, to find those whose outcome varies; -x stops at the first that fails",
    )
    group.addoption("--nft-results", metavar="DIR", help="store what was seen of each scenario in DIR, as JSON")
    for kind in kinds.KINDS:
        group.addoption(f"--nft-{kind.name}", metavar=kind.path, help=f"write {kind.what}")
    group.addoption(
        "--nft-github",
        choices=("auto", "yes", "no"),
        default="auto",
        help="annotate scenarios and rules in GitHub Actions; auto (default): when run there",
    )
    group.addoption("--nft-cov", action="store_true", help="show which rules, policies and matches the scenarios met")
    group.addoption(
        "--nft-cov-fail-under",
        type=percent,
        metavar="PERCENT",
        help="fail if less than PERCENT of the rules and policies is met",
    )
    parser.addini("nft_kernel", "kernels to run on, as --nft-kernel", type="args", default=[])
    parser.addini("nft_program", "the nft that reads rulesets, as --nft-program", default="")
    parser.addini("nft_modules", "kernel modules that may be loaded, as --nft-modules", type="args", default=[])
    # Read by harness.project as well, for nft-harness check and others.
    parser.addini(project.ALLOW, "files and folders that scenarios may name outside of their project", type="paths")
    parser.addini(project.FILES, "patterns of scenario files' names", type="args", default=list(project.PATTERNS))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Choose the reports, or only show a lab."""
    if config.option.nft_lab_only:
        from harness.shell.plugin import lab_only

        return lab_only(config)
    if not distribute.is_worker(config):
        kinds.by_environment(config.option)
        try:
            kinds.refuse_standard_output(config.option)
        except HarnessError as error:
            raise pytest.UsageError(f"nft-harness: {error}") from None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the kernels; open the session, and the reports where they are written.

    xdist has read ``-n`` before, in pytest_cmdline_main, and decides last in here whether there are workers, whichever
    of the two plugins was registered first.
    """
    config.addinivalue_line("markers", "nft_may_miss(*words): a skip whose reason has one of them is accepted in CI")
    try:
        _configure(config)
    except (OSError, MemoryError) as error:
        if (short := shortage(error)) is None:
            raise
        raise pytest.UsageError(f"nft-harness: {short}") from None


def _configure(config: pytest.Config) -> None:
    try:
        distribute.distribute(config)
    except OSError as error:
        raise pytest.UsageError(f"nft-harness: {shortage(error) or error}") from None
    if distribute.is_worker(config):
        companions.in_a_guest(config)
    elif distribute.DISTRIBUTION in config.stash and config.stash[distribute.DISTRIBUTION].chosen:
        companions.in_workers(config)
    config.stash[SESSION] = Session(config)
    has_scenarios = bool(selection.scenario_files(config).files)
    if has_scenarios:
        deferring = ExitStack()
        deferring.enter_context(interrupts_deferred())
        config.add_cleanup(deferring.close)
    if not distribute.is_worker(config):
        from harness.pytest_plugin.reports import Reports

        reports = Reports(config)
        config.pluginmanager.register(reports, "nft-harness-reports")
        if distribution := config.stash.get(distribute.DISTRIBUTION, None):
            from harness.pytest_plugin.tested import Tested

            config.pluginmanager.register(Tested(config, distribution, reports), "nft-harness-tested")
        if config.option.nft_shell or config.option.nft_keep:
            from harness.shell.plugin import Workbench

            config.pluginmanager.register(Workbench(config), "nft-harness-workbench")
        if config.option.nft_record:
            from harness.pytest_plugin.recording import RecordingPlugin

            config.pluginmanager.register(RecordingPlugin(), "nft-harness-recording")
        if has_scenarios:  # last: around the others' hooks
            config.pluginmanager.register(EarlyEnd(config.stash[SESSION]), "nft-harness-early-end")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, object, object]:
    """Say why a worker did not come up, with the console of its guest; xdist starts them in here."""
    distribute.check_plan(session.config)
    distribute.be_quiet(session.config)
    try:
        return (yield)
    except (OSError, EOFError) as error:
        if short := shortage(error):
            raise pytest.UsageError(f"nft-harness: {short}") from None
        distribution = session.config.stash.get(distribute.DISTRIBUTION, None)
        if distribution is None or not (distribution.guests or distribution.sudo):
            raise
        raise pytest.UsageError(distribution.not_up()) from None


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say where the session runs, and why, and which YAML files are not scenario files."""
    distribution = config.stash.get(distribute.DISTRIBUTION, None)
    return [*(distribution.header() if distribution else foreseen.header(config)), *selection.header(config)]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Have the controller show which argument names no test: a worker has nowhere to write."""
    try:
        return (yield)
    except pytest.UsageError as error:
        session.config.stash[SESSION].cannot_use(error)
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In a worker, leave out what does not lead to pytest's arguments.

    pytest drops that anyway, but looks at each file first: in a guest those are requests to the host.
    """
    session = config.pluginmanager.get_plugin("session")
    if not distribute.is_worker(config) or session is None:
        return None
    if session.isinitpath(collection_path, with_parents=True):
        return None
    below, folder = config.stash.setdefault(BELOW_ARGUMENTS, {}), collection_path.parent
    if folder not in below:
        below[folder] = any(session.isinitpath(one) for one in (folder, *folder.parents))
    return None if below[folder] else True


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the project's scenario files, and those that are named on the command line."""
    session = parent.config.stash[SESSION]
    named = parent.session.isinitpath(file_path)
    if session.has(file_path) or take(file_path, selection.project(parent.config), named=named):
        return items.ScenarioFile.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note for which test the fixtures work."""
    fixtures.begin(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the user's errors as sentences, and send with the report what the reports read."""
    fixtures.add_properties(item, call)
    report = yield
    if isinstance(item, items.ScenarioItem):
        if call.excinfo and report.failed:
            report.longrepr = items.representation(item, call.excinfo) or report.longrepr
        items.attach(item, [item.trial], report)
        if call.when == "teardown":
            item.trial.forget()
    elif fixtures.TRIALS in item.stash:
        fixtures.conclude(item, call, report)
        if call.when == "teardown":
            item.stash[fixtures.TRIALS] = []  # pytest keeps its items until the session ends
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what was learned of the kernel; a worker that was ended for what it sent breaks the run, or a complaint."""
    run = session.config.stash[SESSION]
    run.finish()
    if not distribute.is_worker(session.config) and selection.scenario_files(session.config).files:
        companions.before_the_summary(session.config)
    if run.unusable:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
    if run.broken and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        from harness.pytest_plugin.reports import BROKEN  # the controller has it, a worker in a guest does without

        session.exitstatus = BROKEN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was traced, which arguments name no test, and which workers were ended."""
    for line in config.stash[SESSION].unusable:
        terminalreporter.write_line(lines(f"ERROR: {line}"), red=True)
    for line in config.stash[SESSION].broken:
        terminalreporter.write_line(f"nft-harness: {line}", red=True)
    if config.option.verbose >= 0:
        for line in config.stash[SESSION].summary():
            terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Check where a worker runs, and send it what the controller knows."""
    distribute.check_worker(node)
    node.config.stash[SESSION].inform(node.workerinput)
    node.config.stash[SESSION].watch(node)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Generator[None, Any, Any]:
    """Of several kernels each runs every test."""
    first = yield
    distribution = config.stash.get(distribute.DISTRIBUTION, None)
    if distribution is None or len(distribution.places) < 2:
        return first
    from harness.pytest_plugin.schedule import EachKernel

    make = config.pluginmanager.subset_hook_caller("pytest_xdist_make_scheduler", [sys.modules[__name__]])
    others = [make(config=config, log=log) for _ in distribution.places[1:]]
    return EachKernel([first, *others], distribution.copies, distribution.place)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Keep what a worker has learned, or show the console of its kernel."""
    node.config.stash[SESSION].worker_ended(node.gateway.id, getattr(node, "workeroutput", {}), error)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    """A kernel that died says nothing about the ruleset: that is an error, as in setup, and no failure.

    Sessions without scenarios are xdist's own.
    """
    node: Any = report.node
    if distribution := node.config.stash.get(distribute.DISTRIBUTION, None):
        report.when = "setup"
        vars(report).update(nft_broken=True, nft_kernel=distribution.release(distribution.place(node.gateway.id)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> Generator[None, object, object]:
    """Close the session. There is nothing left that Ctrl-C could interrupt."""
    ignore_an_interrupt()
    try:
        return (yield)
    finally:
        if session := config.stash.get(SESSION, None):
            session.close()
