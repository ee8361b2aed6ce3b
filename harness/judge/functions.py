"""Expectations of kernel functions: the path through them, those never met, layers, the route."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.errors import Position, Unsupported
from harness.judge.evidence import Evidence, Found
from harness.model.fields import Keys, alternatives
from harness.model.observation import Observation, ObservedPacket
from harness.model.problem import Problem, one_of
from harness.reading.path import (
    differing,
    entries,
    hops_on,
    layers_of,
    located,
    meets,
    parse_entry,
    routed_to,
    unlisted,
    walk,
)
from harness.reading.words import describe_entry, describe_hop
from harness.scenario.models.expect import Exactly, Expect, PathEntry

At = Callable[[Keys], Position]
"""Where a value stands in the YAML file."""


def compare_route(evidence: Evidence) -> Found:
    """Compare ``route``."""
    wanted = evidence.expect.route
    if wanted is None:
        return
    seen = routed_to(evidence.packet, evidence.device)
    if seen not in alternatives(wanted):
        yield ("expect", "route"), wanted, seen or "not sent on", ""


def compare_layers(evidence: Evidence) -> Found:
    """Compare ``layers``."""
    wanted = evidence.expect.layers
    if wanted is None:
        return
    seen = layers_of(hops_on(evidence.packet, evidence.device))
    rest = iter(seen)
    for index, layer in enumerate(wanted):
        if layer not in rest:  # consumes up to and including the layer
            note = f"not passed after {wanted[index - 1]}" if layer in seen else "not passed at all"
            yield ("expect", "layers", index), layer, " ".join(seen) or "no layer at all", note
            return


def compare_path(evidence: Evidence) -> Found:
    """Compare ``path``."""
    expect, packet, device = evidence.expect, evidence.packet, evidence.device
    path = entries(expect.path)
    keys: Keys = ("expect", "path", "exactly") if isinstance(expect.path, Exactly) else ("expect", "path")
    met = ""
    for index, (entry, hit) in enumerate(zip(path, walk(path, packet, device), strict=True)):
        detail = parse_entry(entry)[1]
        if hit is None and not detail.optional:
            note = _near(entry, packet, device)
            place = f"after {met}" if met else f"on {detail.host or device}"
            yield (*keys, index), describe_entry(entry), f"not met {place}" if note else "never met", note
            return
        met = describe_hop(hit[1]) if hit else met
    if isinstance(expect.path, Exactly) and (parted := unlisted(expect.path, packet, device)):
        index, hop = parted
        wanted = f"exactly {describe_entry(path[index])}" if index < len(path) else "nothing more of these functions"
        seen = f"{describe_hop(hop)} on {hop.host}"
        yield (*keys, min(index, len(path) - 1)), wanted, seen, "the first place where seen and expected part"


def compare_never(evidence: Evidence) -> Found:
    """Compare ``never``."""
    hops = located(evidence.packet)
    for index, entry in enumerate(evidence.expect.never or ()):
        names, detail = parse_entry(entry)
        for number, hop in enumerate(hops):
            if meets(names, detail, hop, evidence.device):
                before = f", after {describe_hop(hops[number - 1])}" if number else ""
                place = f"met on {hop.host}{before}"
                yield ("expect", "never", index), f"never {describe_entry(entry)}", f"{describe_hop(hop)} {place}", ""
                break


def _near(entry: PathEntry, packet: ObservedPacket, device: str) -> str:
    """Say where else, or with what else, a function was met that was not met in its place; "" for nowhere."""
    names, detail = parse_entry(entry)
    hops = [hop for hop in located(packet) if hop.function in names]
    if not hops:
        return ""
    here = [hop for hop in hops if hop.host == (detail.host or device)]
    if not here:
        return f"met on {', '.join(dict.fromkeys(hop.host for hop in hops))} only; `host:` names another host"
    if any(meets(names, detail, hop, device) for hop in here):
        return "met earlier: the order differs"
    others = dict.fromkeys(
        ", ".join(f"{key} {value or 'unknown'}" for key, value in differing(detail, hop).items()) for hop in here
    )
    return f"met with {'; with '.join(others)}"


def require_traced(expect: Expect, observation: Observation, at: At) -> None:
    """Refuse functions that this kernel cannot trace: to call them "not met" would be a guess."""
    if not (expect.path or expect.never or expect.layers or expect.route):
        return
    if not observation.traced:
        raise Unsupported(
            f"{at(('expect',))}: path, layers, never and route need function tracing, "
            f"and kernel {observation.kernel} was run without",
            remedy="run with --nft-kernel auto",
        )
    for key, path in (("path", entries(expect.path)), ("never", expect.never or ())):
        for index, entry in enumerate(path):
            names, detail = parse_entry(entry)
            if observation.traced.isdisjoint(names) and not detail.optional:
                inner = ("exactly",) if key == "path" and isinstance(expect.path, Exactly) else ()
                keys: Keys = ("expect", key, *inner, index)
                raise _untraced(names, observation, *keys).at(at(keys))


def _untraced(names: Sequence[str], observation: Observation, *keys: str | int) -> Problem:
    import difflib  # only for a mistake: an import costs much in the microVM

    near = [found for name in names for found in difflib.get_close_matches(name, observation.traced)]
    whys = dict.fromkeys(observation.untraceable[name] for name in names if name in observation.untraceable)
    why = f": {'; '.join(whys)}" if whys else " (inlined, absent or misspelt)"
    return Problem(
        f"kernel {observation.kernel} cannot trace {one_of(names)}{why}",
        *keys,
        remedy=f"did you mean {one_of(dict.fromkeys(near))}?" if near else "give an alternative that it can: 'a | b'",
    )
