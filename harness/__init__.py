"""nft-harness: regression tests for netfilter rulesets, on the real kernel, as a pytest plugin."""

__version__ = "0.1.0"
