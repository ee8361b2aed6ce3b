"""Which kernel functions packets meet: discovery, the BPF program, its engines, events and loss."""

from __future__ import annotations
