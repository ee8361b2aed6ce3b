"""Which rules of a large ruleset are kept around a place."""

from __future__ import annotations

from typing import Any

from harness.model.observation import Rule
from harness.mutate.edits import place_of
from harness.mutate.messages import Structure
from harness.mutate.slices import ELEMENTS, ENDS, NEAR, Slices

AT = {"family": "inet", "table": "fw"}


def rule(chain: str, handle: int, *expr: Any) -> dict[str, Any]:
    return {"rule": {**AT, "chain": chain, "handle": handle, "expr": [*expr, {"accept": None}]}}


def looks_into(name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": f"@{name}"}}


def structure(*rules: dict[str, Any], more: tuple[dict[str, Any], ...] = ()) -> Structure:
    base = {**AT, "name": "forward", "hook": "forward", "type": "filter", "prio": 0, "policy": "drop"}
    chains = [{"chain": base}, *({"chain": {**AT, "name": name}} for name in ("web", "mail"))]
    return Structure(
        kernel="",
        nft="",
        objects=[{"table": {"family": "inet", "name": "fw"}}, *more, *chains, *rules],
        chains=(),
        rules=tuple(
            Rule(**AT, chain=one["rule"]["chain"], handle=one["rule"]["handle"], text="accept", written="")
            for one in rules
        ),
        policies=(),
        fixed=(),
    )


def kept(part: Structure) -> list[int]:
    handles = [place_of(one["rule"])[3] for one in part.objects if "rule" in one]
    assert handles == [one.handle for one in part.rules]
    return handles


def test_the_rules_around_a_place_and_the_ends_of_base_chains_are_kept() -> None:
    slices = Slices(structure(*(rule("forward", handle) for handle in range(1000))))
    ends = [*range(ENDS), *range(1000 - ENDS, 1000)]
    around = range(500 - NEAR, 500 + NEAR + 1)
    assert kept(slices.around([("inet", "fw", "forward", 500)])) == sorted([*ends, *around])
    assert kept(slices.around([("inet", "fw", "forward", 0)])) == ends  # the policy


def test_the_rules_that_lead_to_a_chain_are_kept_also_through_maps() -> None:
    elements = [[port, {"jump": {"target": "mail"}}] for port in (25, 587)]
    services = {"map": {**AT, "name": "services", "elem": elements}}
    slices = Slices(
        structure(
            *(rule("forward", handle) for handle in range(100)),
            rule("forward", 100, {"jump": {"target": "web"}}),
            *(rule("forward", handle) for handle in range(101, 200)),
            *(rule("web", handle) for handle in range(300, 310)),
            rule("web", 310, {"vmap": {"key": {"meta": {"key": "mark"}}, "data": "@services"}}),
            *(rule("mail", handle) for handle in range(400, 500)),
            more=(services,),
        )
    )
    handles = kept(slices.around([("inet", "fw", "mail", 450)]))
    assert {100, 310, 450} <= set(handles)
    assert len(handles) == 2 * ENDS + 2 + 2 * NEAR + 1


def test_of_sets_those_that_kept_rules_look_into_are_kept_and_the_ends_of_large_ones() -> None:
    sets = tuple({"set": {**AT, "name": name, "elem": list(range(1000))}} for name in ("near", "far"))
    slices = Slices(
        structure(
            *(rule("forward", handle) for handle in range(50)),
            rule("forward", 50, looks_into("near")),
            *(rule("forward", handle) for handle in range(51, 100)),
            rule("forward", 100, looks_into("far")),
            *(rule("forward", handle) for handle in range(101, 150)),
            more=sets,
        )
    )
    part = slices.around([("inet", "fw", "forward", 50)])
    (found,) = (one["set"] for one in part.objects if "set" in one)
    assert (found["name"], len(found["elem"])) == ("near", 2 * ELEMENTS)
