"""Values made by hand for tests of this room."""

from __future__ import annotations

from typing import Any

import msgspec

from harness.packets.frames import Frame, build
from harness.packets.spec import Send
from harness.topology.builtin import LABS
from harness.topology.network import Network

ROUTER = Network.of(LABS["router"])


def frame(sender: str = "client", **keys: Any) -> Frame:
    (made,) = build(msgspec.convert({"from": sender, **keys}, Send), ROUTER)
    return made
