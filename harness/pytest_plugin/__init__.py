"""What nft-harness does inside pytest: collection, items, fixtures, session, distribution to kernels."""

from __future__ import annotations
