"""Rulesets as nft lists them, and packets for their rules, without a kernel.

generate/facts/ is what ``python -m harness.generate.facts`` makes of generate/rulesets/, of the shipped rulesets, and
of one of Docker's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.packets import Candidates
from harness.generate.simulate import SimulatedRuleset
from harness.model.observation import Place
from harness.ruleset.listing import Chain

FACTS = Path(__file__).with_name("generate") / "facts"
NAMES = sorted(path.stem for path in FACTS.glob("*.json"))


def facts(name: str) -> Facts:
    return msgspec.json.decode((FACTS / f"{name}.json").read_bytes(), type=Facts)


def packets(name: str) -> Candidates:
    found = facts(name)
    return Candidates(SimulatedDevice(SimulatedRuleset(found), lab.choose(found).network))


def packet(name: str, chain: str, text: str) -> tuple[dict[str, object], ...]:
    """The first packet for the rule that begins with ``text``; for the policy of ``chain`` if that is nothing."""
    return next(packets(name).of(key_of(facts(name), chain, text))).sends


def key_of(found: Facts, chain: str, text: str) -> Place:
    """The first rule of ``chain`` that begins with ``text``; its policy if that is nothing."""
    keys = [
        (rule.family, rule.table, rule.chain, rule.handle)
        for rule in found.rules
        if rule.chain == chain and text and rule.text.startswith(text)
    ] + [(one.family, one.table, one.name, 0) for one in found.chains if one.name == chain and not text]
    return keys[0]


_FORWARD = {"family": "inet", "table": "t", "name": "forward"}


def table(*rules: list[dict[str, Any]], policy: str = "drop", sets: tuple[dict[str, Any], ...] = ()) -> Facts:
    """A table with one base chain of these rules, as nft's JSON has it."""
    chain = {**_FORWARD, "hook": "forward", "type": "filter", "prio": 0, "policy": policy}
    objects: list[dict[str, Any]] = [{"chain": chain}, *({"set": {**_FORWARD, **one}} for one in sets)]
    for handle, expr in enumerate(rules, 2):
        objects.append({"rule": {"family": "inet", "table": "t", "chain": "forward", "handle": handle, "expr": expr}})
    chains = (Chain(family="inet", table="t", name="forward", hook="forward", policy=policy),)
    return Facts(objects=objects, chains=chains, rules=(), defines={})


def match(protocol: str, field: str, right: Any) -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": right}}
