"""Packets: from a scenario's words to bytes, and from bytes to fields."""

from __future__ import annotations
