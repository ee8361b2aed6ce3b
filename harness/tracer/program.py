"""The BPF program: bpf/trace.c, compiled by BCC for the running kernel.

No kernel headers are needed: BCC's own wants are met by the few stub headers in bpf/shim, and
every offset into a kernel struct is a constant taken from BTF.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.tracer.btf import Btf

if TYPE_CHECKING:
    from bcc import BPF

SOURCES = next(
    folder for folder in (Path(__file__).parents[1] / "bpf", Path(__file__).parents[2] / "bpf") if folder.is_dir()
)
"""In a wheel the sources travel inside the package, in a checkout they stand beside it."""

MAX_FUNCTIONS = 8192
MAX_SEGMENTS = 64
"""Pieces that one skb_segment() may give; a GSO packet of 64 KiB has 45 at an MTU of 1,500."""

OFFSETS = {
    "SKB_NEXT": ("sk_buff", "next"),
    "SKB_DEV": ("sk_buff", "dev"),
    "SKB_SK": ("sk_buff", "sk"),
    "DEV_IFINDEX": ("net_device", "ifindex"),
    "DEV_NET": ("net_device", "nd_net.net"),
    "NET_INUM": ("net", "ns.inum"),
    "SOCK_COOKIE": ("sock", "__sk_common.skc_cookie"),
    "SOCK_NET": ("sock", "__sk_common.skc_net.net"),
    "PKTINFO_SKB": ("nft_pktinfo", "skb"),
    "PKTINFO_STATE": ("nft_pktinfo", "state"),
    "STATE_HOOK": ("nf_hook_state", "hook"),
    "STATE_PF": ("nf_hook_state", "pf"),
    "CHAIN_TABLE": ("nft_chain", "table"),
    "CHAIN_NAME": ("nft_chain", "name"),
    "TABLE_NAME": ("nft_table", "name"),
}
OPTIONAL = {
    # Until v6.4 nft_trace_notify() had everything in struct nft_traceinfo.
    "TRACEINFO_PKT": ("nft_traceinfo", "pkt"),
    "TRACEINFO_RULE": ("nft_traceinfo", "rule"),
    "TRACEINFO_SKBID": ("nft_traceinfo", "skbid"),
}

FUNCTION_PROGRAMS = {
    (struct, position): f"{name}_{position}"
    for struct, name in (("sk_buff", "skb"), ("nft_pktinfo", "pktinfo"))
    for position in range(5)
}


def constants(nf_tables: Btf) -> dict[str, int]:
    """The ``-D`` constants of bpf/trace.c for this kernel; ``nf_tables`` is that module's BTF."""
    values = {name: nf_tables.offset(*member) for name, member in OFFSETS.items()}
    values |= {name: nf_tables.offset(*member) for name, member in OPTIONAL.items() if nf_tables.has(*member)}
    family, bits = nf_tables.bitfield("nft_table", "family")
    values |= {"TABLE_FAMILY": family // 8, "TABLE_FAMILY_MASK": (1 << bits) - 1}
    shift, bits = nf_tables.bitfield("nft_rule_dp", "handle")
    return values | {"RULE_HANDLE_SHIFT": shift, "RULE_HANDLE_BITS": bits}


def compile_program(values: Mapping[str, int], *, ring_bytes: int) -> BPF:
    """bpf/trace.c as a BCC module; takes 0.6 s native, and about 150 MiB that stay with the process."""
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "shim")
    from bcc import BPF

    macros = {
        **values,
        "EVENT_PAGES": ring_bytes // os.sysconf("SC_PAGESIZE"),
        "FUNCTIONS": MAX_FUNCTIONS,
        "SEGMENTS": MAX_SEGMENTS,
    }
    return BPF(src_file=str(SOURCES / "trace.c").encode(), cflags=[f"-D{name}={value}" for name, value in macros.items()])
