"""Values made by hand for tests of this room."""

from __future__ import annotations

from harness.linux.btf import Argument
from harness.tracer.discover import KERNEL, Function, Functions, Stops, Untraceable, sort_out


def functions(*names: str) -> Functions:
    traceable, _ = sort_out(
        KERNEL, [Argument(name, 0, "sk_buff *") for name in names], Stops("\n".join(names).encode())
    )
    return Functions(traceable, (Untraceable(name="dst_output", reason="it is inlined"),))


def function(name: str, priority: int = 1) -> Function:
    return Function(name=name, kernel_name=name, position=0, carries="sk_buff", layer="IPv4", priority=priority)
