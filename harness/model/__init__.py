"""Values that every room shares: what was observed, what was expected and missed, what is stored."""

from __future__ import annotations
