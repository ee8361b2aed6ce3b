"""What the processes of a session tell each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.pytest_plugin.session import Session
from harness.report import kinds


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
    return SimpleNamespace(stash=pytest.Stash(), option=SimpleNamespace(**options), pluginmanager=plugins, **more)


@pytest.mark.parametrize("asked", [{}, {"nft_github": "yes"}, {"nft_summary": "a.md"}, {"nft_record": True}])
def test_a_worker_knows_what_the_controller_alone_was_asked_for(asked: dict[str, Any]) -> None:
    reported: dict[str, Any] = {}
    controller = Session(config(options=asked))
    controller.inform(reported)
    worker = Session(config(workerinput=reported))
    assert worker.wants_results is controller.wants_results is bool(asked)
    for session in (worker, controller):
        session.close()
