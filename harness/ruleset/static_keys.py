"""Static keys of the network stack, which the kernel switches by patching its code; kept on, they stay as they are.

Netfilter's hooks, nf_tables' trace and the timestamps of received packets cost nothing where nobody uses them: their
branches are static keys (Linux Documentation/staging/static-keys.rst). The first user on the machine switches a key on,
the last one off, which patches each of its branches in three steps, twice through other page tables (text_poke_bp_batch
in arch/x86/kernel/alternative.c). A scenario is such a user of some ten keys, and emulated, a change of the page tables
empties QEMU's TLB and its cache of jump targets.

A namespace of its own that uses them keeps them on. In other namespaces that changes nothing but the branch taken: what
follows it looks for hooks of the packet's own namespace (nf_hook in include/linux/netfilter.h).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

from harness.lab.capture import SO_TIMESTAMPNS
from harness.lab.namespace import Namespace
from harness.ruleset.nft import Nft, NftError

HOOKS: Final = {
    "inet": ("prerouting", "input", "forward", "output", "postrouting"),
    "bridge": ("prerouting", "input", "forward", "output", "postrouting"),
    "arp": ("input", "output"),
    "netdev": ("ingress", "egress"),
}
"""Hooks by family, each a key (nf_hooks_needed in net/netfilter/core.c); those of inet are of ip and ip6."""


def hold() -> Namespace:
    """A namespace in which all of these keys are in use, until it is closed.

    Of a family of hooks that this kernel does not have, none are. Raises as :class:`~harness.lab.namespace.Namespace`.
    """
    namespace = Namespace("static-keys")
    nft = Nft(namespace)
    for family, hooks in HOOKS.items():
        with suppress(NftError):
            nft.run(f"table {family} held {{\n{''.join(_chain(family, hook) for hook in hooks)}}}\n")
    nft.close()
    # netstamp_needed_key (net/core/dev.c)
    namespace.socket(socket.AF_PACKET, socket.SOCK_RAW).setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return namespace


def _chain(family: str, hook: str) -> str:
    device = 'device "lo" ' if family == "netdev" else ""
    traced = "meta nftrace set 1; " if family == "inet" else ""  # nft_trace_enabled (net/netfilter/nf_tables_core.c)
    return f"chain {hook} {{ type filter hook {hook} {device}priority filter; {traced}}}\n"
