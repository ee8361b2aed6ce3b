"""Which chains decide: an accept ends its own base chain only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.judge.evidence import Evidence
from harness.judge.unmet import place
from harness.model.observation import Step, Verdict
from harness.reading.decision import evaluations
from harness.reading.rules import is_rule_on
from harness.reading.words import PAST

_STACKS = {"bridge": "bridge", "netdev": "netdev", "arp": "arp"}
"""Families whose hooks are not those of IP (``enum nfproto``)."""


def accept_was_not_final(evidence: Evidence) -> Iterator[str]:
    """An accept ends the evaluation of its own base chain; others of the hook, and of later hooks, decide after it.

    See nf_hook_slow() in net/netfilter/core.c, and "VERDICT STATEMENT" in nft(8).
    """
    if not (evidence.is_refused and evidence.should_pass):
        return
    runs = evaluations(step for step in evidence.packet.steps if step.host == evidence.device)
    *earlier, last = runs
    accepts = [(run, rule) for run in earlier if (rule := run[-1].rule) and run[-1].verdict is Verdict.ACCEPT]
    chain, did = last[0].chain_path, PAST[evidence.seen.verdict or Verdict.DROP]
    same = [(run, rule) for run, rule in accepts if _hook(run) == _hook(last) and run[0].chain_path != chain]
    if same:
        run, rule = same[-1]
        yield (
            f"{run[0].chain_path} accepted the packet ({place(rule)}), but an accept ends its own base chain "
            f"only: {chain}, of the same hook, was evaluated after it and {did} the packet; accept it there too"
        )
        return
    wanted = evidence.expect.rule
    for run, rule in accepts:
        if wanted is not None and is_rule_on(wanted, run[-1], evidence.device):
            yield (
                f"the accept of {place(rule)} ends its own base chain only, at hook {run[0].hook}: {chain}, at hook "
                f"{last[0].hook}, was evaluated after it and {did} the packet; accept it there too"
            )
            return


def _hook(run: Sequence[Step]) -> tuple[str, str]:
    return _STACKS.get(run[0].family, "ip"), run[0].hook
