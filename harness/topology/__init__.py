"""A lab's plan: hosts, links, addresses, routes; no system is touched."""

from __future__ import annotations
