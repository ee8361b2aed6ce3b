"""``nft-harness ask``: what becomes of one packet in a ruleset, and why.

::

    steps (the packet, as a document) ──> batch.session ──> answer (text, JSON)
                                                    └─────> batch.saving (a scenario)
"""
