"""Reading an observation: what the ruleset decided, the path through the kernel, drops; pure."""

from __future__ import annotations
