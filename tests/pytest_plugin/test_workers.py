"""A guest that was taken over: what its worker sends is checked, and nothing of it is called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.pytest_plugin.wire import MAX_BYTES
from harness.pytest_plugin.workers import Watch

pytest_plugins = ["pytester"]

IDS = ["test_a.py::test_one", "test_a.py::test_two", "test_a.py::test_three"]
INFO = {"version": "3", "version_info": (3, 11, 2, "final", 0), "cwd": "/\x1b[2J"}


class Node:
    """xdist's side of a worker, as far as a watch knows it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.passed: list[Any] = []
        self.commands: list[str] = []
        self.gateway = SimpleNamespace(id="6.12.1", _io=SimpleNamespace(read=self.read))
        self._down = False
        self.arrives = b""

    def read(self, size: int) -> bytes:
        return self.arrives[:size]

    def process_from_remote(self, event: Any) -> None:
        self.passed.append(event)

    def sendcommand(self, name: str, **_: Any) -> None:
        self.commands.append(name)

    def shutdown(self) -> None:
        self.commands.append("shutdown")

    def notify_inproc(self, name: str, **more: Any) -> None:
        self.passed.append((name, more))


class Worker:
    """A worker that was sent two of its three tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.node = Node(config)
        self.refused: list[str] = []
        self.watch = Watch(self.node, "6.12.1", {"scenarios/a.yaml"}, self.refused.append)
        self.send("workerready", workerinfo=INFO)
        self.send("collectionstart")
        self.send("collectionfinish", topdir="/", ids=IDS)
        self.node.sendcommand("runtests", indices=[0, 1])
        self.send("logstart", nodeid=IDS[0], location=("test_a.py", 1, "test_one"))
        assert self.refused == []

    def send(self, name: str, **arguments: Any) -> None:
        self.node.process_from_remote((name, arguments))

    def report(self, **more: Any) -> None:
        about = {"nodeid": IDS[0], "location": ("test_a.py", 1, "test_one"), "keywords": {}, "item_index": 0}
        end = {"outcome": "passed", "when": "call", "duration": 0.5, "longrepr": None, "$report_type": "TestReport"}
        self.send("testreport", data=about | end | {"sections": [], "user_properties": []} | more)

    def warns(self, module: str | None, name: str | None) -> None:
        data = {"message_str": "m", "message_module": module, "message_class_name": name, "message_args": ("x",)}
        data |= {"category_module": module or "builtins", "category_class_name": name or "UserWarning"}
        data |= dict.fromkeys(("line", "file", "source")) | {"filename": "/dev/zero", "lineno": 1}
        self.send("warning_recorded", warning_message_data=data, when="runtest", nodeid="", location=None)

    def ends(self, **more: Any) -> None:
        self.send("workerfinished", workeroutput={"exitstatus": 0, "shouldfail": False, "shouldstop": False, **more})


@pytest.fixture
def worker(pytestconfig: pytest.Config) -> Worker:
    return Worker(pytestconfig)


ATTACKS = {
    "a callable": lambda worker: worker.warns("os", "system"),
    "a class that is no warning": lambda worker: worker.warns("subprocess", "Popen"),
    "a builtin": lambda worker: worker.warns("builtins", "exec"),
    "an event of the controller's own": lambda worker: worker.send("errordown", error="x"),
    "a method of a node": lambda worker: worker.send("__init__"),
    "another shape": lambda worker: worker.send("logstart", nodeid=1, location=None),
    "too much": lambda worker: worker.send("logstart", nodeid=IDS[0], location=("", 1, ""), more=1),
    "no event": lambda worker: worker.node.process_from_remote([1, 2, 3]),
    "nothing": lambda worker: worker.node.process_from_remote(None),
    "ready again": lambda worker: worker.send("workerready", workerinfo={}),
    "collected again": lambda worker: worker.send("collectionfinish", topdir="", ids=[]),
    "a start of an unknown test": lambda worker: worker.send("logstart", nodeid="x", location=("", 1, "")),
    "an end of a test it was not sent": lambda worker: worker.send(
        "runtest_protocol_complete", item_index=2, duration=1.0
    ),
    "an end of no test": lambda worker: worker.send("runtest_protocol_complete", item_index=-1, duration=1.0),
    "tests of others": lambda worker: worker.send("unscheduled", indices=[2]),
    "another test's report": lambda worker: worker.report(nodeid="test_a.py::test_other"),
    "a report of a test it was not sent": lambda worker: worker.report(item_index=2),
    "a method of a report": lambda worker: worker.report(toterminal="x"),
    "an outcome": lambda worker: worker.report(outcome="splendid"),
    "a traceback": lambda worker: worker.report(longrepr={"reprcrash": 1, "reprtraceback": {}}),
    "another report": lambda worker: worker.report(**{"$report_type": "Evil"}),
    "no report": lambda worker: worker.send("testreport", data={}),
    "a collector that did well": lambda worker: worker.send("collectreport", data={"outcome": "passed"}),
    "a result": lambda worker: worker.report(nft_results=[b"{}"]),
    "a note": lambda worker: worker.report(nft_notes=["a sentence alone"]),
    "a file": lambda worker: worker.report(nft_scenario="/etc/passwd::x"),
    "an object": lambda worker: worker.report(more=object()),
    "an end without a status": lambda worker: worker.send("workerfinished", workeroutput={}),
    "an early end": lambda worker: worker.ends(),
    "an armed number": lambda worker: worker.ends(exitstatus=1, nft_armed={"6.12": 1}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_worker_that_sends_what_none_sends_is_ended(worker: Worker, attack: Any) -> None:
    before = len(worker.node.passed)
    attack(worker)
    (sentence,) = worker.refused
    assert sentence.startswith("worker 6.12.1 was terminated; its message was invalid: ")
    assert sentence.isprintable()
    assert worker.node.passed[before:] == [("errordown", {"node": worker.node, "error": sentence})]
    assert worker.node.commands[-1] == "shutdown"
    worker.report()  # and nothing more is heard of it
    assert len(worker.node.passed) == before + 1


def test_another_files_result_is_no_result_of_this_session(worker: Worker, make_result: Any) -> None:
    from harness.errors import Position
    from harness.model.result import encode

    worker.report(nft_results=[encode(make_result(position=Position("scenarios/a.yaml", 1)))])
    assert worker.refused == []
    worker.report(nft_results=[encode(make_result(position=Position("/home/other/x.yaml", 1)))])
    assert "/home/other/x.yaml, which is not a file of this session" in worker.refused[0]


def test_a_warning_names_no_module_and_no_line_of_a_file(worker: Worker) -> None:
    for module, name in (("antigravity", "x"), ("nowhere", "Their"), (None, None), ("builtins", "DeprecationWarning")):
        worker.warns(module, name)
        arguments = worker.node.passed[-1][1]["warning_message_data"]
        assert (arguments["category_module"], arguments["message_module"]) == ("builtins", None)
        assert (arguments["line"], arguments["source"]) == ("", None)
    assert worker.refused == []


def test_text_of_a_guest_moves_no_cursor(worker: Worker) -> None:
    worker.report(outcome="failed", longrepr="\x1b[31mred\x1b[2J\n::error::x", sections=[("out", "\x1b]0;t\x07")])
    data = worker.node.passed[-1][1]["data"]
    assert data["longrepr"] == "\x1b[31mred" + r"\x1b[2J" + "\n" + r"\x3a:error::x"
    assert data["sections"] == [("out", r"\x1b]0;t\x07")]
    assert worker.node.passed[0][1]["workerinfo"]["cwd"] == r"/\x1b[2J"


def test_of_the_output_only_what_is_known_is_passed_on(worker: Worker) -> None:
    names = ("../x", "host/6.12.1/survey.json", "guests/6.1.0/survey.json", "guests/6.12.1/survey.json")
    for index in (0, 1):
        worker.send("runtest_protocol_complete", item_index=index, duration=0.1)
    worker.ends(nft_learned=dict.fromkeys(names, b""), evil_pickle=b"x", metadata={"Platform": "<script>"})
    ((_, arguments),) = [event for event in worker.node.passed if event[0] == "workerfinished"]
    output = arguments["workeroutput"]
    known = ["exitstatus", "metadata", "nft_armed", "nft_complaints", "nft_learned", "nft_unusable"]
    known += ["shouldfail", "shouldstop"]
    assert sorted(output) == known
    assert output["metadata"] == {}, "pytest-metadata looks for it, and believes it"
    assert list(output["nft_learned"]) == ["guests/6.12.1/survey.json"]


@pytest.mark.parametrize(
    ("size", "data"), [(MAX_BYTES + 1, b""), (-1, b""), (6, b"K\x7f\xff\xff\xffQ"), (18, b"raise SystemExit()")]
)
def test_messages_are_bounded_and_plain(worker: Worker, size: int, data: bytes) -> None:
    worker.node.arrives = data
    with pytest.raises(EOFError):
        worker.node.gateway._io.read(size)
    assert len(worker.refused) == 1


CONFTEST = """
import os
import pytest
from harness.pytest_plugin.session import SESSION
from harness.pytest_plugin.workers import Watch


@pytest.hookimpl(trylast=True, optionalhook=True)
def pytest_configure_node(node):
    Watch(node, "6.12.1", {"scenarios/a.yaml"}, node.config.stash[SESSION].broken.append)


def pytest_runtest_teardown(item):
    for worker in item.config.pluginmanager.get_plugins():
        if item.name == "test_evil" and type(worker).__name__ == "WorkerInteractor":
            data = dict.fromkeys(("line", "file", "source"))
            for kind in ("message", "category"):
                data |= {f"{kind}_module": "os", f"{kind}_class_name": "system"}
            data |= dict(message_str="", message_args=("touch called",), filename="", lineno=1)
            worker.sendevent("warning_recorded", warning_message_data=data, when="runtest", nodeid="", location=None)
"""


def test_a_session_with_a_worker_that_was_taken_over(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_a="def test_evil(): pass\ndef test_two(): pass\n")
    run = pytester.runpytest_subprocess("-n1", "-p", "no:cacheprovider", timeout=120)
    run.stdout.fnmatch_lines(["nft-harness: worker gw0 was terminated; * a warning of os.system, *"])
    assert run.ret in (1, 6)
    assert "INTERNALERROR" not in run.stdout.str() + run.stderr.str()
    assert not Path("called").exists()


def test_what_workers_send_arrives(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        test_a="""
        import warnings, pytest
        def test_passes(record_property): record_property("a", 1)
        def test_fails(): assert "\\n::error::x\\x1b[2J" == 1
        @pytest.mark.skip(reason="why")
        def test_skipped(): pass
        def test_warns(): warnings.warn("mind", DeprecationWarning)
        @pytest.mark.parametrize("x", [1, "ä"])
        def test_values(x): pass
        """,
        test_b="import nowhere_at_all",
    )
    run = pytester.runpytest_subprocess("-n1", "-p", "no:cacheprovider", "--continue-on-collection-errors", timeout=120)
    run.stdout.fnmatch_lines(["*DeprecationWarning: mind", "FAILED test_a.py::test_fails*", "ERROR test_b.py*"])
    assert "1 failed, 4 passed, 1 skipped, 1 warning, 1 error" in run.stdout.str()
    assert "was ended" not in run.stdout.str()
