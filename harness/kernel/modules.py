"""Kernel modules that scenarios need, loaded before a ruleset asks for them.

The kernel would load each of them when a ruleset first names it, by a modprobe(8) of its own; all at
once they take a quarter of the time, and out of a microVM's initramfs they take none to speak of.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

USUAL = (
    *("veth", "nf_tables", "nft_ct", "nft_chain_nat", "nft_fib_inet", "nft_limit", "nft_log", "nft_masq"),
    *("nft_redir", "nft_reject_inet", "nf_log_syslog"),
)
"""What labs and most rulesets use."""


def load() -> None:
    """Have :data:`USUAL` loaded; what is built in or not there is passed over."""
    missing = [name for name in USUAL if not Path("/sys/module", name).exists()]
    modprobe = shutil.which("modprobe", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if missing and modprobe:
        subprocess.run([modprobe, "--quiet", "--all", *missing], check=False)
