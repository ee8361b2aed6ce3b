"""Reports: what was seen and judged, as text and files for people and machines."""

from __future__ import annotations
