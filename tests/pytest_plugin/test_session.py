"""What the processes of a session tell each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.project import EVERYTHING
from harness.pytest_plugin import selection
from harness.pytest_plugin.session import Session
from harness.report import kinds
from harness.tracer import armed


def config(**more: Any) -> Any:
    asked = {**dict.fromkeys((kind.option for kind in kinds.KINDS), None), "nft_results": None, "nft_cov": False}
    options = {
        **asked,
        "nft_cov_fail_under": None,
        "nft_record": False,
        "nft_modules": [],
        "nft_github": "no",
        **more.pop("options", {}),
    }
    plugins = SimpleNamespace(get_plugin=lambda name: None)
    more["getini"] = lambda name: []
    made: Any = SimpleNamespace(stash=pytest.Stash(), option=SimpleNamespace(**options), pluginmanager=plugins, **more)
    selection.use(made, EVERYTHING)
    return made


@pytest.mark.parametrize("asked", [{}, {"nft_github": "yes"}, {"nft_summary": "a.md"}, {"nft_record": True}])
def test_a_worker_knows_what_the_controller_alone_was_asked_for(asked: dict[str, Any]) -> None:
    reported: dict[str, Any] = {}
    controller = Session(config(options=asked))
    controller.inform(reported)
    worker = Session(config(workerinput=reported))
    assert worker.wants_results is controller.wants_results is bool(asked)
    for session in (worker, controller):
        session.close()


class TracerOfTest:
    """What a session asks of its tracer between two scenarios."""

    half_armed = False
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("template", [False, True])
def test_a_tracer_whose_arming_was_interrupted_is_replaced(monkeypatch: pytest.MonkeyPatch, template: bool) -> None:
    opened: list[TracerOfTest] = []

    def open_(*_: object) -> TracerOfTest:
        opened.append(TracerOfTest())
        if template:
            armed.put("auto", 0, opened[-1])  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(Session, "_open", open_)
    monkeypatch.setattr("harness.experiment.kept.KeptLab.run", lambda lab, case, tracer: tracer)
    session = Session(config(options={"nft_tracer": "auto", "nft_program": "host", "nft_fresh_labs": False}))
    one: Any = session.run(None)  # type: ignore[arg-type]
    assert session.run(None) is one  # type: ignore[arg-type]
    one.half_armed = True
    other: Any = session.run(None)  # type: ignore[arg-type]
    assert other is not one
    assert one.closed
    assert not other.closed
    assert not armed.holds(one)
    session.close()
    assert other.closed is not template
    armed.discard(other)
