"""Sends a pytest session to the kernels it shall run on: each is a worker of pytest-xdist.

A microVM is a Python to execnet, so all that is done here is to choose the places and to write
them into xdist's options; distributing, reporting and stopping are xdist's own.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from harness.chosen import scenario_files
from harness.errors import HarnessError
from harness.scenario.files import fixture_users
from harness.text import lines

# What only the controller needs is imported where it is used: an emulated guest pays for each module.
if TYPE_CHECKING:
    from harness.kernel.microvm import Guest
    from harness.kernel.where import Place


class Distribution(msgspec.Struct, frozen=True):
    """Where a session runs: places, each with the guest that is to be booted for it, if any."""

    places: list[tuple[Place, Guest | None]]
    copies: int
    """Workers for each guest."""

    @property
    def guests(self) -> list[Guest]:
        """The microVMs."""
        return [guest for _, guest in self.places if guest]

    def header(self) -> list[str]:
        """Lines for pytest's header: where the session runs, and why."""
        from harness.ruleset.nft import nft_version

        return [
            "; ".join(
                part
                for part in (
                    f"nft-harness: {guest.describe() if guest else place}: {place.reason}",
                    place.engine(),
                    f"nft {nft_version()}",
                )
                if part
            )
            for place, guest in self.places
        ]

    def specs(self) -> list[str]:
        """What xdist's ``--tx`` takes; nothing when this process is the only place."""
        if not self.guests and len(self.places) == 1:
            return []
        guests = [guest.spec(copy) for guest in self.guests for copy in range(self.copies)]
        return guests + ["popen//id=host" for _, guest in self.places if not guest]

    def last_words(self, worker: str) -> str:
        """What the kernel of a worker said on its console; "" for a worker on the host."""
        return "".join(guest.console() for guest in self.guests if worker.startswith(guest.name))

    def not_up(self) -> str:
        """What to tell when a guest did not come up: all that the guests' kernels have said."""
        said = [f"{guest.describe()} said:\n{lines(console)}" for guest in self.guests if (console := guest.console())]
        return "\n".join(["nft-harness: a microVM did not come up (the reason is above)", *said])


DISTRIBUTION = pytest.StashKey[Distribution]()


def distribute(config: pytest.Config) -> None:
    """Choose where the session runs, and have xdist run it there.

    Sessions without scenarios and without tests that take our fixtures are left alone, unless a
    kernel is asked for on the command line.
    Raises :class:`pytest.UsageError` when no kernel can be had.
    """
    asked: list[str] | None = config.option.nft_kernel
    if is_worker(config) or config.option.collectonly:
        return
    if not (asked or scenario_files(config).files or any(fixture_users(config.args, config.getini("python_files")))):
        return
    from harness.kernel import where
    from harness.kernel.microvm import Guest
    from harness.kernel.progress import shown

    try:
        with shown(sys.stderr) as progress:
            places = where.choose(asked or _default(config), progress, config.option.nft_tracer)
            guests = [(place, Guest.plan(place.image) if place.image else None) for place in places]
    except HarnessError as error:
        raise pytest.UsageError(f"nft-harness: {error}") from None
    if any(guest for _, guest in guests) and not config.pluginmanager.has_plugin("xdist"):
        raise pytest.UsageError("nft-harness: a microVM is a worker of pytest-xdist; leave out -p no:xdist")
    copies = getattr(config.option, "numprocesses", None) or 1  # xdist's option
    if len(places) > 1 and copies > 1:
        raise pytest.UsageError("nft-harness: -n gives one kernel several workers, but several kernels were asked for")
    names = [guest.name for _, guest in guests if guest]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise pytest.UsageError(f"nft-harness: kernel {twice} was asked for twice; results could not be told apart")
    distribution = config.stash[DISTRIBUTION] = Distribution(guests, copies)
    if specs := distribution.specs():
        config.option.tx = specs
        config.option.dist = "each" if len(places) > 1 else "load"
        config.option.maxworkerrestart = "0"


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def _default(config: pytest.Config) -> list[str]:
    """The kernels to use when the command line names none."""
    return os.environ.get("NFT_KERNEL", "").split() or config.getini("nft_kernel") or ["auto"]
