"""Sends a pytest session to the kernels it shall run on: each is a worker of pytest-xdist.

A microVM is a Python to execnet, so all that is done here is to choose the places, to write them into
xdist's options, and to check that each worker runs in the kernel that was chosen for it; distributing,
reporting and stopping are xdist's own.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from harness.errors import KILLED, HarnessError, Unsupported
from harness.pytest_plugin.foreseen import nothing_to_run
from harness.pytest_plugin.selection import scenario_files
from harness.scenario.files import fixture_users
from harness.text import lines

# What only the controller needs is imported where it is used: an emulated guest pays for each module.
if TYPE_CHECKING:
    from harness.vm.guest import Guest
    from harness.vm.placement import Placement


class Kernel(NamedTuple):
    """A running kernel."""

    release: str
    """As ``uname -r``."""
    boot: str
    """Different after each boot, and the same in all containers of a machine: random(4), boot_id."""

    @classmethod
    def here(cls) -> Kernel:
        """The kernel of this process."""
        return cls(os.uname().release, Path("/proc/sys/kernel/random/boot_id").read_text().strip())


ASK = """
import os
with open("/proc/sys/kernel/random/boot_id") as file:
    channel.send((os.uname().release, file.read().strip()))
"""
"""Program by which a worker reports its :class:`Kernel`, before it imports pytest."""


class Distribution(msgspec.Struct, frozen=True):
    """Where a session runs: places, each with the guest that is to be booted for it, if any."""

    places: list[tuple[Placement, Guest | None]]
    copies: int
    """Workers for each place."""

    @property
    def guests(self) -> list[Guest]:
        """The microVMs."""
        return [guest for _, guest in self.places if guest]

    @property
    def sudo(self) -> bool:
        """Whether a worker gets root's capabilities from sudo."""
        return any(place.sudo for place, _ in self.places)

    @property
    def chosen(self) -> bool:
        """Whether the workers are chosen here; if not, this process or xdist's own workers run on the host."""
        return bool(self.guests) or len(self.places) > 1 or self.sudo

    def header(self) -> list[str]:
        """Lines for pytest's header: where the session runs, and why."""
        from harness.ruleset.nft import own_version

        return [
            "; ".join(
                part
                for part in (
                    f"nft-harness: {guest.describe() if guest else place}: {place.reason}",
                    guest.start if guest else "",
                    place.engine(),
                    place.nft_described(own_version()),
                )
                if part
            )
            for place, guest in self.places
        ]

    def workers(self) -> list[tuple[str, int, int]]:
        """Name, number of the place, and number there of each worker that is chosen here."""
        if not self.chosen:
            return []
        return [
            (guest.worker(copy) if guest else f"host-{copy}" if copy else "host", number, copy)
            for number, (_, guest) in enumerate(self.places)
            for copy in range(self.copies)
        ]

    def specs(self) -> list[str]:
        """What xdist's ``--tx`` takes; nothing when this process is the only place."""
        return [self._spec(name, *self.places[number], copy) for name, number, copy in self.workers()]

    @staticmethod
    def _spec(name: str, place: Placement, guest: Guest | None, copy: int) -> str:
        if guest:
            return guest.spec(copy)
        if not place.sudo:
            return f"popen//id={name}"
        from harness.vm import privileged

        return f"popen//id={name}//python={re.sub('/+', '/', shlex.join(privileged.wrapper()))}"

    def place(self, worker: str) -> int:
        """The number of the place of a worker, by its name; "" is this process.

        Raises :class:`KeyError` for a worker that is not one of those chosen here.
        """
        return {name: number for name, number, _ in self.workers()}[worker] if self.chosen else 0

    def release(self, place: int) -> str:
        """The release of the kernel at a place."""
        guest = self.places[place][1]
        return guest.image.release if guest else os.uname().release

    def misplaced(self, worker: str, seen: Kernel, host: Kernel) -> str:
        """What is wrong with the kernel that a worker has reported; "" if it is the chosen one."""
        try:
            place, guest = self.places[self.place(worker)]
        except KeyError:
            return f"{worker} is not a planned worker"
        release = guest.image.release if guest else host.release
        if seen.release == release and (seen.boot == host.boot) is (guest is None):
            return ""
        on_host = "the host's" if seen.boot == host.boot else "not the host's"
        wanted = guest.describe() if guest else str(place)
        return f"worker {worker} runs on kernel {seen.release}, {on_host}, and not on {wanted}"

    def guest(self, worker: str) -> Guest | None:
        """The guest that a worker is in, by the worker's name; None on the host."""
        return self.places[self.place(worker)][1]

    def last_words(self, worker: str) -> str:
        """Console output of the kernel of a worker; "" for a worker on the host."""
        guest = self.guest(worker)
        return guest.console() if guest else ""

    def not_up(self) -> str:
        """The error when a worker did not come up: the console output of all guests."""
        if not self.guests:
            return f"nft-harness: a worker did not come up {_WHY}"
        said = [f"{guest.describe()} said:\n{lines(console)}" for guest in self.guests if (console := guest.console())]
        return "\n".join([f"nft-harness: a microVM did not come up {_WHY}", *said])


_WHY = f"(the reason is above; if there is none, its process was killed, {KILLED})"
DISTRIBUTION = pytest.StashKey[Distribution]()


def distribute(config: pytest.Config) -> None:
    """Choose where the session runs, and have xdist run it there.

    Called when xdist has read its options and before it looks at what they have become. Sessions without
    scenarios and without tests that take our fixtures are left alone, unless a kernel is asked for on
    the command line.
    Raises :class:`pytest.UsageError` when no kernel can be had.
    """
    if is_worker(config) or not _runs_tests(config.option):
        return
    if not (config.option.nft_kernel or scenario_files(config).files or _uses_fixtures(config)):
        return
    _require_paths(config)
    try:
        places = _places(config, asked_kernels(config))
    except HarnessError as error:
        raise pytest.UsageError(f"nft-harness: {error}") from None
    # xdist has made a number of "auto" and "logical"; 0 asks for no workers, and a microVM is one.
    if not places:
        return  # each scenario is an error, in this process
    copies = getattr(config.option, "numprocesses", None) or 1
    distribution = Distribution(places, min(copies, getattr(config.option, "maxprocesses", None) or copies))
    names = [name for name, _, _ in distribution.workers()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise pytest.UsageError(
            f"nft-harness: kernel {twice} was requested twice; its results could not be distinguished"
        )
    if distribution.chosen:
        _send(config, distribution)
    config.stash[DISTRIBUTION] = distribution


def _places(config: pytest.Config, kernels: Sequence[str]) -> list[tuple[Placement, Guest | None]]:
    """Where ``kernels`` run, each with its guest, if it needs one, and how that will start; none for broken scenarios.

    Raises :class:`HarnessError` when one of them cannot be had.
    """
    from harness.vm import placement
    from harness.vm.guest import Guest
    from harness.vm.progress import shown

    _require_bindings()
    options = config.option
    interactive = sys.stderr.isatty() and not os.environ.get("CI")
    with shown(sys.stderr) as progress:
        chosen = placement.choose(kernels, progress, options.nft_tracer, asked_nft(config))
        if any(place.image for place in chosen) and nothing_to_run(config, chosen) and not _uses_fixtures(config):
            return []
        places = [(place, Guest.plan(place.image) if place.image else None) for place in chosen]
        for _, guest in places:
            if guest:
                guest.decide(cold=options.nft_cold, progress=progress if interactive else None)
    return places


def _uses_fixtures(config: pytest.Config) -> bool:
    return any(fixture_users(config.args, config.getini("python_files")))


def check_plan(config: pytest.Config) -> None:
    """End the session with an error if xdist's options are no more what :func:`distribute` has made them."""
    distribution = config.stash.get(DISTRIBUTION, None)
    if distribution is None or not distribution.chosen:
        return
    if config.option.tx != distribution.specs() or not config.pluginmanager.has_plugin("dsession"):
        _end("the workers of pytest-xdist are not those that nft-harness has chosen: another plugin changed them")


def be_quiet(config: pytest.Config) -> None:
    """Have xdist say nothing of starting workers with ``-q``, as pytest says nothing of what it collects then.

    xdist has no option for that: its reporter writes ``bringing up nodes...`` whatever the verbosity.
    """
    reporter: Any = config.pluginmanager.get_plugin("terminaldistreporter")
    if reporter is not None and config.option.verbose < 0 and DISTRIBUTION in config.stash:
        reporter.ensure_show_status = reporter.setstatus = lambda *_, **__: None


def check_worker(node: Any) -> None:
    """End the session with an error if a worker, xdist's ``node``, is not in the kernel that was chosen for it."""
    distribution = node.config.stash.get(DISTRIBUTION, None)
    if distribution is None:
        return
    channel = node.gateway.remote_exec(ASK)
    release, boot = channel.receive()
    channel.waitclose()
    if wrong := distribution.misplaced(node.gateway.id, Kernel(str(release), str(boot)), Kernel.here()):
        _end(wrong)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def _end(sentence: str) -> None:
    from harness.pytest_plugin.reports import BROKEN

    pytest.exit(f"nft-harness: {sentence}; nothing was tested", returncode=BROKEN)


def _runs_tests(options: Any) -> bool:
    """Whether pytest was called to run tests, and not to show something."""
    shown = ("collectonly", "help", "version", "showfixtures", "show_fixtures_per_test", "markers", "cacheshow")
    return not any(getattr(options, name, None) for name in shown)


def _require_paths(config: pytest.Config) -> None:
    """Refuse arguments that name nothing, as pytest does when it collects, before a kernel boots for that."""
    for argument in () if config.option.pyargs else config.args:
        if not (config.invocation_params.dir / argument.partition("::")[0]).exists():
            raise pytest.UsageError(f"file or directory not found: {argument}")


def _require_bindings() -> None:
    """Raise :class:`Unsupported` when this Python, which is that of the guests as well, lacks what has no package."""
    for module, package in (("bcc", "python3-bpfcc"), ("nftables", "python3-nftables")):
        if importlib.util.find_spec(module) is None:
            raise Unsupported(
                f"{sys.executable} has no module {module}",
                remedy=f"run apt-get install {package}; it serves the system's Python, and virtual environments "
                "made by it with --system-site-packages",
            )


def _send(config: pytest.Config, distribution: Distribution) -> None:
    """Have xdist start the workers of ``distribution``."""
    where = (
        "a microVM"
        if distribution.guests
        else "a worker with root's capabilities"
        if distribution.sudo
        else "a worker for each kernel"
    )
    here = f"run {'as root ' if distribution.sudo else ''}on the host alone with --nft-kernel host"
    options = config.option
    if not hasattr(options, "tx"):
        raise pytest.UsageError(f"nft-harness: {where} is a worker of pytest-xdist; leave out -p no:xdist")
    if options.usepdb or options.trace:
        name = "--pdb" if options.usepdb else "--trace"
        raise pytest.UsageError(
            f"nft-harness: {name} debugs this process, but tests run in {where}; leave it out, or {here}"
        )
    if options.tx and not options.numprocesses:
        raise pytest.UsageError(
            f"nft-harness: --tx names workers, but tests run in {where}; leave it out and use --nft-kernel and -n, "
            f"or {here}"
        )
    options.tx = distribution.specs()
    # Each kernel runs every test, so "each" is so already; what is left to xdist is to share them among
    # the workers of one kernel.
    options.dist = "load" if options.dist in ("no", "each") else options.dist
    options.maxworkerrestart = "0"
    # pytest has garbage collected twice at the end (_pytest/unraisableexception.py). No test runs here: what has been
    # imported by now need not be looked at.
    gc.freeze()


def asked_nft(config: pytest.Config) -> str:
    """Which nft reads rulesets.

    A worker decides the same: xdist sends it the command line, and no option as it has become.
    """
    from harness.vm import placement

    return placement.asked_nft(config.option.nft_program, config.getini("nft_program"))


def asked_kernels(config: pytest.Config) -> tuple[str, ...]:
    """The kernels to run on."""
    from harness.vm import placement

    return placement.asked_kernels(config.option.nft_kernel or (), config.getini("nft_kernel"))
