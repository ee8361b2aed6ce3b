"""A scenario that stands in no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.batch import drafts
from harness.errors import ScenarioError
from harness.generate.lab import ChosenLab
from harness.model.node import LineColumn, Node
from harness.scenario.case import Case
from harness.scenario.models.actions import SendAction
from harness.topology.builtin import LABS
from harness.topology.network import Network

SEND = {"from": "client", "to": "server", "tcp": {"dport": 22}}
LAB = ChosenLab("router", {"wan0": "eth1"}, Network.of(LABS["router"]))


def drafted(folder: Path, *steps: dict[str, Any]) -> Case:
    (folder / "edge.nft").touch()
    return drafts.case(LAB, [folder / "edge.nft"], "packet", [Node.of(one, LineColumn(1, 5)) for one in steps])


def test_one_packet_in_the_lab_that_was_chosen(tmp_path: Path) -> None:
    case = drafted(tmp_path, {"send": SEND})
    (action,) = case.actions
    assert isinstance(action, SendAction)
    assert list(case.network.hosts["device"].interfaces) == ["eth1", "lan0"]
    assert case.rulesets["device"].paths == (tmp_path / "edge.nft",)


def test_several_steps(tmp_path: Path) -> None:
    case = drafted(
        tmp_path, {"listen": {"on": "server", "tcp": 22}}, {"connect": {"from": "client", "to": "server", "tcp": 22}}
    )
    assert [type(one).__name__ for one in case.actions] == ["ListenAction", "ConnectAction"]


def test_what_is_wrong_stands_where_the_packet_does(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"packet:1:5: send\.to: 'servr' is neither"):
        drafted(tmp_path, {"send": {**SEND, "to": "servr"}})
