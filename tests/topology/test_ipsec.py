"""IPsec as planned; what contradicts itself is in tests/scenario/broken."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from harness.topology.network import Network
from harness.topology.spec import LabSpec

FIRST, SECOND, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def planned(*associations: list[dict[str, Any]]) -> Network:
    names = {"device": FIRST, "branch": SECOND, "other": THIRD}
    hosts: dict[str, Any] = {
        name: {"interfaces": {"eth0": [f"{address}/24", f"2001:db8::{address[-1]}/64"]}}
        for name, address in names.items()
    }
    hosts["device"]["interfaces"] = {"port0": [], "port1": [], "br0": hosts["device"]["interfaces"]["eth0"]}
    hosts["device"]["bridges"] = {"br0": ["port0", "port1"]}
    links = [["device:port0", "branch:eth0"], ["device:port1", "other:eth0"]]
    ipsec = [{"ends": ends, "reqid": number} for number, ends in enumerate(associations, 1)]
    return Network.of(msgspec.convert({"hosts": hosts, "links": links, "ipsec": ipsec}, LabSpec))


def test_both_ends_have_the_same_association_each_from_its_side() -> None:
    network = planned(
        [{"address": FIRST, "networks": ["10.1.0.0/16"]}, {"address": SECOND, "networks": ["10.2.0.0/16", "default"]}]
    )
    (own,), (far,) = network.hosts["device"].ipsec, network.hosts["branch"].ipsec
    assert (own.local, own.remote, own.mode) == (far.remote, far.local, "tunnel")
    assert (own.spi_in, own.spi_out) == (far.spi_out, far.spi_in)
    assert own.spi_in != own.spi_out
    assert own.selectors == (
        (ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")),
        (ip_network("10.1.0.0/16"), ip_network("0.0.0.0/0")),
    )
    assert set(far.selectors) == {(other, one) for one, other in own.selectors}


def test_without_networks_it_is_transport_mode_between_the_addresses() -> None:
    network = planned([{"address": "2001:db8::1"}, {"address": "2001:db8::2", "spi": 0x2000}])
    (own,) = network.hosts["device"].ipsec
    assert (own.mode, own.spi_out) == ("transport", 0x2000)
    assert own.selectors == ((ip_network("2001:db8::1/128"), ip_network("2001:db8::2/128")),)


def test_a_host_with_two_associations_has_a_number_for_each() -> None:
    network = planned([{"address": FIRST}, {"address": SECOND}], [{"address": FIRST}, {"address": THIRD}])
    first, second = network.hosts["device"].ipsec
    assert (first.reqid, second.reqid) == (1, 2)
    assert len({first.spi_in, first.spi_out, second.spi_in, second.spi_out}) == 4


def test_the_kernel_of_a_host_sends_what_it_encrypts() -> None:
    network = planned([{"address": FIRST}, {"address": SECOND}])
    assert network.enters_tunnel("branch", ip_address(FIRST))
    assert not network.enters_tunnel("branch", ip_address(THIRD))
    assert not network.hosts["branch"].silent
    assert network.hosts["other"].silent
