"""``nft-harness init``: a first scenario file for a ruleset.

The packets come from :mod:`harness.generate`; only what the kernel has shown to meet its rule gets into the file as a
scenario::

    generate: a lab, packets ──> batch.measure ──> scenarios ──> file, command

With ``--complete`` the file is there already, see :mod:`harness.init.complete`.
"""
