"""Expectation against observation: what the ruleset decided, and where that differs.

Pure: values in, values out. :func:`outcome` says what the ruleset did with one packet,
:func:`judge` compares that, the packet's way and its arrival with one ``expect``; the other names
serve the reports.
"""

from __future__ import annotations

from harness.judge.decision import FINAL, Outcome, arrivals, decisive, ended, outcome
from harness.judge.expectations import Keys, Mismatch, judge, refuse_loss, same_elements
from harness.judge.flow import describe_connection
from harness.judge.rules import bare
from harness.judge.unmet import fate, is_met, is_policy, named, place
from harness.judge.way import PLUMBING, PathRow, align, entries, functions, hops_on, is_landmark, layers_of, located
from harness.judge.words import (
    describe_chain,
    describe_decision,
    describe_entry,
    describe_hop,
    describe_loss,
    describe_step,
)

__all__ = [
    "FINAL",
    "PLUMBING",
    "Keys",
    "Mismatch",
    "Outcome",
    "PathRow",
    "align",
    "arrivals",
    "bare",
    "decisive",
    "describe_chain",
    "describe_connection",
    "describe_decision",
    "describe_entry",
    "describe_hop",
    "describe_loss",
    "describe_step",
    "ended",
    "entries",
    "fate",
    "functions",
    "hops_on",
    "is_landmark",
    "is_met",
    "is_policy",
    "judge",
    "layers_of",
    "located",
    "named",
    "outcome",
    "place",
    "refuse_loss",
    "same_elements",
]
