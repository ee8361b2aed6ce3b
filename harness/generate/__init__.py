"""Packets for a ruleset: what its rules ask for, a lab with the hosts for it, and packets that should meet each rule.

::

    ruleset ── facts ──> Facts ── interfaces, addresses, lab ──> a lab
                           │
                           └── simulate, device, packets ──> packets for each rule and policy

The packets are guesses: the kernel shows afterwards which rules they meet.
"""
