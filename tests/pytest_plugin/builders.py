"""Measurements made by hand: what a packet of a stored result was, beside what is expected of it."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.experiment.run import Measurement
from harness.model.fields import Keys
from harness.model.observation import Loss
from harness.model.result import Result
from harness.ruleset.load import Ruleset
from harness.scenario.models.expect import Expect
from harness.topology.builtin import LABS
from harness.topology.network import Network

TRACED = frozenset({"ip_rcv", "ip_forward", "nft_do_chain"})


def measurement(
    result: Result, expect: Any = None, *, action: int = 0, keys: Keys = ("expect",), loss: Loss | None = None
) -> Measurement:
    """The only packet of ``result`` as it was measured; the device loads no ruleset."""
    (sent,) = result.sent
    observation = msgspec.structs.replace(sent.observation, loss=loss or sent.observation.loss, traced=TRACED)
    return Measurement(
        action=action,
        expect=expect if isinstance(expect, Expect) else Expect(),
        keys=keys,
        summary=sent.summary,
        observation=observation,
        packet=observation.packets[0],
        ruleset=Ruleset([], []),
        network=Network.of(LABS["router"]),
    )
