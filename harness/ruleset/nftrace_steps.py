"""Messages of nf_tables' trace with the rules that they are about; nothing here touches the system."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.observation import Step
from harness.ruleset.listing import Chain
from harness.ruleset.load import Ruleset
from harness.ruleset.nftrace import TraceMessage


class TraceSteps:
    """Makes steps of ``ruleset``, which ``host`` has loaded, of the messages that were received there, in order.

    ``table`` is the name of the tables of tracing chains, ``interfaces`` are the names of the host's by their indexes.
    """

    def __init__(self, host: str, ruleset: Ruleset, table: str, interfaces: Mapping[int, str]) -> None:
        self.table = table
        self.ruleset = ruleset
        """It may be exchanged, for one with the same hooks."""
        self._host = host
        self._interfaces = interfaces
        self._bases: dict[int, Chain] = {}

    def step(self, message: TraceMessage) -> Step | None:
        """What ``message`` means; None where it is about a tracing chain. Its time is 0: messages have none."""
        if message.table == self.table:
            return None
        names = (message.family, message.table, message.chain)
        # A message does not have its hook. A packet is in one base chain at a time, whose message comes first.
        chain = self.ruleset.chain(*names)
        if chain is not None and chain.is_base:
            self._bases[message.id] = chain
        base = self._bases.get(message.id)
        return Step(
            time=0,
            host=self._host,
            hook=base.hook if base else "",
            family=message.family,
            table=message.table,
            chain=message.chain,
            kind=message.kind,
            verdict=message.verdict,
            target=message.target,
            rule=self.ruleset.rule(*names, message.handle) if message.handle else None,
            policy_at=chain.position if chain is not None and message.kind == "policy" else None,
            headers=message.network + message.transport,
            iif=self._interfaces.get(message.iif, ""),
            oif=self._interfaces.get(message.oif, ""),
            mark=message.mark,
        )
