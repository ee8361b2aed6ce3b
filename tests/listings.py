"""Rulesets as nft lists them, and packets for their rules, without a kernel.

generate/facts/ is what ``python -m harness.generate.facts`` makes of generate/rulesets/, of the shipped rulesets, and
of one of Docker's.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.generate import lab
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.packets import Candidates
from harness.generate.simulate import SimulatedRuleset
from harness.model.observation import Place

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
