"""``nft-harness init``: a first scenario file for a ruleset.

::

    ruleset ── look ──> Facts ── stage ──> a lab
                          │
                          └── simulate, packets ──> a packet for each rule and policy
                                                         │
            the file <── file ── what was seen <── pytest ┘

The packets are guesses; only what the kernel has shown to meet its rule gets into the file as a scenario.
"""
