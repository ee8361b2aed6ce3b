"""A project whose rulesets are read by this machine's own nft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.linux import features

RULESET = """\
define web = 10.0.2.80
table inet edge {
	set blocked { type ipv4_addr; }
	counter refused { }
	chain forward {
		type filter hook forward priority 0; policy drop;
		ip saddr @blocked drop
		ip daddr $web tcp dport { 80, 443 } accept comment "web"
		iifname "wan0" jump from_wan
	}
	chain from_wan {
		tcp dport ssh counter name refused reject
	}
}
"""
SCENARIO = """\
lab: router
ruleset: edge.nft
scenarios:
  - name: one
    send: {from: client, to: server, tcp: {dport: 80}}
    expect: EXPECT
"""


@pytest.fixture
def project(reads_rulesets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a scenario file that expects something of a ruleset, in the current folder; the file."""
    for name in ("NFT_KERNEL", "NFT_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "function_probes", lambda: features.Support(True))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def write(expect: str = "{verdict: accept}", ruleset: str = RULESET) -> Path:
        (tmp_path / "edge.nft").write_text(ruleset)
        file = Path("edge.yaml")
        file.write_text(SCENARIO.replace("EXPECT", expect))
        return file

    return write
