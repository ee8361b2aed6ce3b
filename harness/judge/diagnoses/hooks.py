"""Rules at a hook that the packet did not pass."""

from __future__ import annotations

from collections.abc import Iterator

from harness.judge.diagnoses.helpers import not_announced
from harness.judge.evidence import Evidence
from harness.judge.unmet import evaluations_of, place
from harness.reading import hooks
from harness.reading.reach import entrances
from harness.reading.rules import translated


def rule_at_another_hook(evidence: Evidence) -> Iterator[str]:
    """The expected rule stands in a chain that the packet could not enter: it took another way through the device.

    The commonest is a ban in a chain at hook input, which what is forwarded to a published port does not pass.
    """
    rule, packet, device = evidence.expected, evidence.packet, evidence.device
    if rule is None or any(evaluations_of(rule, evidence.rules, packet, device)):
        return
    hook = hooks.missed(entrances(rule.chain_path, evidence.rules, evidence.policies), packet, device)
    if not hook or any(not_announced(evidence)):  # which say why it took another way
        return
    where = f"{place(rule)}, the expected rule, is evaluated at hook {hook}"
    if evidence.is_refused and evidence.last and hooks.is_behind(hook, evidence.last.hook):
        yield f"{where}, and the packet ended at hook {evidence.last.hook} before it"
    elif hook == "output":
        yield f"{where}, which only packets pass that {device} itself sends"
    elif hook == "input":
        by = translated(packet, device)
        why = f" ({place(by)} changed its destination)" if by else ""
        yield f"{where}, and the packet was forwarded{why}: a rule for it belongs at hook forward"
    elif hook == "forward":
        yield f"{where}, and the packet was for {device} itself: a rule for it belongs at hook input"
    elif hook == "postrouting":
        yield f"{where}, which what is for {device} itself does not pass: a rule for it belongs at hook input"
    elif hook == "prerouting":
        yield f"{where}, which what {device} itself sends to others does not pass: a rule for it belongs at hook output"
