"""An observation compared with what was expected, and advice on what differs; pure."""

from __future__ import annotations
