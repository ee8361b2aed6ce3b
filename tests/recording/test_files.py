"""From results to files, without a kernel: the results are those of tests/conftest.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.errors import Position
from harness.model.observation import Loss
from harness.model.result import Result
from harness.project import Project
from harness.recording.files import RecordingOutcome, record

HEAD = "ruleset: edge.nft\nscenarios:\n"
BARE = HEAD + "  - name: web # one\n    send: {from: client, to: server, tcp: {dport: 443}}\n"
MOVED = BARE + "    expect: {verdict: drop, rule: policy} # reviewed\n"


@pytest.fixture
def run(tmp_path: Path, make_result: Callable[..., Result]) -> Callable[..., tuple[list[RecordingOutcome], str]]:
    """Records results of the scenario ``web`` in a file of the text given; what was reported, and the file then."""

    def run(text: str, *results: dict[str, object], begun: int | None = None) -> tuple[list[RecordingOutcome], str]:
        (tmp_path / "edge.nft").write_text("table inet edge { }\n")
        file = tmp_path / "edge.yaml"
        file.write_text(text)
        made = [
            make_result(**{"name": "web", "position": Position("edge.yaml", 3), **more})  # type: ignore[arg-type]
            for more in results or ({},)
        ]
        reported = record(made, tmp_path, time.time_ns() if begun is None else begun, Project(root=tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["edge.nft", "edge.yaml"]
        return reported, file.read_text()

    return run


def test_what_was_seen_becomes_the_expectation(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    reported, text = run(BARE)
    assert text == BARE + (
        "    expect:\n"
        "      verdict: accept\n"
        "      rule: tcp dport 443 accept\n"
        "      delivered: server\n"
        "      layers: [Device, IPv4, Netfilter, Xmit]\n"
        "      path:\n"
        "        - ip_rcv\n"
        "        - nft_do_chain: {chain: inet edge forward, verdict: accept}\n"
        "        - ip_output\n"
        "        - __dev_queue_xmit: {device: lan0}\n"
    )
    assert [(one.position, one.words) for one in reported] == [
        ("edge.yaml:6", "recorded verdict, rule, delivered, layers, path")
    ]


def test_of_an_expectation_only_what_moved_is_written(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    reported, text = run(MOVED, {"outcome": "failed"})
    assert text == MOVED.replace("drop, rule: policy", "accept, rule: tcp dport 443 accept")
    assert reported[0].moved
    assert reported[0].written
    assert reported[0].words == "recorded verdict (drop → accept), rule"


def test_a_flow_is_recorded_in_the_step_that_begins_it(
    run: Callable[..., tuple[list[RecordingOutcome], str]], make_result: Callable[..., Result]
) -> None:
    flow = HEAD + "  - name: web\n    steps:\n      - listen: {on: server, tcp: 443}\n"
    flow += "      - connect: {from: client, to: server, tcp: 443}\n"
    second = msgspec.structs.replace(make_result().sent[0], action=1)
    _, text = run(flow, {"sent": (second,)})
    assert text.startswith(flow + "        expect:\n          verdict: accept\n")


def test_what_holds_is_left_alone(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    assert run(MOVED, {"accepted": False}) == ([], MOVED)


def test_kernels_that_disagree_are_told(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    reported, text = run(BARE, {"kernel": "6.1"}, {"kernel": "6.12", "accepted": False})
    assert text == BARE
    assert not reported[0].written
    assert reported[0].words.startswith("not recorded: verdict is accept in 'web' on kernel 6.1, and drop in 'web' on")


def test_what_one_kernel_could_not_measure_is_not_recorded(
    run: Callable[..., tuple[list[RecordingOutcome], str]],
) -> None:
    reported, text = run(BARE, {"kernel": "6.1"}, {"kernel": "6.12", "outcome": "error", "sent": ()})
    assert text == BARE
    assert "was not measured on kernel 6.12" in reported[0].words


def test_a_lossy_run_is_not_recorded(
    run: Callable[..., tuple[list[RecordingOutcome], str]], make_result: Callable[..., Result]
) -> None:
    sent = make_result().sent[0]
    lossy = msgspec.structs.replace(sent.observation, loss=Loss(entered=7, received=6))
    reported, text = run(BARE, {"sent": (msgspec.structs.replace(sent, observation=lossy),)})
    assert text == BARE
    assert "lost" in reported[0].words


def test_a_file_changed_meanwhile_is_left_alone(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    reported, text = run(BARE, begun=0)
    assert text == BARE
    assert reported[0].words == "not recorded: the file was changed meanwhile"


def test_scenarios_made_from_one_are_recorded_when_they_agree(
    run: Callable[..., tuple[list[RecordingOutcome], str]],
) -> None:
    each = (
        HEAD + "  - name: port $port\n    each: [{port: 22}, {port: 23}]\n"
        "    send: {from: client, to: server, tcp: {dport: $port}}\n"
    )
    names: list[dict[str, object]] = [{"name": "port 22", "accepted": False}, {"name": "port 23", "accepted": False}]
    reported, text = run(each, *names)
    assert "verdict: drop" in text
    assert reported[0].written
    reported, text = run(each, names[0], {"name": "port 23"})
    assert text == each
    assert not reported[0].written


def test_a_variable_of_nft_is_no_parameter(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    _, text = run(BARE + "    expect: {rule: tcp dport $ssh drop}\n", {"outcome": "failed"})
    assert text == BARE + "    expect: {rule: tcp dport 443 accept}\n"


def test_a_parameter_is_not_written_over(run: Callable[..., tuple[list[RecordingOutcome], str]]) -> None:
    each = (
        HEAD + "  - name: port $port\n    each: [{port: 443, verdict: drop}]\n"
        "    send: {from: client, to: server, tcp: {dport: $port}}\n    expect: {verdict: $verdict}\n"
    )
    reported, text = run(each, {"name": "port 443", "outcome": "failed"})
    assert text == each
    assert reported[0].words == "not recorded: its verdict is a parameter of each: or matrix:"
