"""Programs that read queues, seen by the client whose packets they decide about."""

from __future__ import annotations

import pytest

from harness.errors import HarnessError
from harness.lab.lab import Lab
from harness.lab.sockets import Programs
from harness.scenario.flow import plan
from harness.scenario.models.sockets import Exchange, Queue
from harness.wait import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def ruleset() -> str:
    return """
table inet t {
  chain c { type filter hook forward priority 0; udp dport 53 queue num 5; }
}
"""


def asked(lab: Lab, programs: Programs, request: bytes) -> str:
    call = programs.exchange(plan(Exchange(from_="client", to="server", udp=53), lab.network), request, b"answer")
    call.start()

    def answered() -> bool:
        programs.decide()
        call.advance()
        return call._answered  # type: ignore[attr-defined]

    wait_until(answered, 5, "an answer")
    return call.finish().result


def test_an_accepted_question_is_answered(lab: Lab, programs: Programs) -> None:
    programs.read_queue(Queue(number=5))
    assert asked(lab, programs, b"question") == "answered"


def test_a_rewritten_question_has_the_right_checksum(lab: Lab, programs: Programs) -> None:
    programs.read_queue(Queue(number=5, replace={"secret": "public"}))
    assert asked(lab, programs, b"the secret name") == "answered"


def test_two_programs_cannot_read_one_queue(lab: Lab, programs: Programs) -> None:
    programs.read_queue(Queue(number=5))
    with pytest.raises(HarnessError, match="device cannot read queue 5"):
        programs.read_queue(Queue(number=5))
