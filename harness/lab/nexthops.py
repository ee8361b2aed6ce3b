"""Nexthop objects and routes by them, which pyroute2 does not write. See ip-nexthop(8), linux/nexthop.h."""

from __future__ import annotations

import struct
from typing import Final

from harness.lab.rtnetlink import NetlinkRequest, family
from harness.linux.netlink import NLM_F_ACK, NLM_F_REQUEST, written
from harness.topology.parts import Nexthop, Route

RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEXTHOP = 24, 25, 104
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
RTA_DST, RTA_PRIORITY, RTA_TABLE, RTA_NH_ID = 1, 6, 15, 30
ASKED: Final = NLM_F_REQUEST | NLM_F_ACK
AF_UNSPEC: Final = 0
RTPROT_STATIC, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK = 4, 253, 0, 1, 4

_NHMSG: Final = struct.Struct("=BBBxI")
"""``struct nhmsg``: family, scope, protocol, flags."""
_MEMBER: Final = struct.Struct("=IBxxx")
"""``struct nexthop_grp``: id, weight - 1."""
_RTMSG: Final = struct.Struct("=8BI")
"""``struct rtmsg``: family, prefix lengths of destination and source, TOS, table, protocol, scope, type; flags."""
_NUMBER: Final = struct.Struct("=I")

_COMMANDS: Final = {
    "add": (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
    "replace": (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE),
    "del": (RTM_DELROUTE, 0),
}


def nexthop(planned: Nexthop, index: int) -> NetlinkRequest:
    """A nexthop object, at the interface with ``index``; of a group, which has none, after its members."""
    attributes = [(NHA_ID, _NUMBER.pack(planned.id))]
    flags = 0
    if planned.group:
        attributes.append((NHA_GROUP, b"".join(_MEMBER.pack(one, weight - 1) for one, weight in planned.group)))
    else:
        (hop,) = planned.hops
        attributes.append((NHA_OIF, _NUMBER.pack(index)))
        if hop.via is not None:
            attributes.append((NHA_GATEWAY, hop.via.packed))
        flags = RTNH_F_ONLINK if hop.on_link else 0
    own = AF_UNSPEC if planned.group else family(planned.version)
    body = _NHMSG.pack(own, RT_SCOPE_UNIVERSE, RTPROT_STATIC, flags)
    return NetlinkRequest(written(RTM_NEWNEXTHOP, ASKED | NLM_F_CREATE | NLM_F_EXCL, body, attributes), str(planned))


def route(planned: Route, command: str = "add") -> NetlinkRequest:
    """A route by a nexthop object, or what replaces or removes it; ``command`` is "add", "replace" or "del"."""
    kind, flags = _COMMANDS[command]
    to = planned.destination
    attributes = [(RTA_NH_ID, _NUMBER.pack(planned.nexthop)), (RTA_TABLE, _NUMBER.pack(planned.table))]
    if to.prefixlen:
        attributes.append((RTA_DST, to.network_address.packed))
    if planned.metric:
        attributes.append((RTA_PRIORITY, _NUMBER.pack(planned.metric)))
    head = (family(to.version), to.prefixlen, 0, 0, 0, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    return NetlinkRequest(written(kind, ASKED | flags, _RTMSG.pack(*head), attributes), f"the route to {planned}")
