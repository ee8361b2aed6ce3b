"""Values made by hand for tests of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import Position
from harness.mutate.operators import Mutant, mutants
from harness.mutate.results import MutantResult, RulesetResult, Witness
from harness.scenario.case import Case
from harness.scenario.load import load

SOURCE = "table inet fw {\n\tchain input {\n\t\ttcp dport 22 \\\n\t\t\taccept # ssh\n\t}\n}\n"


WITNESS = Witness(
    sends=({"from": "client", "to": "device", "tcp": {"dport": 23}},),
    summary="client → device",
    difference="drop → accept",
)


def mutant(status: Any, **more: Any) -> MutantResult:
    given: dict[str, Any] = {
        "operator": "port off by one",
        "what": "tcp dport 22 → 23",
        "chain": "inet fw input",
        "position": Position("fw.nft", 3, 3),
        "written": "tcp dport 22 accept",
        "texts": (("tcp dport 22 accept", "tcp dport 23 accept"),),
        "status": status,
    }
    return MutantResult(**given | more)


def result(*mutants: MutantResult) -> RulesetResult:
    return RulesetResult(
        name="fw.nft",
        kernel="6.12.1",
        nft="1.1.3",
        watched="kprobe",
        texts={"fw.nft": SOURCE},
        scenarios=("fw.yaml::ssh", "fw.yaml::web"),
        mutants=mutants,
    )


EVERY = (
    mutant("killed", killed_by="fw.yaml::ssh", why="verdict: expected accept, seen drop", covered_by=("fw.yaml::ssh",)),
    mutant("survived", witness=WITNESS, covered_by=("fw.yaml::ssh",)),
    mutant("survived", witness=WITNESS),
    mutant("equivalent", packets=40),
    mutant("unjudged"),
    mutant("not run"),
)


WHERE = {"family": "inet", "table": "fw"}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def ruleset(
    *expressions: list[Any], policy: str = "drop", more: tuple[dict[str, Any], ...] = ()
) -> list[dict[str, Any]]:
    chain = {"name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": policy}
    rules = [
        {"rule": {**WHERE, "chain": "input", "handle": 10 + number, "expr": expression}}
        for number, expression in enumerate(expressions)
    ]
    return [{"table": {"family": "inet", "name": "fw"}}, *more, {"chain": {**WHERE, **chain}}, *rules]


def of(operator: str, objects: list[dict[str, Any]], *interfaces: str) -> list[Mutant]:
    return [one for one in mutants(objects, interfaces) if one.operator == operator]


SSH = [match(payload("tcp", "dport"), 22), {"accept": None}]


SCENARIOS = """\
lab: router
ruleset: fw.nft
scenarios:
  - name: one
    send: {from: client, to: server, tcp: {dport: 22}}
    expect: {verdict: accept}
"""


def staged(folder: Path, ruleset: str) -> Case:
    """The only scenario of a project in ``folder``."""
    (folder / "pytest.ini").touch()
    (folder / "fw.nft").write_text(ruleset)
    (folder / "fw.yaml").write_text(SCENARIOS)
    (case,) = (one for one in load(folder / "fw.yaml") if isinstance(one, Case))
    return case
