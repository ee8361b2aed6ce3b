"""``nft-harness init``: a first scenario file for a ruleset.

::

    ruleset ── facts ──> Facts ── interfaces, addresses, lab ──> a lab
                           │
                           └── simulate, device, packets ──> packets for each rule and policy
                                                                 │
         the file <── file, command <── scenarios <── measure <──┘

The packets are guesses; only what the kernel has shown to meet its rule gets into the file as a scenario.
"""
