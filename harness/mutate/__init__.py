"""``nft-harness mutate``: which changes of a ruleset no scenario notices.

::

    pytest's selection ─> cases ── baseline (as pytest runs them) ──> places that packets came to
    ruleset as JSON ── operators ──> mutants ── measure: one lab, a mutant after the other ──> killed, survived
    survivors ── generate: a packet that distinguishes them ──> output, saving (a scenario)
"""
