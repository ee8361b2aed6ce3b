"""Sessions in which scenarios are run on no kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.errors import BrokenMeasurement, Unsupported
from harness.experiment.run import Measurement
from harness.linux import features
from harness.model.result import Result
from harness.pytest_plugin.session import Session
from harness.scenario.case import Case
from harness.scenario.models.actions import SendAction
from tests.pytest_plugin.builders import measurement


@pytest.fixture
def no_kernel(make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of packets to port 443 a rule accepts, the others the policy drops; port 7 breaks, 8 is unsupported."""

    def measured(action: SendAction, number: int) -> Measurement:
        port = action.send.tcp.dport if action.send.tcp else 0
        if port == 7:
            raise BrokenMeasurement("two oracles disagree")
        if port == 8:
            raise Unsupported("this kernel has no VRF", remedy="modprobe vrf")
        return measurement(make_result(accepted=port == 443), action.expect, action=number)

    def run(_: Session, case: Case) -> tuple[Measurement, ...]:
        return tuple(measured(one, n) for n, one in enumerate(case.actions) if isinstance(one, SendAction))

    monkeypatch.setattr(Session, "run", run)
    for name in ("function_probes", "kprobe_multi"):
        monkeypatch.setattr(features, name, lambda: features.Support(True))
    for name in ("NFT_KERNEL", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)


SEND = "send: {from: client, to: server, tcp: {dport: %d}}"


@pytest.fixture
def scenarios(no_kernel: None, pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Runs scenarios, each given by a port and what is expected, with arguments of pytest."""

    def run(*of: tuple[int, str], arguments: tuple[str, ...] = ()) -> pytest.RunResult:
        folder = pytester.path / "scenarios"
        folder.mkdir(exist_ok=True)
        (folder / "edge.nft").touch()
        lines = [f"- name: port {port}\n  {SEND % port}\n  {expect}\n" for port, expect in of]
        (folder / "edge.yaml").write_text("ruleset: edge.nft\nscenarios:\n" + "".join(lines))
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "--nft-kernel", "host", *arguments)

    return run
