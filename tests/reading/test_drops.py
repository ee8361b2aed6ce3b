"""Why the kernel dropped a packet, in words."""

from __future__ import annotations

import pytest

from harness.reading.drops import REASONS, explain


@pytest.mark.parametrize(
    ("function", "reason", "words"),
    [
        ("ip_rcv", "OTHERHOST", "the Ethernet address is another host's"),
        ("ip_error", "IP_INADDRERRORS", "forwarding is off on the interface it came in by"),
        ("ip_rcv", "IP_INADDRERRORS", "neither an address of this host nor one that it may forward to"),
        ("ip_forward", "IP_INHDR", "TTL or hop limit exceeded"),
        ("ip_rcv_core", "IP_INHDR", "broken IP header, or TTL exceeded"),
        ("ip6_forward", "NOT_SPECIFIED", "not to be forwarded"),
        ("anything", "A_REASON_OF_TOMORROW", ""),
    ],
)
def test_a_reason_may_depend_on_the_function(function: str, reason: str, words: str) -> None:
    assert explain(function, reason).words == words


def test_a_remedy_is_given_where_the_cause_is_clear() -> None:
    assert explain("ip_forward", "IP_INHDR").advice == "raise the TTL or hop limit in `send`"
    assert explain("tcp_v4_rcv", "TCP_CSUM").advice.startswith("leave the checksum to the harness")
    assert explain("tcp_v4_rcv", "NO_SOCKET").advice == ""


def test_words_are_the_end_of_a_sentence() -> None:
    assert not [name for name, one in REASONS.items() if not one.words or one.words.endswith(".")]
