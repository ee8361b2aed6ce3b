"""Exit statuses of the command ``nft-harness``; docs/reports.md lists them."""

from __future__ import annotations

from typing import Final

NO: Final = 1
"""The answer is no."""
UNABLE: Final = 2
"""What was asked for can't be done, or is wrong."""
BROKEN: Final = 3
"""Events were lost, or something else could not be observed: there is no answer."""
BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
