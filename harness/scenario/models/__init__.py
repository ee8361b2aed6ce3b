"""The language: the content of a scenario file as frozen values.

The loader validates a file against these classes; the JSON Schema and the language reference are generated from
them. A field name is the YAML key unless ``rename`` differs; a key that is not here is refused. Tests in
Python may import any of them from here.
"""

from __future__ import annotations

from harness.packets.spec import (
    ARP,
    GRE,
    ICMP,
    SCTP,
    TCP,
    UDP,
    Ether,
    Extension,
    Fragment,
    ICMPv6,
    IPv4,
    IPv6,
    Payload,
    Pcap,
    Routing,
    Sees,
    SeesARP,
    SeesICMP,
    SeesTCP,
    SeesUDP,
    Send,
)
from harness.scenario.models.actions import Action, ActionSpec
from harness.scenario.models.expect import Delivered, Dropped, Ends, Exactly, Expect, FlowSeen, HopDetail, Tracked
from harness.scenario.models.file import Scenario, ScenarioFile
from harness.scenario.models.sockets import Connect, Exchange, Listen, Wait
from harness.topology.interfaces import PortSpec, VlanSpec, VrfSpec, VxlanSpec
from harness.topology.spec import HostSpec, LabSpec, RouteSpec, RuleSpec

__all__ = [
    "ARP",
    "GRE",
    "ICMP",
    "SCTP",
    "TCP",
    "UDP",
    "Action",
    "ActionSpec",
    "Connect",
    "Delivered",
    "Dropped",
    "Ends",
    "Ether",
    "Exactly",
    "Exchange",
    "Expect",
    "Extension",
    "FlowSeen",
    "Fragment",
    "HopDetail",
    "HostSpec",
    "ICMPv6",
    "IPv4",
    "IPv6",
    "LabSpec",
    "Listen",
    "Payload",
    "Pcap",
    "PortSpec",
    "RouteSpec",
    "Routing",
    "RuleSpec",
    "Scenario",
    "ScenarioFile",
    "Sees",
    "SeesARP",
    "SeesICMP",
    "SeesTCP",
    "SeesUDP",
    "Send",
    "Tracked",
    "VlanSpec",
    "VrfSpec",
    "VxlanSpec",
    "Wait",
]
