"""A silent host answers the packets of real sockets, each by the answer of its number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from harness.errors import HarnessError
from harness.lab.calls import Call
from harness.lab.capture import Capture, Captured
from harness.lab.lab import Lab
from harness.lab.sockets import Programs
from harness.model.observation import Flow
from harness.packets.answers import Answer
from harness.packets.headers import fields
from harness.scenario.flow import FlowPlan, plan, speaking
from harness.scenario.models.sockets import Connect, Exchange
from harness.topology.builtin import LABS
from harness.topology.network import Network
from harness.wait import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def ruleset() -> str:
    return "table inet t {\nchain forward {\ntype filter hook forward priority 0; policy accept;\n}\n}\n"


@pytest.fixture
def network() -> Network:
    return speaking(["client"], Network.of(LABS["router"]))


@pytest.fixture
def programs(lab: Lab) -> Iterator[Programs]:
    with Programs(lab) as programs:
        yield programs


def answering(programs: Programs, *answers: dict[str, Any]) -> None:
    programs.answers.add(msgspec.convert({"on": "server", "with": answers}, Answer))


def ended(programs: Programs, lab: Lab, planned: FlowPlan, call: Call, packets: int) -> tuple[Flow, list[Captured]]:
    """The result, when the client has received so many packets."""
    capture = Capture([lab.hosts["server"], lab.hosts["client"]])
    programs.answers.begin()
    call.start()
    came: list[Captured] = []

    def received() -> bool:
        fresh = capture.read()
        programs.answers.take(planned, fresh)
        call.advance()
        came.extend(one for one in fresh if one.host == "client" and not one.outgoing and "sport" in fields(one.frame))
        return len(came) >= packets

    wait_until(received, 5, "answers")
    call.advance()
    return call.finish(), came


def test_the_nth_packet_gets_the_nth_answer(lab: Lab, programs: Programs, network: Network) -> None:
    answering(programs, {"tcp": {"flags": "SA"}}, {"tcp": {"flags": "R"}})
    for sport in (40000, 40001):  # each step begins anew
        planned = plan(Connect(from_="client", to="server", tcp=80, sport=sport), network)
        result, came = ended(programs, lab, planned, programs.connect(planned), 2)
        assert [fields(one.frame)["flags"] for one in came] == ["SA", "R"]
        assert result.result == "refused"


def test_behind_the_last_answer_nothing_comes(lab: Lab, programs: Programs, network: Network) -> None:
    answering(programs, {"tcp": {"flags": "SA"}})
    planned = plan(Connect(from_="client", to="server", tcp=80), network)
    result, came = ended(programs, lab, planned, programs.connect(planned), 1)
    assert (result.result, result.by, len(came)) == ("half-open", "", 1)


def test_a_later_step_takes_the_place_of_an_earlier_one(lab: Lab, programs: Programs, network: Network) -> None:
    answering(programs, {"tcp": {"flags": "SA"}})
    answering(programs, {"udp": {}, "payload": "here"})
    planned = plan(Exchange(from_="client", to="server", udp=53), network)
    result, _ = ended(programs, lab, planned, programs.exchange(planned, b"?", b"!"), 1)
    assert (result.result, result.by, result.src, result.dport) == ("answered", "server", "203.0.113.5", 53)


def test_a_datagram_without_payload_is_an_answer(lab: Lab, programs: Programs, network: Network) -> None:
    answering(programs, {"udp": {}})
    planned = plan(Exchange(from_="client", to="server", udp=53), network)
    result, _ = ended(programs, lab, planned, programs.exchange(planned, b"?", b"!"), 1)
    assert (result.result, result.by) == ("answered", "server")


def test_packets_of_another_protocol_are_not_answered(lab: Lab, programs: Programs, network: Network) -> None:
    answering(programs, {"tcp": {"flags": "SA"}})
    udp = plan(Exchange(from_="client", to="server", udp=53), network)
    tcp = plan(Connect(from_="client", to="server", tcp=80), network)
    capture = Capture([lab.hosts["server"], lab.hosts["client"]])
    programs.connect(tcp).start()
    seen: list[Captured] = []

    def received() -> bool:
        seen.extend(capture.read())
        return any(one.host == "server" for one in seen)

    wait_until(received, 5, "the packet")
    programs.answers.take(udp, seen)
    assert programs.answers.first is None
    programs.answers.take(tcp, seen)
    assert programs.answers.first is not None


@pytest.mark.parametrize(
    "unfit", [{"tcp": {}}, {"icmpv6": {}}, {"udp": {}, "src": "2001:db8:2::9"}], ids=["protocol", "error", "address"]
)
def test_an_answer_that_does_not_fit_is_an_error(
    unfit: dict[str, Any], lab: Lab, programs: Programs, network: Network
) -> None:
    answering(programs, {"udp": {}}, unfit)
    planned = plan(Exchange(from_="client", to="server", udp=53), network)
    capture = Capture([lab.hosts["server"]])
    programs.exchange(planned, b"?", b"!").start()
    came: list[Captured] = []

    def received() -> bool:
        came.extend(one for one in capture.read() if "sport" in fields(one.frame) and not one.outgoing)
        return bool(came)

    wait_until(received, 5, "the packet")
    programs.answers.take(planned, came[:1])
    with pytest.raises(
        HarnessError, match=r"^answer 2 of server cannot answer 203\.0\.113\.5:40000 → 10\.0\.2\.2:53 udp"
    ):
        programs.answers.take(planned, came[:1])
