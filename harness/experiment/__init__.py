"""One scenario on a real kernel, top to bottom, and the join of the three oracles."""

from __future__ import annotations
