"""Constants and attributes common to messages of nf_tables. See include/uapi/linux/netfilter/nfnetlink.h."""

from __future__ import annotations

import struct
from typing import Final

NETLINK_NETFILTER: Final = 12
NFNL_SUBSYS_NFTABLES: Final = 10
# enum nf_tables_msg_types
NFT_MSG_GETRULE: Final = NFNL_SUBSYS_NFTABLES << 8 | 7
NFT_MSG_GETSET: Final = NFNL_SUBSYS_NFTABLES << 8 | 10
NFT_MSG_GETSETELEM: Final = NFNL_SUBSYS_NFTABLES << 8 | 13
NFT_MSG_GETGEN: Final = NFNL_SUBSYS_NFTABLES << 8 | 16
NFT_MSG_TRACE: Final = NFNL_SUBSYS_NFTABLES << 8 | 17
NFT_MSG_GETRULE_RESET: Final = NFNL_SUBSYS_NFTABLES << 8 | 25
"""Since Linux 6.5."""

HEADER: Final = struct.Struct("=BBH")
"""``struct nfgenmsg``: family, version, resource."""


def number(payload: memoryview | bytes | None) -> int:
    """The value of an attribute; 0 when it is missing."""
    return int.from_bytes(payload or b"", "big")


def string(payload: memoryview | None) -> str:
    """The text of an attribute; "" when it is missing."""
    return bytes(payload or b"").rstrip(b"\0").decode()
