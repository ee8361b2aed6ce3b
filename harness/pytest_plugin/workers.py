"""What a worker in a guest sends is checked before pytest-xdist sees it: a guest may have been taken over.

A worker sends events, ``(name, arguments)`` of plain values. xdist believes them: it imports the module that a
warning names and calls what that module has. Here each event must be one that a worker sends, at its time, with
arguments of its shape; a warning is made anew without names of modules, and of a worker's output only what is known is
passed on. Anything else ends the worker with a sentence.

Sources: xdist/remote.py (what is sent), xdist/workermanage.py and dsession.py (what is done with it),
execnet/gateway_base.py (how it travels; a controller of execnet runs nothing that a worker sends).
"""

from __future__ import annotations

import builtins
import copy
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from harness.cache import accepted_from_guest
from harness.errors import HarnessError
from harness.model import result
from harness.pytest_plugin.measured import measured
from harness.pytest_plugin.wire import MAX_BYTES, MalformedMessage, check
from harness.scenario.files import shortened
from harness.text import escape, lines

MAX_TESTS = 1_000_000

Number = int | float
_Location = tuple[str, int | None, str]


class Unexpected(HarnessError):
    """A worker sent what none sends."""


class _Shape(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of an event."""


class _Ready(_Shape):
    workerinfo: dict[str, str | int | tuple[int | str, ...]]


class _Finished(_Shape):
    workeroutput: dict[str, Any]


class _Output(msgspec.Struct):
    exitstatus: int
    shouldfail: bool | str
    shouldstop: bool | str
    nft_armed: dict[str, str] = {}
    nft_learned: dict[str, bytes] = {}
    nft_unusable: list[str] = []
    nft_complaints: list[str] = []


class _Error(_Shape):
    formatted_error: str


class _Log(_Shape):
    nodeid: str
    location: _Location


class _Collected(_Shape):
    topdir: str
    ids: list[str]


class _Complete(_Shape):
    item_index: int
    duration: Number


class _Unscheduled(_Shape):
    indices: list[int]


class _Report(_Shape):
    data: dict[str, Any]


class _Recorded(_Shape):
    warning_message_data: dict[str, Any]
    when: Literal["config", "collect", "runtest"]
    nodeid: str
    location: tuple[str, int, str] | None


class _Nothing(_Shape):
    pass


_SHAPES: Mapping[str, type[_Shape]] = {
    "workerready": _Ready,
    "collectionstart": _Nothing,
    "collectreport": _Report,
    "collectionfinish": _Collected,
    "logstart": _Log,
    "logfinish": _Log,
    "testreport": _Report,
    "runtest_protocol_complete": _Complete,
    "unscheduled": _Unscheduled,
    "warning_recorded": _Recorded,
    "internal_error": _Error,
    "workerfinished": _Finished,
}
"""The events that a worker sends, all of them."""


class _TestReport(msgspec.Struct):
    """What is read of a report of a test; other keys are plugins'."""

    nodeid: str
    location: _Location
    outcome: Literal["passed", "failed", "skipped", "rerun"]  # the last is pytest-rerunfailures'
    when: Literal["setup", "call", "teardown"]
    item_index: int
    duration: Number
    keywords: dict[str, Any]
    longrepr: str | tuple[str, int, str] | dict[str, Any] | None
    sections: list[tuple[str, str]]
    user_properties: list[tuple[str, Any]]
    nft_broken: bool = False
    nft_scenario: str = ""
    nft_moved: bool = False
    nft_paths: str = ""
    nft_notes: list[tuple[str, str]] = []
    nft_results: list[bytes] = []


class _CollectReport(msgspec.Struct):
    nodeid: str
    outcome: Literal["failed", "skipped"]
    longrepr: str | tuple[str, int, str] | dict[str, Any] | None
    sections: list[tuple[str, str]]


class Watch:
    """Stands between execnet and xdist for one worker.

    ``release`` is the kernel that its guest was given; ``files`` are the scenario files of this session, by the names
    that results give them; ``refuse`` is called with the sentence when the worker is ended.
    """

    def __init__(self, node: Any, release: str, files: Collection[str], refuse: Callable[[str], None]) -> None:
        self._node = node
        self._release = release
        self._files = files
        self._refuse = refuse
        self._pass_on = node.process_from_remote
        self._ids: list[str] | None = None
        self._ready = self._over = False
        self._open: set[int] = set()
        """Indices of the tests that the worker was sent and has not completed."""
        node.process_from_remote = self.receive
        send = node.sendcommand

        def sendcommand(name: str, **arguments: Any) -> None:
            if name == "runtests":
                self._open.update(arguments["indices"])
            elif name == "runtests_all":
                self._open.update(range(len(self._ids or ())))
            send(name, **arguments)

        node.sendcommand = sendcommand
        self._bound(node.gateway._io)

    def _bound(self, stream: Any) -> None:
        read = stream.read

        def bounded(size: int) -> bytes:
            try:
                if not 0 <= size <= MAX_BYTES:
                    raise MalformedMessage(f"a message of {size:,} bytes")
                data: bytes = read(size)
                if data[:1] >= b"@":  # else a header: it begins with the kind of a message, from 0 on
                    check(data)
            except MalformedMessage as reason:
                self._end(f"{reason}")
                raise EOFError(str(reason)) from None  # to execnet the worker is gone
            return data

        stream.read = bounded

    def receive(self, event: Any) -> None:
        """Take what xdist's ``process_from_remote`` takes: an event, or a mark that nothing follows."""
        if type(event).__module__ == "xdist.workermanage":  # the mark; nothing that travels has such a type
            self._pass_on(event)
        elif not self._over:
            try:
                checked = self._checked(event)
            except (HarnessError, msgspec.MsgspecError) as error:
                self._end(escape(str(error)))
            else:
                self._pass_on(checked)

    def _end(self, reason: str) -> None:
        """End the worker, as xdist ends one whose event raised an exception."""
        if not self._over:
            self._over = True
            sentence = f"worker {self._node.gateway.id} was terminated; its message was invalid: {reason}"
            self._refuse(sentence)
            self._node.shutdown()
            if not self._node._down:
                self._node._down = True
                self._node.notify_inproc("errordown", node=self._node, error=sentence)

    def _checked(self, event: Any) -> tuple[str, dict[str, Any]]:
        name, arguments = msgspec.convert(event, tuple[str, dict[str, Any]])
        if name not in _SHAPES:
            raise Unexpected(f"the event {name[:60]!r}")
        try:
            shape: Any = msgspec.convert(arguments, _SHAPES[name])
        except msgspec.ValidationError as error:
            raise Unexpected(f"in the event {name}: {error}") from None
        if self._ready == (name == "workerready") and name not in ("warning_recorded", "internal_error"):
            raise Unexpected(f"the event {name} {'twice' if self._ready else 'before workerready'}")
        check_one = getattr(self, f"_{name}", None)
        return name, arguments if check_one is None else check_one(arguments, shape)

    # -- one for each event with more to say than its shape; each returns the arguments to pass on ---

    def _workerready(self, _: Mapping[str, Any], shape: _Ready) -> dict[str, Any]:
        self._ready = True
        return {
            "workerinfo": {name: escape(one) if isinstance(one, str) else one for name, one in shape.workerinfo.items()}
        }

    def _internal_error(self, _: Mapping[str, Any], shape: _Error) -> dict[str, Any]:
        return {"formatted_error": lines(shape.formatted_error)}

    def _collectionfinish(self, arguments: dict[str, Any], shape: _Collected) -> dict[str, Any]:
        if self._ids is not None:
            raise Unexpected("the event collectionfinish twice")
        if len(shape.ids) > MAX_TESTS:
            raise Unexpected(f"{len(shape.ids):,} tests")
        if wrong := next((one for one in shape.ids if not one.isprintable()), None):
            raise Unexpected(f"the name of a test {wrong[:200]!r}")
        self._ids = shape.ids
        return arguments

    def _log(self, arguments: dict[str, Any], shape: _Log) -> dict[str, Any]:
        self._known(shape.nodeid)
        return {**arguments, "location": _shown(shape.location)}

    _logstart = _logfinish = _log

    def _runtest_protocol_complete(self, arguments: dict[str, Any], shape: _Complete) -> dict[str, Any]:
        if shape.item_index not in self._open:
            raise Unexpected(f"the end of test {shape.item_index}, which it had not been asked to run")
        self._open.remove(shape.item_index)
        return arguments

    def _unscheduled(self, arguments: dict[str, Any], shape: _Unscheduled) -> dict[str, Any]:
        if not self._open.issuperset(shape.indices):
            raise Unexpected("tests given back that it does not have")
        self._open.difference_update(shape.indices)
        return arguments

    def _collectreport(self, arguments: dict[str, Any], shape: _Report) -> dict[str, Any]:
        msgspec.convert(shape.data, _CollectReport)
        return self._report(arguments, pytest.CollectReport)

    def _testreport(self, arguments: dict[str, Any], shape: _Report) -> dict[str, Any]:
        report = msgspec.convert(shape.data, _TestReport)
        self._known(report.nodeid)
        if report.item_index not in self._open:
            raise Unexpected(f"a report of test {report.item_index}, which it had not been asked to run")
        for text in report.nft_results:
            stored = result.decode(text, "a result")
            if stored.position.file not in self._files and not stored.position.file.endswith(".py"):
                raise Unexpected(f"a result of {stored.position.file[:200]}, which is not a file of this session")
        file = report.nft_scenario.partition("::")[0]
        if file and str(shortened(Path(file))) not in self._files:
            raise Unexpected(f"a result of {file[:200]}, which is not a file of this session")
        return self._report(arguments, pytest.TestReport)

    def _report(self, arguments: dict[str, Any], kind: type) -> dict[str, Any]:
        """Have pytest make the report of a copy, and show it: what fails there must not fail in xdist's hands."""
        data = arguments["data"]
        if wrong := next(
            (name for name in data if callable(getattr(kind, name, None)) or not name.isprintable()), None
        ):
            raise Unexpected(f"a report with its own {wrong[:60]!r}")
        shown = _cleaned(data)
        hook = self._node.config.hook.pytest_report_from_serializable
        try:
            report = hook(config=self._node.config, data=copy.deepcopy(shown))
            _ = report.longreprtext, report.head_line, report.nodeid
        except Exception as error:
            raise Unexpected(f"a report that cannot be read: {type(error).__name__}: {error!s:.200}") from None
        return {**arguments, "data": shown}

    def _warning_recorded(self, arguments: dict[str, Any], shape: _Recorded) -> dict[str, Any]:
        return {
            **arguments,
            "warning_message_data": _warning(shape.warning_message_data),
            "nodeid": escape(shape.nodeid),
        }

    def _workerfinished(self, _: Mapping[str, Any], shape: _Finished) -> dict[str, Any]:
        output = msgspec.convert(shape.workeroutput, _Output)
        if self._open and not (output.exitstatus or output.shouldfail or output.shouldstop):
            raise Unexpected(f"its end, with {len(self._open)} tests not run")
        known = msgspec.to_builtins(output, builtin_types=(bytes,))
        learned = accepted_from_guest(self._release, output.nft_learned)
        # pytest-metadata puts these over the controller's own, and pytest-html writes them into a page.
        described: dict[str, Any] = {"metadata": {}} if "metadata" in shape.workeroutput else {}
        return {"workeroutput": {**known, **described, **measured(shape.workeroutput), "nft_learned": learned}}

    def _known(self, nodeid: str) -> None:
        if self._ids is None or nodeid not in self._names:
            raise Unexpected(f"a report of {nodeid[:200]!r}, which it did not collect")

    @property
    def _names(self) -> frozenset[str]:
        if not hasattr(self, "_names_kept"):
            self._names_kept = frozenset(self._ids or ())
        return self._names_kept


def _shown(location: _Location) -> _Location:
    return escape(location[0]), location[1], escape(location[2])


_AS_IT_IS = frozenset({"nft_results"})


def _cleaned(value: Any, depth: int = 0) -> Any:
    """Plain values, with all texts as a terminal may show them."""
    if depth > 40:
        raise Unexpected("a report nested more than 40 deep")
    match value:
        case str():
            return lines(value, colour=True)
        case dict():
            return {
                key: one if key in _AS_IT_IS else _cleaned(one, depth + 1)
                for key, one in value.items()
                if isinstance(key, str | int)
            }
        case list() | tuple() | set() | frozenset():
            return type(value)(_cleaned(one, depth + 1) for one in value)
        case None | bool() | int() | float() | bytes():
            return value
    raise Unexpected(f"a report with a {type(value).__name__}")


def _warning(data: Mapping[str, Any]) -> dict[str, Any]:
    """A warning as xdist takes it, which imports no module for it and reads no line of a source file."""
    for kind in ("message", "category"):
        module, name = str(data.get(f"{kind}_module")), str(data.get(f"{kind}_class_name"))
        there = vars(sys.modules[module]).get(name, Warning) if module in sys.modules else Warning
        if not (isinstance(there, type) and issubclass(there, Warning)):
            raise Unexpected(f"a warning of {module[:60]}.{name[:60]}, which is not a class of warnings")
    known = data.get("category_module") == "builtins" and name in vars(builtins)
    message = lines(str(data.get("message_str")))
    line = data.get("lineno")
    return {
        **dict.fromkeys(("file", "source", "message_module", "message_class_name", "message_args")),
        "message_str": message if known else f"{escape(name)}: {message}",
        "category_module": "builtins",
        "category_class_name": name if known else "UserWarning",
        "filename": escape(str(data.get("filename"))),
        "lineno": line if isinstance(line, int) else 0,
        "line": "",  # else warnings.formatwarning() reads it from the file
    }
