"""Processes during which no program at a tracepoint is called are found, and others are not taken for such."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.linux import features
from tests.hidden import LEAST, Switches, switches


@pytest.mark.parametrize(
    ("seen", "hidden"),
    [
        (Switches(to=LEAST, come_from=0), True),
        (Switches(to=LEAST, come_from=LEAST), False),
        (Switches(to=LEAST - 1, come_from=0), False),
        (Switches(to=0, come_from=LEAST), False),
    ],
)
def test_a_process_is_hidden_that_is_switched_to_and_never_from(seen: Switches, hidden: bool) -> None:
    assert seen.hidden is hidden


def test_a_process_that_sleeps_and_wakes_is_switched_to_and_from() -> None:
    if os.geteuid():
        pytest.skip("needs root")
    if not (able := features.tracepoints()).able:
        pytest.skip(able.reason)
    waking = "import time\nwhile True: time.sleep(0.001)"
    with subprocess.Popen([sys.executable, "-c", waking]) as child:
        try:
            seen = switches(1)[child.pid]
        finally:
            child.kill()
    assert seen.to >= LEAST
    assert seen.come_from >= LEAST
    assert not seen.hidden
