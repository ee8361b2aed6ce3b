"""The labs that come with the language, by name."""

from __future__ import annotations

from collections.abc import Mapping

from harness.scenario.models import HostSpec, LabSpec

# Addresses are those set aside for documentation (RFC 5737, RFC 3849), and RFC 1918 behind NAT. The
# client stands for the internet: it is the gateway for every address that is nowhere else.
LABS: Mapping[str, LabSpec] = {
    # client ── wan0 device lan0 ── server
    "router": LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["203.0.113.5/24", "2001:db8:113::5/64"]}, gateway="device"),
            "device": HostSpec(
                interfaces={
                    "wan0": ["203.0.113.1/24", "2001:db8:113::1/64"],
                    "lan0": ["10.0.2.1/24", "2001:db8:2::1/64"],
                },
                gateway="client",
                forwarding=True,
            ),
            "server": HostSpec(interfaces={"eth0": ["10.0.2.2/24", "2001:db8:2::2/64"]}, gateway="device"),
        },
        links=[["client:eth0", "device:wan0"], ["device:lan0", "server:eth0"]],
    ),
    # client ── eth0 device
    "host": LabSpec(
        hosts={
            "client": HostSpec(interfaces={"eth0": ["192.0.2.5/24", "2001:db8:192::5/64"]}, gateway="device"),
            "device": HostSpec(interfaces={"eth0": ["192.0.2.10/24", "2001:db8:192::10/64"]}, gateway="client"),
        },
        links=[["client:eth0", "device:eth0"]],
    ),
}
