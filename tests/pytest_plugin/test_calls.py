"""A call of a test in Python as a document of a scenario file."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from harness.model.observation import Verdict
from harness.packets.spec import TCP
from harness.pytest_plugin import calls


def test_values_are_those_that_a_file_would_have() -> None:
    node, file = calls.document(
        {
            "from_": "client",
            "to": ip_address("10.0.2.2"),
            "tcp": TCP(dport=22),
            "payload": {"file": Path("body")},
            "count": 2,
            "verdict": Verdict.DROP,
            "left_out": None,
            "rules": ("a", 7),
        }
    )
    assert node.value == {
        "from": "client",
        "to": "10.0.2.2",
        "tcp": {"dport": 22},
        "payload": {"file": "body"},
        "count": 2,
        "verdict": "drop",
        "rules": ["a", 7],
    }
    assert file.name == Path(__file__).name


def test_all_of_it_stands_at_the_line_of_the_call() -> None:
    node, _ = calls.document({"tcp": {"dport": 22}})
    here = calls.caller()
    assert node.nearest("tcp", "dport").place.line == here.line - 1
