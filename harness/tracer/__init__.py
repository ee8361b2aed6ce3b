"""Which kernel functions a packet meets: discovery, the BPF program, its engines, events and loss."""

from __future__ import annotations
