"""Static keys of the network stack that a namespace keeps on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.lab.capture import Capture
from harness.lab.lab import Host
from harness.ruleset import static_keys
from harness.ruleset.nft import Nft

RULESET = """
table inet t {
  chain input {
    type filter hook input priority 0
    meta nftrace set 1
    ct state new accept
  }
  chain nat {
    type nat hook prerouting priority -100
    redirect
  }
}
table arp t {
  chain input {
    type filter hook input priority 0
  }
}
table bridge t {
  chain forward {
    type filter hook forward priority 0
  }
}
table netdev t {
  chain ingress {
    type filter hook ingress device "lo" priority 0
  }
}
"""


def test_every_key_is_in_use_until_the_namespace_is_closed() -> None:
    with static_keys.hold() as namespace:
        listed = namespace.call(subprocess.run, ["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    hooks = [
        line.split("hook ")[1].split()[0] for line in listed.stdout.splitlines() if line.strip().startswith("type")
    ]
    assert hooks == [hook for family in static_keys.HOOKS.values() for hook in family]
    assert listed.stdout.count("meta nftrace set 1") == 5


@pytest.fixture
def patched() -> Iterator[Path]:
    """A file with a line for each static key that the kernel has switched since."""
    instance = Path("/sys/kernel/tracing/instances/static-keys")
    instance.mkdir()
    try:
        (instance / "set_ftrace_filter").write_text("jump_label_update")
        (instance / "current_tracer").write_text("function")
        yield instance / "trace"
        (instance / "current_tracer").write_text("nop")
    finally:
        instance.rmdir()


@pytest.mark.kernel
def test_no_code_is_patched_for_a_ruleset_while_the_keys_are_held(device: Host, patched: Path) -> None:
    with static_keys.hold():
        patched.write_text("")
        with closing(Nft(device.namespace)) as nft:
            nft.run(RULESET)
            capture = Capture([device])
            nft.run("flush ruleset")
        assert capture.sockets
        switched = [line for line in patched.read_text().splitlines() if not line.startswith("#")]
    assert switched == []
