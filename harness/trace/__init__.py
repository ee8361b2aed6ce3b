"""``nft-harness trace``: the tracer on its own, beside any command, and its output."""

from __future__ import annotations
