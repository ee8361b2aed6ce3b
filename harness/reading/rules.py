"""Which rule a scenario means: its text however spaced, its comment, handle or place, or a policy."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from harness.errors import Position
from harness.model.observation import ObservedPacket, Rule, Step, Verdict


def is_rule(wanted: str | int, step: Step) -> bool:
    """Whether ``step`` is the rule or policy meant: by handle, chain policy, file:line, comment or text."""
    if isinstance(wanted, int):
        return step.rule is not None and step.rule.handle == wanted
    wanted = " ".join(wanted.split())
    if step.kind == "policy":
        return wanted in ("policy", f"{step.chain_path} policy")
    return step.rule is not None and names(wanted, step.rule)


def names(wanted: str | int, rule: Rule) -> bool:
    """Whether ``wanted`` means ``rule``, by its handle, text, place or comment."""
    if isinstance(wanted, int):
        return rule.handle == wanted
    wanted = " ".join(wanted.split())
    return (
        same_rule(wanted, rule) or _stands_at(wanted, rule.position) or wanted == " ".join(rule.comment.split()) != ""
    )


def host_of(wanted: str | int, hosts: Iterable[str], device: str) -> str:
    """The one of ``hosts`` whose rule is meant: ``edge: tcp dport 22 drop`` names another than the ``device``."""
    return next((host for host in hosts if str(wanted).startswith(f"{host}: ")), device)


def is_rule_on(wanted: str | int, step: Step, device: str) -> bool:
    """As :func:`is_rule`, on the ``device`` or the host that ``wanted`` names before a colon."""
    if step.host == device:
        return is_rule(wanted, step)
    _, named, there = str(wanted).partition(f"{step.host}: ")
    return bool(named) and is_rule(int(there) if there.isdigit() else there, step)


def _stands_at(wanted: str, position: Position | None) -> bool:
    file, _, line = wanted.rpartition(":")
    if not (position and file and line == str(position.line)):
        return False
    return f"/{position.file}".endswith(f"/{file.removeprefix('./')}")


def same_rule(text: str, rule: Rule) -> bool:
    """Whether ``text`` is the text of ``rule``, as written or as nft lists it, spacing, quotes, counter and
    comment aside."""
    return canonical(text) in {canonical(known) for known in (rule.text, rule.written) if known}


_IGNORED = re.compile(
    r"""\bcounter(?:\s+packets\s+\d+\s+bytes\s+\d+)?(?!\s+(?:name\b|"))(?=\s|$)"""
    r"""|\bcomment\s+"[^"]*" | \#\s*handle\s+\d+\s*$""",
    re.VERBOSE,
)


@functools.lru_cache(8192)
def canonical(text: str) -> str:
    """Return a rule's text with what :func:`same_rule` leaves aside taken out."""
    return re.sub(r"\s*([{},:;=<>!|&])\s*", r"\1", " ".join(_IGNORED.sub(" ", text).replace('"', " ").split()))


def bare(text: str) -> str:
    """Return a rule's text without quoted strings: a comment or log prefix may contain any word."""
    return re.sub(r'\s*(?:\bcomment\s+)?"[^"]*"', "", text)


_DESTINATION_NAT = re.compile(r"(?<!\S)(?:dnat|redirect|tproxy)\b")


def translated(packet: ObservedPacket, device: str) -> Rule | None:
    """The rule of ``device`` that translated the destination of ``packet``, or sent it to a local socket."""
    met = (step.rule for step in packet.steps if step.host == device and step.rule and step.verdict is Verdict.ACCEPT)
    return next((rule for rule in met if _DESTINATION_NAT.search(bare(rule.text))), None)


_STATE = re.compile(
    r"\bct state (?P<not>!= )?"
    r"(?:\{ (?P<set>[^{}]*) \}|(?P<map>vmap \{ (?P<elements>[^{}]*) \})|(?P<one>[a-z][a-z,]*))(?!\S)"
)
_XT_STATE = re.compile(r"(?<!! )--(?:ct)?state (?P<one>[A-Z]+)(?!\S)")


def conntrack_states(step: Step) -> frozenset[str]:
    """Return the states of connection tracking in one of which the packet is, by the rule that ``step`` says matched.

    ``invalid``, ``untracked`` and so on, as in `ct state`; empty where the rule does not determine it.
    """
    if step.rule is None:
        return frozenset()
    if found := _STATE.search(bare(step.rule.text)):
        if found["not"]:
            return frozenset()
        if found["map"]:
            verdict = f"{step.verdict} {step.target}".strip()
            pairs = (element.split(" : ") for element in found["elements"].split(", "))
            return frozenset(pair[0] for pair in pairs if pair[-1] == verdict)
        return frozenset((found["set"] or found["one"]).replace(",", " ").split())
    # iptables' rules: nft lists no more of them than that there is a match
    found = _XT_STATE.search(step.rule.written)
    return frozenset({found["one"].lower()}) if found else frozenset()


_NOTRACK = re.compile(r"(?<!\S)notrack\b")


def untracking(packet: ObservedPacket, device: str) -> Step | None:
    """The step of ``device`` in which a rule exempted ``packet`` from connection tracking."""
    steps = (step for step in packet.steps if step.host == device and step.rule)
    return next((step for step in steps if step.rule and _NOTRACK.search(bare(step.rule.text))), None)
