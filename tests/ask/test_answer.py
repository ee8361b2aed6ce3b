"""The answer in words and as a stored result, of packets that no kernel has measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.ask import answer
from harness.batch.messages import Seen
from harness.errors import BrokenMeasurement
from harness.model.result import Result, decode
from harness.topology.builtin import LABS
from harness.topology.network import Network

Make = Callable[..., Result]
NETWORK = Network.of(LABS["router"])


def seen(result: Result, count: int = 1) -> Seen:
    assert result.ruleset is not None
    ruleset = result.ruleset
    return Seen(name="", kernel=result.kernel, sent=result.sent * count, rules=ruleset.rules, policies=ruleset.policies)


def test_the_text_names_the_rule_and_where_it_was_measured(make_result: Make) -> None:
    text = answer.text("client > server", "Linux 6.12", seen(make_result()), NETWORK, colour=False)
    assert text.startswith("client > server\n  where     Linux 6.12\n")
    assert "tcp dport 443 accept" in text
    assert "delivered to server" in text
    assert "\x1b" not in text


def test_of_many_packets_the_first_are_shown(make_result: Make) -> None:
    text = answer.text("", "", seen(make_result(), answer.SHOWN + 3), NETWORK, colour=False)
    assert text.endswith("and 3 more packets, which --json shows")
    assert text.count("delivered to server") == answer.SHOWN


def test_the_json_is_a_stored_result(make_result: Make) -> None:
    stored = answer.result("a packet", Path("edge.nft"), seen(make_result()), NETWORK)
    assert (stored.id, stored.outcome, stored.kernel) == ("edge.nft::a packet", "passed", "6.12.1")
    assert decode(answer.as_json(stored).encode()) == stored


def test_where_the_oracles_disagree_there_is_no_answer(make_result: Make) -> None:
    broken = make_result()
    (sent,) = broken.sent
    undecided = msgspec.structs.replace(broken, sent=(msgspec.structs.replace(sent, verdict=None, ended=""),))
    with pytest.raises(BrokenMeasurement):
        answer.result("", Path("edge.nft"), seen(undecided), NETWORK)


def test_verdicts_in_a_word_or_a_few(make_result: Make) -> None:
    (sent,) = make_result().sent
    rejected = msgspec.structs.replace(sent, with_="tcp reset")
    undecided = msgspec.structs.replace(sent, verdict=None)
    assert list(answer.verdicts((sent, rejected, undecided))) == ["accept", "accept with tcp reset", "undecided"]
