"""A lab that stays for the next scenario, where that begins as in a new one.

To build a lab and read its ruleset takes most of a scenario's time. The next one gets the same lab where it has the
same plan and ruleset, and where each thing that packets can change is either changed by none of what has been sent, or
is taken back:

=====================================  ===================================================================
the ruleset: counters, limits, sets    loaded anew, atomically; it must be listed as before, handles included,
                                       from the same files. It stays if packets can change only counters in it, which
                                       are reset, and nobody else has changed it (:mod:`harness.ruleset.unchanged`)
connections, their expectations        flushed
neighbour entries                      none may have been added; those planned are made anew, for each keeps the
                                       Ethernet header that it wrote first
route exceptions, path MTU             nothing that makes one was sent (ICMP errors, redirects, advertisements)
fragments that wait for others         no fragment was sent
TCP metrics, sockets, ports in use     no program ran
limits of ICMP errors, per peer too    off; not in labs that set them
a bridge's forwarding database         must be as before: a bridge learns no Ethernet address that is planned
tunnels, VXLANs, WireGuard             not in labs with these
a queue of delayed packets             not in labs with a delay or loss
IPsec's sequence numbers               not in labs with IPsec
modules                                not where a lab asks for one but br_netfilter, which remembers nothing, or where
                                       one was loaded that stays
what a step has changed                no step but packets that are sent
what other hosts know                  they are silent: their kernels answer nothing
=====================================  ===================================================================

Whatever is not known to leave nothing behind means a lab of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Final

from harness.experiment.run import Experiment, Measurement, perform
from harness.lab.required_modules import BRIDGE_NETFILTER
from harness.linux import health, modules
from harness.packets.headers import fields, is_fragment
from harness.topology.parts import Bridge, Dummy, HostPlan, Macvlan, Vlan, Vrf
from harness.vm.port import in_guest

if TYPE_CHECKING:
    from harness.scenario.case import Case
    from harness.topology.network import Network
    from harness.tracer.base import BaseTracer

_PLAIN: Final = (Vlan, Macvlan, Vrf, Dummy, Bridge)
"""Interfaces that remember nothing of the packets that pass them, but for the addresses that a bridge learns."""
_ECHO: Final = {"icmp": (0, 8), "icmpv6": (128, 129)}
"""Types of echo messages, which change nothing in the kernel that they reach."""


class KeptLab:
    """Runs scenarios, one after the other; the lab of the last one is kept for the next.

    With ``fresh`` every scenario has a lab of its own.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self._fresh = fresh
        self._open = ExitStack()
        self._stage: Experiment | None = None
        self._case: Case | None = None
        self._tracer: BaseTracer | None = None
        self._modules: set[str] = set()

    def run(self, case: Case, tracer: BaseTracer) -> tuple[Measurement, ...]:
        """Run ``case``; see :func:`harness.experiment.run.run`."""
        try:
            # What the kernel complains of belongs to this scenario, not to the one for which the lab is removed.
            with health.watched() if in_guest() else nullcontext():
                stage = self._again(case, tracer) or self._new(case, tracer)
                measurements = perform(stage, case)
        except BaseException:
            self.close()
            raise
        if self._fresh or not (stays(case.network) and leaves_nothing(case, stage.sent)) or self._modules_came():
            self.close()
        return measurements

    def close(self) -> None:
        """Remove the lab that is kept, if there is one."""
        self._stage = self._case = self._tracer = None
        self._open.close()

    def _again(self, case: Case, tracer: BaseTracer) -> Experiment | None:
        """The stage of the last scenario, if ``case`` begins on it as on a new one."""
        last, stage = self._case, self._stage
        if last is None or stage is None:
            return None
        is_same = tracer is self._tracer and last.network == case.network and last.rulesets == case.rulesets
        if is_same and stage.restore():
            return stage
        self.close()
        return None

    def _new(self, case: Case, tracer: BaseTracer) -> Experiment:
        self._modules = modules.loaded()
        self._stage = self._open.enter_context(Experiment.open(case.network, case.rulesets, tracer))
        self._case, self._tracer = case, tracer
        if not self._fresh and stays(case.network):
            self._stage.remember()
        return self._stage

    def _modules_came(self) -> bool:
        return modules.loaded() - modules.passing != self._modules


def stays(network: Network) -> bool:
    """Whether a lab of this plan may be kept: nothing in it remembers packets but what can be taken back."""
    return all(_stays(host, under_test=host.name == network.device) for host in network.hosts.values())


def _stays(host: HostPlan, *, under_test: bool) -> bool:
    plain = all(isinstance(one, _PLAIN) for one in host.made.values())
    remembers = host.netem or {*host.modules} - {BRIDGE_NETFILTER} or host.down or host.ipsec or not plain
    limits = any("icmp" in name for name in host.sysctls)
    resolves = any(not one.known for one in host.neighbours)
    return not (remembers or limits or resolves) and (under_test or (host.silent and not host.speaking))


def leaves_nothing(case: Case, sent: Iterable[bytes]) -> bool:
    """Whether ``case``, in which the frames ``sent`` were sent, leaves nothing behind that cannot be taken back."""
    return case.only_sends and all(map(is_harmless, sent))


def is_harmless(frame: bytes) -> bool:
    """Whether ``frame`` changes nothing in the kernels that it reaches but what rulesets and connections remember."""
    found = fields(frame)
    protocol = found.get("protocol")
    if "truncated" in found or is_fragment(frame):
        return False
    return protocol in ("tcp", "udp") or found.get("type") in _ECHO.get(str(protocol), ())
