"""Steps, hops, path entries and loss in words: one wording for notes, reports and errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from harness.model.observation import Hop, Loss, Step, Verdict
from harness.reading.path import parse_entry
from harness.scenario.models.expect import PathEntry

PAST = {
    Verdict.ACCEPT: "accepted",
    Verdict.DROP: "dropped",
    Verdict.REJECT: "rejected",
    Verdict.QUEUE: "queued",
    Verdict.STOLEN: "stolen",
}
"""What a verdict did to a packet."""


def describe_chain(step: Step, device: str) -> str:
    """Return the chain's name; where it is not the device's, with the host, as scenarios name its rules."""
    return step.chain_path if step.host == device else f"{step.host}: {step.chain_path}"


def describe_step(step: Step) -> str:
    """Return one step in one line: chain, place, handle, text."""
    if step.rule is None:
        return describe_decision(step)
    return f"{describe_decision(step)} (handle {step.rule.handle}): {step.rule.text}"


def describe_decision(step: Step) -> str:
    """Return who took a step, without its text: ``inet filter forward, edge.nft:18``."""
    if step.kind == "policy":
        return f"{step.chain_path}, policy {step.verdict}"
    if step.rule is None or step.rule.position is None:
        return f"{step.chain_path}, {step.verdict}"
    return f"{step.chain_path}, {step.rule.position.file}:{step.rule.position.line}"


def describe_errno(name: str) -> str:
    """Return an errno by its name, with what it means: ``ENETUNREACH (Network is unreachable)``."""
    number = getattr(errno, name, None)
    return f"{name} ({os.strerror(number)})" if isinstance(number, int) else name


def describe_hop(hop: Hop) -> str:
    """Return one hop in a few words: ``nft_do_chain inet filter forward → accept``."""
    words = [hop.function, hop.detail.get("chain") or hop.detail.get("hook"), hop.detail.get("reason")]
    if verdict := hop.detail.get("verdict"):
        words += ["→", verdict]
    return " ".join(word for word in words if word)


def describe_entry(entry: PathEntry) -> str:
    """Return an expected function in the words of :func:`describe_hop`."""
    names, detail = parse_entry(entry)
    words = [" | ".join(names), detail.chain, detail.hook, detail.reason]
    words += ["→", detail.verdict] if detail.verdict else []
    words += ["device", detail.device] if detail.device else []
    words += ["on", detail.host] if detail.host else []
    return " ".join(word for word in words if word)


ROOM: Final = "use a larger buffer (pytest --nft-buffer 32768, in KiB; 8192 is the default)"
FEWER: Final = "trace fewer functions (--nft-tracer kprobe)"
LIVE: Final = (
    "use a larger buffer (--buffer 32768, in KiB; 8192 is the default)",
    "trace fewer functions (--max-functions, --functions)",
)
"""What ``nft-harness trace`` can do about them."""


def against_full(engine: str) -> tuple[str, ...]:
    """Return what a session of scenarios can do about events that found no room; ``engine`` traced functions."""
    return (ROOM, FEWER) if engine == "kprobe.multi" else (ROOM,)  # the others trace few functions, or none


def loss_remedy(loss: Loss, full: Sequence[str] = ()) -> str:
    """Return what can be done about ``loss``, by the channel; "" where nothing was lost.

    ``full`` is what can be done about a ring buffer that is full.
    """
    ways: list[str] = []
    if loss.refused or loss.entered != loss.received:
        ways += full
    if loss.missed:
        ways.append("run it on Linux 6.12 in a microVM (--nft-kernel 6.12), where no softirq interrupts a probe")
    if loss.untracked or loss.trace:
        ways.append("send fewer packets at once")
    return ", or ".join(ways)


def describe_loss(loss: Loss) -> str:
    """Return the loss line: ``0 of 212 events (refused 0, missed 0, trace 0)``."""
    parts = [f"refused {loss.refused}", f"missed {loss.missed}", f"trace {loss.trace}"]
    if loss.untracked:
        parts.append(f"not followed {loss.untracked}")
    if unaccounted := abs(loss.entered - loss.received - loss.refused):
        parts.append(f"unaccounted {unaccounted}")
    if loss.total and len(loss.cpus) > 1:
        parts += [
            f"CPU {cpu}: {on.refused + on.untracked} of {on.entered}"
            for cpu, on in sorted(loss.cpus.items())
            if on.refused or on.untracked
        ]
    return f"{loss.total} of {loss.entered} event{'s'[: loss.entered != 1]} ({', '.join(parts)})"
