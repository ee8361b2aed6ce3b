"""``nft-harness diff``: which packets two rulesets treat differently.

::

    sides ── facts ──> generate: a lab, packets ──> batch.session: the effects on either side
                                                         │
             output, saving (a scenario file) <── changes (groups, witnesses) <──┘
"""
