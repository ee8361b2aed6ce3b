"""Sessions in which scenarios and tests in Python are run on no kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness.errors import BrokenMeasurement, Unsupported
from harness.experiment.run import Measurement
from harness.linux import features
from harness.model.observation import Loss
from harness.model.result import Result
from harness.pytest_plugin.session import Session
from harness.scenario.case import Case
from harness.scenario.models.actions import Action, NftAction, SendAction
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.pytest_plugin.builders import measurement


@pytest.fixture
def no_kernel(make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of packets to port 443 a rule accepts, the others the policy drops; port 7 breaks, 8 is unsupported.

    9 finds no memory.
    """

    def measured(action: SendAction, number: int) -> Measurement:
        port = action.send.tcp.dport if action.send.tcp else 0
        if port == 7:
            raise BrokenMeasurement("two oracles disagree")
        if port == 8:
            raise Unsupported("this kernel has no VRF", remedy="modprobe vrf")
        if port == 9:
            raise MemoryError
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


class Acting:
    """A stage that shows what it was given for a port, on no kernel."""

    def __init__(self, make_result: Callable[..., Result]) -> None:
        self._make = make_result
        self.done: list[Action] = []
        self.opened = 0
        self.network = Network.of(LABS["router"])

    def arm(self, actions: object) -> None:
        pass

    def act(self, action: Action, number: int, where: object) -> tuple[Measurement, ...]:
        self.done.append(action)
        if isinstance(action, NftAction):
            return ()
        assert isinstance(action, SendAction)
        assert action.send.tcp
        port = action.send.tcp.dport
        if port == 7:
            raise BrokenMeasurement("two oracles disagree")
        if port == 8:
            raise Unsupported("this kernel has no VRF", remedy="modprobe vrf")
        lossy = Loss(entered=7, received=6) if port == 9 else None
        made = self._make(accepted=port == 443)
        return (measurement(made, action.expect, action=number, loss=lossy),)


@pytest.fixture
def stage(make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Acting:
    acting = Acting(make_result)

    @contextmanager
    def open_it(*_: object) -> Iterator[Acting]:
        acting.opened += 1
        yield acting

    monkeypatch.setattr(Session, "open", open_it)
    monkeypatch.setattr(features, "function_probes", lambda: features.Support(True))
    monkeypatch.setattr(features, "kprobe_multi", lambda: features.Support(True))
    monkeypatch.delenv("NFT_KERNEL", raising=False)
    return acting


PACKET = '{"from": "client", "to": "server", "tcp": {"dport": %d}}'


@pytest.fixture
def run(stage: Acting, pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Runs the body of a test that has ``nft_run``, ``nft_lab`` and some packets; here and on no kernel."""
    (pytester.path / "edge.nft").touch()

    def run(body: str, *arguments: str, head: str = "") -> pytest.RunResult:
        packets = "\n".join(
            f"{name} = {PACKET % port}"
            for name, port in {"HTTPS": 443, "SSH": 22, "ODD": 7, "VRF": 8, "LOST": 9}.items()
        )
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        pytester.makepyfile(
            f"import pytest\nimport harness.scenario.models as m\nRULES = {{'ruleset': 'edge.nft'}}\n{packets}\n"
            f"{head}\ndef test_it(nft_run, nft_lab, tmp_path):\n{lines}"
        )
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    return run
