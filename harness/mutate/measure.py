"""The program on the kernel that measures mutants; it answers what :mod:`harness.batch.measure` answers as well.

::

    python -m harness.mutate.measure ENGINE
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from harness.batch import measure
from harness.mutate.messages import AskedApart, AskedBaselines, AskedMutants, AskedStructure, Request, Structure

if TYPE_CHECKING:
    from harness.scenario.case import Case
    from harness.tracer.base import BaseTracer


def main(engine: str) -> None:
    """Answer the requests on stdin, with functions traced by ``engine``."""
    measure.serve(engine, Request, answers)


def answers(request: Any, tracer: Callable[[], BaseTracer]) -> Iterator[msgspec.Struct]:
    """The answers to ``request``; a ``tracer`` is made when it is needed."""
    match request:
        case AskedStructure(case=pickled):
            yield structure(pickle.loads(pickled))
        case AskedBaselines(cases=pickled, frames=frames):
            from harness.mutate.running import baselines

            _use(frames)
            yield from baselines(pickle.loads(pickled), tracer())
        case AskedMutants(cases=pickled, frames=frames, sift=sift):
            from harness.mutate.running import tried

            _use(frames)
            yield from tried(pickle.loads(pickled), request, None if sift else tracer())
        case AskedApart():
            from harness.mutate.apart import apart

            yield from apart(request, tracer)
        case _:
            yield from measure.answers(request, tracer)


def _use(prepared: Mapping[str, bytes]) -> None:
    from harness.packets import frames

    frames.use(prepared)


def structure(case: Case) -> Structure:
    """The ruleset of the device of ``case``, in its lab."""
    from harness.mutate.fixed import unwritable
    from harness.ruleset.hosts import built
    from harness.ruleset.load import nft_version

    with built(case.network, case.rulesets) as (lab, loaded):
        ruleset = loaded[lab.network.device]
        objects = ruleset.nft.ask({"list": {"ruleset": None}})
        devices = {(one.family, one.table, one.name): list(one.devices) for one in ruleset.chains if one.devices}
        for what in (one["chain"] for one in objects if "chain" in one):
            if several := devices.get((what["family"], what["table"], what["name"])):
                what["dev"] = several if len(several) > 1 else several[0]  # which nft 1.0 leaves out
        return Structure(
            kernel=os.uname().release,
            nft=nft_version(),
            objects=objects,
            chains=ruleset.chains,
            rules=ruleset.rules,
            policies=ruleset.policies,
            fixed=tuple(unwritable(ruleset, objects)),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
