"""The picture of the lab with the path of a packet."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harness.model.result import LabInterface, LabPlan, Result
from harness.report.picture import draw

Make = Callable[..., Result]


def test_the_picture_follows_the_packet(make_result: Make) -> None:
    result = make_result()
    assert result.lab is not None
    picture = draw(result.lab, result.sent[0].seen, "device")
    assert [box.name for box in picture.boxes] == ["client", "device", "server"]
    assert [box.mark for box in picture.boxes] == ["", "", "delivered"]
    assert picture.words == "The packet went client → device → server, delivered at server"
    dropped = make_result(accepted=False)
    assert draw(result.lab, dropped.sent[0].seen, "device").words.endswith("client → device, dropped at device")


def test_hosts_that_are_no_neighbours_in_the_picture_are_joined_by_a_bow(make_result: Make) -> None:
    def end(host: str, name: str, peer: tuple[str, str]) -> LabInterface:
        return LabInterface(host=host, name=name, addresses=(), peer=peer)

    ring = LabPlan(
        hosts=("a", "b", "c"),
        device="a",
        interfaces=(
            end("a", "0", ("b", "0")),
            end("b", "0", ("a", "0")),
            end("b", "1", ("c", "0")),
            end("c", "0", ("b", "1")),
            end("c", "1", ("a", "1")),
            end("a", "1", ("c", "1")),
        ),
    )
    links = draw(ring, make_result().sent[0].seen, "a").links
    assert ["C" in link for link in links] == [False, False, True]


def test_a_bridge_is_linked_to_nothing(make_result: Make) -> None:
    lab = make_result().lab
    assert lab is not None
    bridge = LabInterface(host="device", name="br0", addresses=("192.0.2.1/24",), peer=("device", "br0"))
    picture = draw(
        msgspec.structs.replace(lab, interfaces=(*lab.interfaces, bridge)), make_result().sent[0].seen, "device"
    )
    assert len(picture.links) == 2
    assert "br0 192.0.2.1/24" in picture.boxes[1].interfaces
