"""Tracing a loaded ruleset: chains that switch the trace on, and the messages with their rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from harness.errors import HarnessError
from harness.lab.lab import Host
from harness.model.observation import Step
from harness.nft_syntax import quoted
from harness.ruleset.listing import Chain
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import NftError
from harness.ruleset.nftrace import TraceMessage, TraceSocket
from harness.ruleset.nftrace_steps import TraceSteps

FIRST: Final = -(2**31)
"""The lowest priority. Of two chains with the same one, the later registered is evaluated first
(nf_hook_entries_grow in net/netfilter/core.c), so no chain of the user comes before."""


class TraceChains:
    """Every packet is traced in each hook where ``ruleset`` has a chain, from its first evaluation on.

    The chains for this stand in tables of their own and accept everything, which leaves the
    ruleset's decisions as they are; only a rule that matches ``meta nftrace`` could observe the difference.
    They are added after the ruleset, which may begin with ``flush ruleset``. A packet must be
    marked anew in each hook: the mark does not survive the way between namespaces.
    """

    def __init__(self, host: Host, ruleset: Ruleset, table: str = "") -> None:
        self._families: set[str] = set()
        """Those that have had tables of tracing chains."""
        self.steps = TraceSteps(host.name, ruleset, table or unused_table([ruleset]), host.names)
        """What messages mean."""
        self._trace = TraceSocket(host)
        self.follow(ruleset)

    def follow(self, ruleset: Ruleset) -> None:
        """Trace ``ruleset``, which has been loaded or changed: its hooks may be others, and its chains newer."""
        self.rename(ruleset)
        try:
            ruleset.nft.run(self.anew())
        except NftError as refused:
            raise HarnessError(f"nft refused the chains that trace the ruleset: {refused}") from None
        self._families |= {chain.family for chain in ruleset.chains if chain.is_base}

    @property
    def table(self) -> str:
        """Name of the tables that hold the tracing chains."""
        return self.steps.table

    def rename(self, ruleset: Ruleset) -> None:
        """Call what is traced by the rules of ``ruleset``, which has the same hooks."""
        self.steps.ruleset = ruleset

    def anew(self) -> str:
        """Commands that load the tracing chains, in place of those that are there."""
        before = "".join(f"add table {one} {self.table}\ndelete table {one} {self.table}\n" for one in self._families)
        return before + commands(self.steps.ruleset, self.table)

    @property
    def cookie(self) -> int:
        """SO_COOKIE of the socket that receives the trace."""
        return self._trace.cookie

    @property
    def overruns(self) -> int:
        """How often the kernel reported lost messages (ENOBUFS)."""
        return self._trace.overruns

    def read(self) -> list[tuple[TraceMessage, Step | None]]:
        """The messages since the last call, each with the step of the ruleset that it is about.

        Those of the tracing chains have none. Steps have no time of their own: it is 0.
        """
        return [(message, self.steps.step(message)) for message in self._trace.read()]

    def receive(self) -> list[bytes]:
        """The same as the kernel gave it, for :func:`harness.ruleset.nftrace.decoded`."""
        return self._trace.receive()


def unused_table(rulesets: Iterable[Ruleset]) -> str:
    """A name that no table of ``rulesets`` has."""
    name = "nft_harness"
    taken = {chain.table for ruleset in rulesets for chain in ruleset.chains}
    while name in taken:
        name += "_"
    return name


def commands(ruleset: Ruleset, table: str) -> str:
    """What makes nft add the tracing chains: one for each family, hook and device in use."""
    places = {place: None for chain in ruleset.chains if chain.is_base for place in _places(chain)}
    return "\n".join(
        f"add table {family} {table}\n"
        f"add chain {family} {table} {hook}{number} "
        f"{{ type filter hook {hook}{device} priority {FIRST}; policy accept; }}\n"
        f"add rule {family} {table} {hook}{number} meta nftrace set 1 accept"
        for number, (family, hook, device) in enumerate(places)
    )


def _places(chain: Chain) -> Iterator[tuple[str, str, str]]:
    for device in chain.devices:
        yield chain.family, chain.hook, f" device {quoted(device)}"
    if not chain.devices:
        yield chain.family, chain.hook, ""
