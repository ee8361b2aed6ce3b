"""What any Linux program needs: netlink, bpf(2), BTF, features and modules of the kernel."""

from __future__ import annotations
