"""A loaded ruleset that is as it was before packets met it, and so need not be loaded anew.

What packets change in a ruleset is the state of its statements and the elements of its sets. Which of these a ruleset
has is read from the kernel, by the names of its expressions: those that keep nothing are listed here, and any other
counts as one that keeps something. Only the counters of rules are taken back. That nothing else has changed the
ruleset is known by its generation, which each transaction increments (nf_tables_commit in
net/netfilter/nf_tables_api.c).

See include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from harness.lab.lab import Host
from harness.linux.netlink import Netlink, attributes, packed
from harness.linux.nfnetlink import (
    HEADER,
    NETLINK_NETFILTER,
    NFT_MSG_GETGEN,
    NFT_MSG_GETRULE_RESET,
    NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM,
    number,
    string,
)
from harness.ruleset.nft import expressions, rules

NFTA_GEN_ID = 1
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS = 1, 2, 3
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_MATCH_NAME = NFTA_TARGET_NAME = 1
NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_EXPRESSIONS = 7, 11
CHANGING: Final = 0x10 | 0x20 | 0x40 | 0x100
"""Flags of sets whose elements expire, are changed by rules, are objects, or have expressions such as a counter of
their own (NFT_SET_TIMEOUT, NFT_SET_EVAL, NFT_SET_OBJECT and NFT_SET_EXPR)."""

COUNTER: Final = "counter"
STATELESS: Final = frozenset(
    {
        *("immediate", "cmp", "range", "bitwise", "byteorder", "lookup", "payload", "exthdr", "meta", "ct", "rt"),
        *("fib", "hash", "socket", "osf", "xfrm", "notrack", "reject", "nat", "masq", "redir", "tproxy", "log"),
    }
)
"""Expressions that keep nothing from one packet to the next, by the names of their types (``struct nft_expr_type``).

What they change belongs to the packet, or to its connection. Missing are, for instance, limit, quota, last, connlimit,
numgen, dynset, objref and flow_offload.
"""

XTABLES: Final = {
    "match": frozenset(
        {
            *("addrtype", "comment", "connmark", "conntrack", "devgroup", "dscp", "helper", "icmp", "icmp6", "iprange"),
            *("length", "mac", "mark", "multiport", "owner", "physdev", "pkttype", "policy", "rpfilter", "sctp"),
            *("state", "tcp", "tcpmss", "tos", "ttl", "u32", "udp"),
        }
    ),
    "target": frozenset(
        {
            *("CLASSIFY", "CONNMARK", "CT", "DNAT", "DSCP", "LOG", "MARK", "MASQUERADE", "NETMAP", "REDIRECT"),
            *("REJECT", "SNAT", "TCPMSS", "TOS", "TPROXY", "TTL"),
        }
    ),
}
"""The same of iptables' extensions, by the names of the expressions in which nf_tables has them (net/netfilter/xt_*.c).

Missing are, for instance, limit, hashlimit, recent, quota, statistic, connlimit, set and SET.
"""

_EVERYTHING: Final = HEADER.pack(0, 0, 0)


class Loaded:
    """The ruleset that ``host`` has now, before the first packet."""

    def __init__(self, host: Host) -> None:
        # It stays open: to close one waits until the kernel has freed what a transaction replaced (nft_rcv_nl_event).
        self._link = host.namespace.enter(lambda: Netlink(NETLINK_NETFILTER))
        self._generation = _generation(self._link)

    @cached_property
    def _state(self) -> frozenset[str]:
        """What it has; read when a second scenario asks for it, as most labs see only one."""
        return frozenset(_state(self._link))

    def reset(self) -> bool:
        """Take back what packets have changed in it; whether it is as it was before them."""
        if not self._state <= {COUNTER} or _generation(self._link) != self._generation:
            return False
        return not self._state or _reset_counters(self._link)

    def reloaded(self) -> None:
        """The host has loaded it anew, as it was."""
        self._generation = _generation(self._link)


def _generation(link: Netlink) -> int:
    """The number of the transaction that the network namespace has committed last."""
    (answer,) = link.ask(NFT_MSG_GETGEN, _EVERYTHING)
    return number(dict(attributes(answer.body[HEADER.size :])).get(NFTA_GEN_ID))


def _reset_counters(link: Netlink) -> bool:
    """Set the counters of all rules of the network namespace to 0; whether this kernel can, as since Linux 6.5."""
    try:
        for _ in link.dump(NFT_MSG_GETRULE_RESET, _EVERYTHING):
            pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _state(link: Netlink) -> Iterator[str]:
    """What in the ruleset of the network namespace is changed by packets: names of expressions, and what sets have
    that is more than elements."""
    for _, rule in rules(link):
        yield from (name for name, data in expressions(rule) if not _is_stateless(name, data))
    for answer in list(link.dump(NFT_MSG_GETSET, _EVERYTHING)):
        family, _, _ = HEADER.unpack_from(answer.body)
        one = dict(attributes(answer.body[HEADER.size :]))
        if number(one.get(NFTA_SET_FLAGS)) & CHANGING:
            yield "set"
        yield from _of_elements(link, family, bytes(one[NFTA_SET_TABLE]), bytes(one[NFTA_SET_NAME]))


def _is_stateless(name: str, data: memoryview) -> bool:
    if extensions := XTABLES.get(name):
        return string(dict(attributes(data)).get(NFTA_MATCH_NAME)) in extensions
    return name in STATELESS


def _of_elements(link: Netlink, family: int, table: bytes, name: bytes) -> Iterator[str]:
    """The same of a set's elements, which may have it where their set has not: ``ip saddr { 192.0.2.5 counter }``."""
    which = packed([(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, name)])
    for answer in link.dump(NFT_MSG_GETSETELEM, HEADER.pack(family, 0, 0) + which):
        held = dict(attributes(answer.body[HEADER.size :])).get(NFTA_SET_ELEM_LIST_ELEMENTS, memoryview(b""))
        for _, element in attributes(held):
            if dict(attributes(element)).keys() & {NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_EXPRESSIONS}:
                yield "element"
