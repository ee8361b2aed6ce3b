"""What a mutant does to a loaded ruleset, and to nft's JSON of it."""

from __future__ import annotations

from harness.mutate.edits import Replaced, applied, commands
from harness.mutate.operators import mutants
from tests.mutate.builders import SSH, WHERE, match, of, payload, ruleset


def test_each_mutant_has_a_key_of_its_own_and_leaves_all_else_as_it_is() -> None:
    objects = ruleset(SSH, [match(payload("tcp", "dport"), {"set": [80, 443]}), {"drop": None}])
    found = mutants(objects)
    assert len({one.key for one in found}) == len(found)
    for one in found:
        after = applied(one.edit, objects)
        changed = [other for other in objects if other not in after]
        assert len(changed) <= 1, one
        assert after != objects, one
        if isinstance(one.edit, Replaced):
            assert changed == [other for other in objects if other.get("rule", {}).get("handle") == one.place[3]]


def test_the_second_of_two_rules_is_put_before_the_first() -> None:
    objects = ruleset(SSH, [{"drop": None}])
    (swapped,) = of("rules swapped", objects)
    inserted, deleted = commands(swapped.edit, objects)
    assert inserted["insert"]["rule"]["handle"] == 10
    assert inserted["insert"]["rule"]["expr"] == [{"drop": None}]
    assert deleted == {"delete": {"rule": {**WHERE, "chain": "input", "handle": 11}}}
    order = [one["rule"]["handle"] for one in applied(swapped.edit, objects) if "rule" in one]
    assert order == [11, 10]
