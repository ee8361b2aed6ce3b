"""Names of ICMP types and codes, and what a reject answers."""

from __future__ import annotations

import pytest

from harness.model.problem import Problem
from harness.packets import icmp
from harness.packets.spec import SeesICMP


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("tcp reset", None),
        ("icmp port-unreachable", 4),
        ("icmp type host-prohibited", 4),  # as nft before 1.0.1 prints it
        ("icmpv6 no-route", 6),
        ("icmpx admin-prohibited", None),
        ("icmpx type no-route", None),
    ],
)
def test_the_ip_version_that_a_reject_answers(text: str, version: int | None) -> None:
    assert icmp.check_reject(text) == version


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("icmp no-rout", "'no-rout' is not an icmp reject code"),
        ("icmpv6 port-unreachabel", "did you mean 'port-unreachable'"),
        ("icmpx frag-needed", "is not an icmpx reject code"),
        ("udp reset", "'udp reset' is not a way to reject; write 'tcp reset', or"),
        ("", "is not a way to reject"),
        ("icmp type port-unreachable x", "is not a way to reject"),
    ],
)
def test_another_answer_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        icmp.check_reject(text)


@pytest.mark.parametrize(
    ("header", "protocol", "numbers"),
    [
        (SeesICMP(), "icmp", (None, None)),
        (SeesICMP(type="echo-request"), "icmp", (8, None)),
        (SeesICMP(type="echo-request", code=0), "icmpv6", (128, 0)),
        (SeesICMP(type="destination-unreachable", code="admin-prohibited"), "icmp", (3, 13)),
        (SeesICMP(type="destination-unreachable", code="admin-prohibited"), "icmpv6", (1, 1)),
        (SeesICMP(type=3, code="port-unreachable"), "icmp", (3, 3)),
        (SeesICMP(type=200), "icmp", (200, None)),
    ],
)
def test_type_and_code_as_numbers(header: SeesICMP, protocol: str, numbers: tuple[int | None, int | None]) -> None:
    assert icmp.numbers(header, protocol) == numbers


@pytest.mark.parametrize(
    ("header", "key", "sentence"),
    [
        (SeesICMP(type="echo"), "type", "'echo' is not a type name that nft knows"),
        (
            SeesICMP(type="redirect", code="port-unreachable"),
            "code",
            "only codes of destination-unreachable have names",
        ),
        (SeesICMP(code="port-unreachable"), "code", "only codes of destination-unreachable have names"),
        (SeesICMP(type="destination-unreachable", code="no-route"), "code", "is not a code of destination-unreachable"),
    ],
)
def test_the_key_that_is_wrong_is_named(header: SeesICMP, key: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as problem:
        icmp.numbers(header, "icmp")
    assert problem.value.keys == (key,)


def test_of_two_names_for_a_number_the_first() -> None:
    assert icmp.name_of(icmp.TYPES_V6, 132, "?") == "mld-listener-done"
    assert icmp.name_of(icmp.TYPES_V6, 250, "250") == "250"
