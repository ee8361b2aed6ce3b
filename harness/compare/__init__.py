"""``nft-harness diff``: which packets two rulesets treat differently.

::

    sides ── facts ──> generate: a lab, packets ──> batch.session: the effects on either side
                                                         │
             output (text, JSON, Markdown, …) <── changes (groups, witnesses) <──┘
"""
