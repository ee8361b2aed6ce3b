"""Names of kernels and of nft in options, as argparse's ``type``: one that nothing is called is refused at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# The rooms that know the names are imported when an option is given: parsers are made for every subcommand.

OPTIONS: Final = ("--kernel", "--nft-kernel")
"""Of commands; pytest has the second, and whoever comes from there may go on with it."""
KERNEL_HELP: Final = "auto (default), host, a version such as 6.12, installed, or a path"

DEFAULT_HELP: Final = "default: 6.12, or the distribution's own kernel where no Debian archive is known"


def _named(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        from harness.vm import images

        if text and text not in words:  # "" is a default
            images.refuse_unknown(text, words)
        return text

    return check


kernel: Final = _named("auto", "host")
"""``--kernel`` and ``--nft-kernel`` where scenarios or packets run: as :func:`harness.vm.placement.choose` takes it."""
image: Final = _named()
"""``--kernel`` of a microVM: as :func:`harness.vm.images.find` takes it."""
program: Final = _named("image", "host")
"""``--nft-program``: as :func:`harness.vm.images.nft_called` takes it."""
