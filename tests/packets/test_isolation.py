"""While packets are built, scapy asks this machine nothing; before and after it may."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from scapy.config import conf
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from harness.packets.isolation import Asked, alone


def resolve() -> object:
    return socket.getaddrinfo("localhost", None)


def test_no_name_is_resolved_and_no_socket_opened() -> None:
    with alone():
        with pytest.raises(Asked):
            resolve()
        with pytest.raises(Asked):
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert resolve()


@pytest.mark.parametrize("name", ["route", "route6", "ifaces", "neighbor"])
def test_no_table_of_the_machine_is_read_and_each_is_there_again(name: str) -> None:
    before = getattr(conf, name)
    with alone(), pytest.raises(Asked):
        getattr(conf, name).anything()
    assert getattr(conf, name) is before


def test_a_field_that_is_left_out_is_not_looked_up() -> None:
    with alone(), pytest.raises(Asked):
        bytes(IP(dst="192.0.2.1"))


def test_what_is_given_is_built() -> None:
    with alone():
        frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="192.0.2.1", dst="192.0.2.2"))
    assert frame[26:34] == bytes([192, 0, 2, 1, 192, 0, 2, 2])


def test_other_threads_go_on_and_one_within_the_other_ends_nothing() -> None:
    with alone():
        with alone():
            pass
        with pytest.raises(Asked):
            resolve()
        with ThreadPoolExecutor(1) as other:
            assert other.submit(resolve).result()


def test_after_an_error_all_is_as_before() -> None:
    before = conf.route
    with pytest.raises(RuntimeError, match="broken"), alone():
        raise RuntimeError("broken")
    assert conf.route is before
    assert resolve()
