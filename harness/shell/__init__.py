"""A shell or a command in the lab of a scenario."""

from __future__ import annotations
