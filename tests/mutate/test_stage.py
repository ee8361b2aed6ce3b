"""A lab has one mutant after the other, and the ruleset as it was after each."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.batch.sift import SiftStage
from harness.mutate import measure
from harness.mutate.edits import Deleted, Elements, Replaced, Turned
from harness.mutate.operators import mutants
from harness.mutate.stage import MutatedStage, RefusedError
from tests.mutate.builders import staged

RULESET = """\
table inet fw {
	set web { type inet_service; elements = { 80, 443 }; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, invalid : drop }
		iifname "wan0" tcp dport 22 accept comment "ssh"
		tcp dport @web accept
		iifname "wan0" jump more
	}
	chain more {
		ip saddr 203.0.113.0/24 udp dport { 53, 123 } accept
		udp dport 1000-2000 reject
	}
	chain other {
		drop
	}
}
"""
FIXED = """\
table ip fw {
	chain raw {
		type filter hook prerouting priority -400; policy accept;
		udp dport 53 accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport { 22, 80 } accept
		tcp dport 443 accept
	}
}
"""
"""It cannot be loaded anew in place: the priority of a chain is that of a hook of the kernel's own."""


@pytest.mark.kernel
def test_each_mutant_is_taken_back_at_once_and_with_the_next(tmp_path: Path) -> None:
    case = staged(tmp_path, RULESET)
    structure = measure.structure(case)
    with SiftStage.open(case.network, case.rulesets[case.network.device]) as inner:
        stage = MutatedStage(inner, structure.objects, structure.fixed)
        before = [one.text for one in stage.ruleset.rules]
        assert len(before) == 7
        seen = []
        for number, mutant in enumerate(mutants(structure.objects, ["wan0", "lan0"])):
            try:
                listed = stage.become(mutant.edit)
            except RefusedError:
                continue
            assert not listed.is_same, mutant
            assert len(listed.texts) <= 1, mutant
            if isinstance(mutant.edit, Elements):
                assert not listed.texts
            seen.append(mutant.operator)
            assert stage.restore()
            if number % 3 == 0:  # at once: else the next mutant takes it back
                stage.settle()
                assert [one.text for one in stage.ruleset.rules] == before, mutant
                assert stage.ruleset.rules[1].comment == "ssh"
                assert stage.ruleset.rules[1].position is not None
        stage.settle()
        assert [one.text for one in stage.ruleset.rules] == before
        assert {"rule deleted", "rules swapped", "policy turned", "element added", "jump to a neighbour"} <= {*seen}


@pytest.mark.kernel
def test_a_mutant_that_nft_refuses_leaves_the_original_and_the_next_is_made(tmp_path: Path) -> None:
    case = staged(tmp_path, FIXED)
    structure = measure.structure(case)
    udp, several, one = structure.rules
    with SiftStage.open(case.network, case.rulesets[case.network.device]) as inner:
        stage = MutatedStage(inner, structure.objects, structure.fixed)
        before = [rule.text for rule in stage.ruleset.rules]
        for other in (Deleted(rule=udp.place), None):  # with one to be taken back, and without
            if other is not None:
                assert stage.become(other).texts == ()
                assert stage.restore()
            with pytest.raises(RefusedError):
                stage.become(Replaced(rule=several.place, expr=[{"jump": {"target": "nowhere"}}]))
            assert [rule.text for rule in stage.ruleset.rules] == before
        assert stage.become(Replaced(rule=one.place, expr=[{"drop": None}])).texts == (
            ("tcp dport 443 accept", "drop"),
        )
        assert [rule.text for rule in stage.ruleset.rules] == [*before[:2], "drop"]


@pytest.mark.kernel
def test_a_mutant_that_is_listed_as_the_original_is_none(tmp_path: Path) -> None:
    case = staged(tmp_path, FIXED)
    structure = measure.structure(case)
    (rules,) = ([rule["rule"] for rule in structure.objects if "rule" in rule],)
    with SiftStage.open(case.network, case.rulesets[case.network.device]) as inner:
        stage = MutatedStage(inner, structure.objects, structure.fixed)
        for rule, place in zip(rules, (one.place for one in structure.rules), strict=True):
            assert stage.become(Replaced(rule=place, expr=rule["expr"])).is_same
            assert stage.restore()
        assert not stage.become(Turned(chain=(*structure.rules[0].place[:3], 0), policy="drop")).is_same
