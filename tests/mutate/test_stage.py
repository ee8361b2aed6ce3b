"""A lab has one mutant after the other, and the ruleset as it was after each."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.batch.sift import SiftStage
from harness.mutate import measure
from harness.mutate.edits import Elements
from harness.mutate.operators import mutants
from harness.mutate.stage import MutatedStage, RefusedError
from harness.scenario.case import Case
from harness.scenario.load import load

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
SCENARIOS = """\
lab: router
ruleset: fw.nft
scenarios:
  - name: one
    send: {from: client, to: server, tcp: {dport: 22}}
    expect: {verdict: accept}
"""


@pytest.mark.kernel
def test_each_mutant_is_taken_back_at_once_and_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "fw.nft").write_text(RULESET)
    (tmp_path / "fw.yaml").write_text(SCENARIOS)
    (case,) = (one for one in load(tmp_path / "fw.yaml") if isinstance(one, Case))
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
