"""Program of a guest that is booted before a template is made: find out what can be traced, in the modules that a
template has loaded as well, and compile the tracer.

That takes memory, which a template would keep.
"""

from __future__ import annotations

from harness.cache import cache_dir
from harness.linux import modules
from harness.tracer import kernel_cache
from harness.tracer.tracer import Tracer
from harness.vm import learned


def main() -> None:
    """Arm, and send what was learned of the kernel to the host."""
    modules.load(modules.COMMON)
    cache = kernel_cache.KernelCache(cache_dir())
    tracer = Tracer(cache)
    tracer.arm()
    assert tracer.drop_reasons  # asked for by each scenario, and learned by asking
    learned.send(cache.news())


if __name__ == "__main__":
    main()
