from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.problem import Problem
from harness.topology.addressing import _Subnets
from harness.topology.network import Network
from harness.topology.parts import Subnet
from harness.topology.spec import HostSpec, LabSpec


class TestLinkLocalAddresses:
    HERE = "fe80::1/64"

    def network(self, **interfaces: list[str]) -> Network:
        """A router with two links, to a and to b."""
        ways = {"a": ["fe80::a/64", "2001:db8:a::a/64"], "b": ["fe80::b/64"]} | interfaces
        hosts = {name: HostSpec(interfaces={"eth0": ways[name]}) for name in ("a", "b")}
        router = {"wan0": interfaces.get("wan0", [self.HERE, "2001:db8:a::1/64"]), "lan0": [self.HERE]}
        return Network.of(
            LabSpec(
                hosts={"device": HostSpec(interfaces=router), **hosts},
                links=[("a:eth0", "device:wan0"), ("b:eth0", "device:lan0")],
            )
        )

    def test_a_host_may_have_one_on_several_links_and_sends_by_that_of_the_neighbour(self) -> None:
        network = self.network()
        assert network.route("device", ip_address("fe80::a")).interface.name == "wan0"
        assert network.route("device", ip_address("fe80::b")).interface.name == "lan0"
        with pytest.raises(Problem, match="no host on the link of device:wan0 has fe80::c"):
            network.route("device", ip_address("fe80::c"))

    def test_two_on_one_link_and_one_of_two_hosts_are_mistakes(self) -> None:
        with pytest.raises(Problem, match="fe80::1 is also the address of device:wan0"):
            self.network(a=[self.HERE])
        with pytest.raises(Problem, match="fe80::a is also the address of a:eth0"):
            self.network(b=["fe80::a/64"])

    def test_other_subnets_must_still_differ(self) -> None:
        with pytest.raises(Problem, match=r"2001:db8:a::/64 overlaps 2001:db8:a::/64 of device:wan0"):
            Network.of(
                LabSpec(
                    hosts={
                        "device": HostSpec(interfaces={"wan0": ["2001:db8:a::1/64"], "lan0": ["2001:db8:a::2/64"]}),
                        "a": HostSpec(interfaces={"eth0": []}),
                        "b": HostSpec(interfaces={"eth0": []}),
                    },
                    links=[("a:eth0", "device:wan0"), ("b:eth0", "device:lan0")],
                )
            )

    def test_the_source_has_the_scope_of_the_destination(self) -> None:
        wan = self.network().hosts["device"].interfaces["wan0"]
        assert str(wan.address(6)) == "2001:db8:a::1"
        assert str(wan.address(6, ip_address("2001:db8::9"))) == "2001:db8:a::1"
        assert str(wan.address(6, ip_address("fe80::a"))) == "fe80::1"
        lan = self.network().hosts["device"].interfaces["lan0"]
        assert str(lan.address(6, ip_address("2001:db8::9"))) == "fe80::1"  # it has no other
        assert lan.address(4) is None


SUBNETS = st.builds(
    lambda bits, length, version: ip_network(
        (f"10.0.{bits >> 8}.{bits & 255}/{length}") if version == 4 else f"2001:db8::{bits:x}/{length + 96}",
        strict=False,
    ),
    st.integers(0, 0xFFFF),
    st.integers(16, 32),
    st.sampled_from((4, 6)),
)


@given(st.lists(st.tuples(SUBNETS, st.sampled_from("abc"), st.sampled_from(("", "red"))), max_size=30))
def test_subnets_overlap_as_when_each_is_compared_with_each(several: list[tuple[Subnet, str, str]]) -> None:
    known = _Subnets()
    for number, (subnet, interface, domain) in enumerate(several):
        found = known.overlapping(subnet, interface, domain)
        overlapping = [
            (other, of)
            for other, of, within in several[:number]
            if within == domain and of != interface and other.version == subnet.version and other.overlaps(subnet)
        ]
        assert (found in overlapping) if overlapping else found is None
        known.add(subnet, interface, domain)
