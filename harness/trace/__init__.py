"""``nft-harness trace``: the tracer beside any command, and its output."""

from __future__ import annotations
