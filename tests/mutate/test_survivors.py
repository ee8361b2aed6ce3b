"""Which packets are tried on which mutants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from harness.batch.messages import Effect, Effects, Loaded
from harness.model.observation import Place, Rule
from harness.mutate import survivors
from harness.mutate.edits import Replaced
from harness.mutate.messages import AskedApart, Structure
from harness.mutate.operators import Mutant, mutants
from harness.mutate.survivors import Candidates, Searching
from harness.ruleset.listing import Chain
from harness.topology.builtin import LABS
from harness.topology.network import Network

CHAIN = ("inet", "t", "forward")
NETWORK = Network.of(LABS["router"])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "SIMULATED", 100)
    monkeypatch.setattr(survivors, "POOLED", 60)


def port(number: int) -> list[Any]:
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    return [{"match": {"op": "==", "left": left, "right": number}}, {"accept": None}]


def structure(*ports: int) -> Structure:
    """A chain that accepts each of these ports."""
    at = {"family": "inet", "table": "t"}
    base = {**at, "name": "forward", "hook": "forward", "type": "filter", "prio": 0, "policy": "drop"}
    rules = [{**at, "chain": "forward", "handle": handle, "expr": port(one)} for handle, one in enumerate(ports, 2)]
    return Structure(
        kernel="",
        nft="",
        objects=[{"chain": base}, *({"rule": one} for one in rules)],
        chains=(Chain(family="inet", table="t", name="forward", hook="forward", policy="drop"),),
        rules=tuple(
            Rule(family="inet", table="t", chain="forward", handle=handle, text=f"rule {handle}")
            for handle, _ in enumerate(ports, 2)
        ),
        policies=(),
        fixed=(),
    )


class Kernel:
    """A session in which the packets of the original came to ``came``, and that counts those of mutants."""

    def __init__(self, came: Place, error: str = "") -> None:
        self._came = came
        self._error = error
        self.asked: list[tuple[Any, int]] = []

    def measured(self, request: AskedApart, packets: Iterable[Any], *, sift: bool) -> Iterator[Loaded | Effects]:
        assert sift
        assert len(list(packets)) == sum(len(trial.packets) for trial in request.trials)
        effect = Effect(verdict="accept", decided=(), met=(), came=(self._came,))
        for trial in request.trials:
            self.asked += [(trial.edit, len(trial.packets))] if trial.edit is not None else []
            yield Loaded(kernel="", rules=(), policies=())
            yield from (Effects(seen=(effect,), error=self._error) for _ in trial.packets)


def changed(ports: Structure, handle: int) -> Mutant:
    """The mutant whose rule with ``handle`` accepts another port."""
    found = (one for one in mutants(ports.objects) if one.operator == "port off by one" and one.place[3] == handle)
    return next(found)


def searched(kernel: Kernel, *handles: int) -> Searching:
    """A search for all mutants of these rules of a chain with three."""
    ports = structure(22, 80, 443)
    case: Any = SimpleNamespace(network=NETWORK, rulesets={NETWORK.device: None})
    session: Any = kernel
    searching = Searching(ports, case, session, 1)
    searching.search([changed(ports, handle) for handle in handles], first=True, step=lambda: None)
    return searching


def test_a_packet_is_sent_under_a_mutant_only_if_it_comes_to_the_change() -> None:
    kernel = Kernel((*CHAIN, 3))  # the second rule decided
    searching = searched(kernel, 2, 3, 4)
    rules = [edit.rule[3] for edit, _ in kernel.asked if isinstance(edit, Replaced)]
    assert rules == [2, 3]
    # All were tried: the third mutant's on the original, where they do not come to its rule.
    assert set(searching.packets.values()) == {survivors.FIRST}


def test_a_packet_that_came_to_the_end_of_a_chain_came_to_all_its_rules() -> None:
    kernel = Kernel((*CHAIN, 0))
    searched(kernel, 2, 4)
    assert len(kernel.asked) == 2


def test_a_packet_that_the_original_cannot_be_measured_with_tells_nothing() -> None:
    kernel = Kernel((*CHAIN, 0), error="the kernel has dropped it")
    searching = searched(kernel, 2, 4)
    assert not kernel.asked
    for handle in (2, 4):
        mutant = changed(structure(22, 80, 443), handle)
        assert searching.packets[mutant.key] == 0
        assert searching.unmeasured(mutant) == "the kernel has dropped it"


def test_a_mutant_of_which_a_packet_was_measured_was_searched() -> None:
    searching = searched(Kernel((*CHAIN, 0)), 2)
    assert not searching.unmeasured(changed(structure(22, 80, 443), 2))


def test_a_simulation_of_all_packets_chooses_the_same_as_one_of_those_that_come_to_the_change() -> None:
    ports = structure(22, 80, 443)
    some, every = Candidates(ports, NETWORK, 1), Candidates(ports, NETWORK, 1)
    every._came = [dict.fromkeys(came, survivors.END) for came in every._came]
    for mutant in mutants(ports.objects, ["lan0", "wan0"]):
        assert [one.sends for one in some.of(mutant)] == [one.sends for one in every.of(mutant)]


def test_packets_for_a_large_ruleset_are_made_for_the_rules_around_the_change() -> None:
    ports = structure(*range(1000, 2000))
    case: Any = SimpleNamespace(network=NETWORK, rulesets={NETWORK.device: None})
    session: Any = Kernel((*CHAIN, 0))
    searching = Searching(ports, case, session, 1)
    for handle in (5, 700):
        mutant = changed(ports, handle)
        searching.search([mutant], first=True, step=lambda: None)
        candidates = list(searching._candidates.of(mutant))[: survivors.FIRST]
        tried = [one.sends[-1].get("tcp", {}).get("dport") for one in candidates]
        assert set(tried) & {998 + handle, 999 + handle}, tried
        assert searching.packets[mutant.key] == survivors.FIRST
