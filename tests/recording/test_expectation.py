"""From what was observed to what is to be expected; that it holds then is what the judge says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from harness.model.observation import Drop, ObservedPacket
from harness.model.result import Result
from harness.recording.expectation import judged, moved, whole
from harness.recording.sample import NotRecordableError, Sample
from harness.scenario.models.expect import Expect

Make = Callable[..., Result]


def sample(result: Result, *, packet: dict[str, Any] | None = None, where: str = "6.12", **more: Any) -> Sample:
    """Of the result's only packet, with other values in its observation."""
    (sent,) = result.sent
    changed: tuple[ObservedPacket, ...] = (msgspec.structs.replace(sent.observation.packets[0], **packet or {}),)
    observation = msgspec.structs.replace(sent.observation, **{"packets": changed, **more})
    assert result.ruleset is not None
    return Sample(sent=msgspec.structs.replace(sent, observation=observation), rules=result.ruleset.rules, where=where)


def updates(expect: dict[str, Any], *seen: Sample) -> dict[str, Any]:
    """The changes by their keys, joined by dots."""
    found = moved(msgspec.convert(expect, Expect), seen)
    return {".".join(map(str, one.keys)): one.value for one in found}


def test_everything_worth_expecting_holds_for_what_was_seen(make_result: Make) -> None:
    for accepted in (True, False):
        seen = sample(make_result(accepted=accepted))
        written = whole([seen])
        assert {"verdict", "rule", "delivered", "layers", "path"} <= written.keys()
        assert judged(msgspec.convert(written, Expect), seen) == ()


def test_functions_are_not_recorded_where_the_next_run_may_see_fewer(make_result: Make) -> None:
    seen = sample(make_result(), whole=False)  # the stacks at tracepoints
    assert {"verdict", "rule", "delivered"} <= whole([seen]).keys()
    assert not {"layers", "path"} & whole([seen]).keys()
    assert not {"layers", "path"} & whole([sample(make_result()), seen]).keys()


@pytest.mark.parametrize(
    ("expect", "changes"),
    [
        ({"verdict": "accept", "delivered": "server"}, {}),
        ({"verdict": "drop"}, {"verdict": "accept"}),
        ({"verdict": "reject", "with": "tcp reset"}, {"verdict": "accept", "with": None}),
        ({"rule": "tcp dport 22 accept"}, {"rule": "tcp dport 443 accept"}),
        ({"rules": ["tcp dport 22 accept"]}, {"rules": ["tcp dport 443 accept"]}),
        ({"delivered": "nowhere"}, {"delivered": "server"}),
        ({"delivered": {"to": "client"}}, {"delivered.to": "server"}),
        ({"route": "wan0"}, {"route": "lan0"}),
        ({"mark": 7}, {"mark": 0}),
        ({"counters": {"inet t c": 1}}, {"counters.inet t c": 5}),
        ({"elements": {"inet t s": ["x"]}}, {"elements.inet t s": ["a", "b"]}),
        ({"dropped": "NO_SOCKET"}, {"dropped": None}),
        ({"never": ["ip_rcv"]}, {"never": None}),
        ({"reply": {"tcp": {"flags": "SA"}}}, {"reply": "none"}),
    ],
)
def test_only_what_does_not_hold_changes(expect: dict[str, Any], changes: dict[str, Any], make_result: Make) -> None:
    state = {"counters": {"inet t c": 5}, "elements": {"inet t s": ("b", "a")}}
    assert updates(expect, sample(make_result(), **state)) == changes


def test_the_reasons_of_all_kernels_are_alternatives(make_result: Make) -> None:
    result = make_result()

    def given_up(reason: str) -> Sample:
        drop = Drop(host="device", function="f", reason=reason)
        return sample(result, packet={"drop": drop, "deliveries": ()})

    several = given_up("IP_NOPROTO"), given_up("NO_SOCKET"), given_up("IP_NOPROTO")
    assert whole(several)["dropped"] == "IP_NOPROTO | NO_SOCKET"
    assert updates({"dropped": "OTHERHOST"}, *several) == {"dropped": "IP_NOPROTO | NO_SOCKET"}


def test_where_kernels_differ_nothing_is_recorded(make_result: Make) -> None:
    accepted, dropped = sample(make_result()), sample(make_result(accepted=False), where="7.2")
    with pytest.raises(NotRecordableError, match=r"verdict is accept in 6\.12, and drop in 7\.2"):
        whole([accepted, dropped])
    with pytest.raises(NotRecordableError, match="verdict is accept in"):
        updates({"verdict": "reject"}, accepted, dropped)


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        ({"conntrack": {"state": "ESTABLISHED"}}, "`conntrack` is not what it was"),
        ({"log": "web"}, "`log` is not what it was"),
        ({"path": {"exactly": ["ip6_rcv"]}}, "a path given as `exactly` is not rewritten"),
    ],
)
def test_some_keys_are_not_written_over(expect: dict[str, Any], why: str, make_result: Make) -> None:
    with pytest.raises(NotRecordableError, match=why):
        updates(expect, sample(make_result(), listed=True))
