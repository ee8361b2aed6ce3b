"""What the kernel does with packets under the original and under mutants, sifted as the controller asks for it."""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from harness.batch import sighting
from harness.batch.messages import Effects, Loaded, Sifted
from harness.mutate import measure
from harness.mutate.apart import apart
from harness.mutate.edits import Deleted, Edit, Replaced
from harness.mutate.messages import AskedApart, Trial
from harness.packets.frames import build
from harness.packets.spec import Send
from harness.scenario.case import Case
from tests.mutate.builders import match, payload, staged

RULESET: Final = """\
table ip fw {
	chain raw {
		type filter hook prerouting priority %s; policy accept;
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport 22 accept
		tcp dport 80 limit rate 1/hour burst 1 packets accept
	}
}
"""
PORTS: Final = (22, 80, 22, 81)
"""The second is remembered, so that the ruleset is loaded anew after it, in which rules get other handles."""
PORT_22: Final = match(payload("tcp", "dport"), 22)


def verdicts(case: Case, *edits: Edit | None) -> list[list[str]]:
    """What becomes of a packet to each of :data:`PORTS` under each of ``edits``: the verdict, or "error"."""
    sends = [msgspec.convert({"from": "client", "to": "server", "tcp": {"dport": port}}, Send) for port in PORTS]
    packets = [(build(send, case.network),) for send in sends]
    structure = measure.structure(case)
    request = AskedApart(
        side=pickle.dumps((case.network, case.rulesets[case.network.device])),
        objects=structure.objects,
        fixed=structure.fixed,
        trials=tuple(Trial(edit=edit, packets=packets) for edit in edits),
        sift=True,
    )

    def came() -> Any:
        for answer in apart(request, lambda: pytest.fail("who sifts needs no tracer")):
            yield msgspec.json.decode(msgspec.json.encode(answer), type=Loaded | Sifted)

    sent = list(chain.from_iterable(trial.packets for trial in request.trials))
    effects = [one for one in sighting.effects(came(), sent) if isinstance(one, Effects)]
    found = ["error" if one.error else one.seen[-1].verdict for one in effects]
    return [found[first : first + len(PORTS)] for first in range(0, len(found), len(PORTS))]


@pytest.mark.kernel
@pytest.mark.parametrize("priority", ["0", "-400"], ids=["loaded anew in place", "in a lab of its own"])
def test_each_packet_is_the_first_under_its_mutant(priority: str, tmp_path: Path) -> None:
    """Also the one that a limit remembers; with a priority of the kernel's own the ruleset gets another lab."""
    case = staged(tmp_path, RULESET % priority)
    ssh, limited = measure.structure(case).rules
    seen = verdicts(
        case,
        None,
        Deleted(rule=ssh.place),
        Replaced(rule=ssh.place, expr=[PORT_22, {"counter": None}, {"accept": None}]),
        Deleted(rule=ssh.place),
        None,
        Replaced(rule=limited.place, expr=[{"jump": {"target": "nowhere"}}]),
        Replaced(rule=limited.place, expr=[{"accept": None}]),
        Replaced(rule=ssh.place, expr=[PORT_22, {"drop": None}]),
        None,
    )
    original = ["accept", "accept", "accept", "drop"]
    closed = ["drop", "accept", "drop", "drop"]
    assert seen == [original, closed, original, closed, original, ["error"] * 4, ["accept"] * 4, closed, original]
