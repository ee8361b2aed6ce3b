"""nft-harness: regression tests for netfilter rulesets, on the real kernel, as a pytest plugin."""

# Before msgspec: that imports it in C and does not look at the error, so a Ctrl-C in this import would be forgotten
# and end in a segmentation fault at the first conversion (msgspec 0.19 to 0.21, PyDateTime_IMPORT).
import datetime as _datetime  # noqa: F401

__version__ = "0.1.0"
