"""Requests to rtnetlink: what pyroute2 writes, and what the kernel answers to an ordinary user."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HarnessError, Unsupported
from harness.lab import requests, rtnetlink
from harness.lab.lab import ask

MISSING = 0x7FFFFFFF
"""Index of no interface."""


def test_what_is_refused_is_named_with_the_reason_of_the_kernel() -> None:
    with rtnetlink.RouteSocket() as netlink:
        assert netlink.links_up([MISSING]) == []
        with pytest.raises(rtnetlink.NetlinkError, match=r"\w") as refused:
            netlink.ask([requests.up(MISSING)])
        assert refused.value.what == f"interface {MISSING} up"
        assert refused.value.strerror in ("No such device", "Operation not permitted")


def test_of_many_requests_the_first_refused_is_named_and_every_answer_read() -> None:
    several = [requests.up(MISSING - number) for number in range(100)]
    with rtnetlink.RouteSocket() as netlink:
        for _ in range(2):  # answers left from the first turn would be taken for those of the second
            with pytest.raises(rtnetlink.NetlinkError) as refused:
                netlink.ask(several)
            assert refused.value.what == f"interface {MISSING} up"
        assert netlink.alias(rtnetlink.LOOPBACK) == ""


def test_the_answers_about_many_interfaces_are_all_read() -> None:
    with rtnetlink.RouteSocket() as netlink:
        # An answer about an interface that is there is larger than an acknowledgement.
        assert netlink.links_up([rtnetlink.LOOPBACK] * 250) == []
        assert netlink.alias(rtnetlink.LOOPBACK) == ""


def test_an_interface_without_an_alias_or_without_existing() -> None:
    with rtnetlink.RouteSocket() as netlink:
        assert netlink.alias(MISSING) == ""


@pytest.mark.parametrize(
    ("number", "words", "what", "lacks"),
    [
        (errno.EOPNOTSUPP, "Unknown device type", "vlan s100", "the module 8021q"),
        (errno.ENOENT, "Specified qdisc kind is unknown", "netem eth0", "the module sch_netem"),
        (errno.ENOENT, "No such file or directory", "address 10.0.0.1/24", ""),
    ],
)
def test_what_the_kernel_was_not_built_with_is_unsupported(number: int, words: str, what: str, lacks: str) -> None:
    def refuse(_: object) -> None:
        raise rtnetlink.NetlinkError(number, words, what=what)

    host: Any = SimpleNamespace(name="core", netlink=SimpleNamespace(ask=refuse))
    with pytest.raises(HarnessError, match=words) as refused:
        ask(host, ())
    assert isinstance(refused.value, Unsupported) is bool(lacks)
    assert lacks in str(refused.value)
