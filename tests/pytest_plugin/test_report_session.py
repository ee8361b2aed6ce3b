"""All reports of one run in the microVM: one scenario passes, one fails, one is broken."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness import cache
from harness.model.stored_results import load
from harness.pytest_plugin.reports import BROKEN
from harness.vm import images

pytest_plugins = ["pytester"]
CACHE = cache.cache_dir().parent
"""Asked for before pytester moves the home folder."""

RULESET = """\
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport 443 accept
		tcp dport 22 accept
	}
}
"""
SCENARIOS = """\
ruleset: web.nft
scenarios:
  - name: HTTPS passes
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept, delivered: server}
  - name: Telnet passes
    send: {from: client, to: server, tcp: {dport: 23}}
    expect: {verdict: accept}
  - name: a misspelt host
    send: {from: clint, to: server, tcp: {dport: 443}}
    expect: {verdict: accept}
"""


def test_every_report_tells_the_same(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("coverage", reason="coverage.py is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    image = images.find(images.DEFAULT)
    if not shutil.which("qemu-system-x86_64") or image is None:
        pytest.skip("needs QEMU and a kernel image; ./run exec nft-harness doctor tells more")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    folder = pytester.mkdir("scenarios")
    (folder / "web.nft").write_text(RULESET)
    (folder / "web.yaml").write_text(SCENARIOS)
    options = [
        *("--nft-kernel", images.DEFAULT, "--nft-results", "results", "--nft-html", "report.html"),
        *("--nft-cov", "--nft-cov-lcov", "lcov.info", "--junitxml", "junit.xml"),
    ]
    run = pytester.runpytest_subprocess(*options, timeout=180)

    assert run.ret == BROKEN, run.stdout.str()
    run.assert_outcomes(passed=1, failed=1, errors=1)
    text = run.stdout.str()
    assert "scenarios/web.yaml:8:23: Telnet passes" in text
    assert "scenarios/web.yaml:10:18: send.from: 'clint' is not a host of the lab" in text
    assert "scenarios/web.nft:5  inet filter forward  evaluated, never matched  tcp dport 22 accept" in text

    results = load([Path("results")])
    assert [(one.name, one.outcome) for one in results] == [
        ("HTTPS passes", "passed"),
        ("Telnet passes", "failed"),
        ("a misspelt host", "error"),
    ]
    https = results[0].sent[0]
    assert (https.verdict, https.ended) == ("accept", "delivered to server")
    assert "nft_do_chain" in {hop.function for hop in https.seen.hops}
    assert "DA:4,1" in Path("lcov.info").read_text()
    page = Path("report.html").read_text()
    assert all(name in page for name in ("HTTPS passes", "Telnet passes", "a misspelt host", "tcp dport 443 accept"))

    cases = {case.get("name"): case for case in ET.parse("junit.xml").iter("testcase")}
    properties = {one.get("name"): one.get("value") for one in cases["HTTPS-passes"].iter("property")}
    assert properties["nft.verdict"] == "accept"
    assert properties["nft.rule"] == "inet filter forward, scenarios/web.nft:4 (handle 2): tcp dport 443 accept"
    assert properties["nft.kernel"] == image.release
    assert properties["nft.loss"].startswith("0 of ")
    assert cases["Telnet-passes"].find("failure") is not None
    assert cases["a-misspelt-host"].find("error") is not None
