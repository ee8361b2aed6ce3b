"""A project made of a live machine: its ruleset as it is loaded, and a lab that is that machine.

::

    collect.sh ── its output ──> machine ──> device, neighbourhood (the lab), rulesets ──> project (files)

Everything behind ``collect.sh`` works on untrusted text.
"""
