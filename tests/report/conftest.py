"""Results that findings are made of."""

from __future__ import annotations

import msgspec
import pytest

from harness.model.result import Result
from tests.report.builders import EVIL, WHERE, Make


@pytest.fixture
def failed(make_result: Make) -> Result:
    return make_result("SSH is refused", outcome="failed", accepted=False, line=9, where=WHERE, message="SSH\n  …")


@pytest.fixture
def evil(make_result: Make) -> Result:
    one = make_result(EVIL, outcome="failed", accepted=False, where=WHERE, message=EVIL + "\n```\nend")
    sent = msgspec.structs.replace(one.sent[0], summary=EVIL, ended=EVIL)
    return msgspec.structs.replace(one, sent=(sent,), kernel=EVIL)
