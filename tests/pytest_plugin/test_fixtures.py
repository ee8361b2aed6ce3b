"""The fixtures for tests in Python, as their users meet them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import BrokenMeasurement, Unsupported
from harness.experiment.run import Measurement
from harness.linux import features
from harness.model import result
from harness.model.observation import Loss
from harness.model.result import Result
from harness.packets.spec import TCP, Send
from harness.pytest_plugin.session import Session
from harness.scenario.files import fixture_users
from harness.scenario.models.actions import Action, NftAction, SendAction
from harness.topology.builtin import LABS
from harness.topology.network import Network
from tests.pytest_plugin.builders import measurement

pytest_plugins = ["pytester"]


class Acting:
    """A stage that shows what it was given for a port, on no kernel."""

    def __init__(self, make_result: Callable[..., Result]) -> None:
        self._make = make_result
        self.done: list[Action] = []
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


class TestWhatIsSeen:
    def test_has_the_words_of_a_scenario(self, run: Callable[..., pytest.RunResult]) -> None:
        run(
            "seen = nft_run(**RULES, send=HTTPS)\n"
            "assert (seen.verdict, seen.with_, seen.delivered) == ('accept', '', 'server')\n"
            "assert seen.rule.text == 'tcp dport 443 accept' and seen.rule.position.line == 5\n"
            "assert [step.verdict for step in seen.steps] == ['accept']\n"
            "assert seen.layers == ('Device', 'IPv4', 'Netfilter', 'IPv4', 'Xmit')\n"
            "assert list(seen.path)[:2] == ['netif_receive_skb', 'ip_rcv'] and len(seen.path) == 5\n"
            "assert seen.dropped is None and seen.replies == () and seen.sees['ether_type'] == 0\n"
            "assert repr(seen).endswith(': delivered to server>')\n"
        ).assert_outcomes(passed=1)

    def test_a_policy_is_no_rule(self, run: Callable[..., pytest.RunResult]) -> None:
        run(
            "seen = nft_run(**RULES, send=SSH)\n"
            "assert (seen.verdict, seen.rule, seen.delivered, seen.sees) == ('drop', None, 'nowhere', {})\n"
        ).assert_outcomes(passed=1)

    def test_a_function_that_could_not_be_traced_is_not_called_unmet(
        self, run: Callable[..., pytest.RunResult]
    ) -> None:
        result = run(
            "seen = nft_run(**RULES, send=SSH)\nassert 'ip_forward' not in seen.path\n'ip_forwrad' in seen.path"
        )
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*cannot trace ip_forwrad*did you mean ip_forward?"])

    def test_expectations_of_a_scenario(self, run: Callable[..., pytest.RunResult]) -> None:
        run(
            "seen = nft_run(**RULES, send=SSH, expect={'verdict': 'drop', 'rule': 'policy'})\n"
            "seen.expect(verdict='drop', delivered='nowhere', never=['ip_forward'])\n"
            "with pytest.raises(AssertionError, match='expect.verdict +reject +seen +drop'):\n"
            "    seen.expect(verdict='reject', with_='tcp reset')\n"
        ).assert_outcomes(passed=1)


class TestWhatIsWritten:
    def test_packets_as_models(self, run: Callable[..., pytest.RunResult], stage: Acting) -> None:
        run("nft_run(**RULES, send=m.Send(from_='client', to='server', tcp=m.TCP(dport=443)))").assert_outcomes(
            passed=1
        )
        assert stage.done == [SendAction(send=Send(from_="client", to="server", tcp=TCP(dport=443)))]

    def test_values_that_are_no_text(self, run: Callable[..., pytest.RunResult]) -> None:
        body = "lab = nft_lab(ruleset=tmp_path / 'own.nft')\nlab.send(HTTPS | {'to': ip_address('10.0.2.2')})"
        result = run(f"(tmp_path / 'own.nft').touch()\n{body}", head="from ipaddress import ip_address")
        result.assert_outcomes(passed=1)

    def test_steps_share_a_lab(self, run: Callable[..., pytest.RunResult], stage: Acting) -> None:
        run(
            "lab = nft_lab(**RULES, lab='router')\nlab.send(HTTPS)\n"
            "lab.nft('add element inet edge blocked { 203.0.113.5 }')\nassert lab.step(send=SSH)[0].verdict == 'drop'"
        ).assert_outcomes(passed=1)
        assert [type(action) for action in stage.done] == [SendAction, NftAction, SendAction]

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            ("nft_run(**RULES, send=HTTPS | {'to': 'sever'})", "*.py:11: send.to: 'sever' is *did you mean 'server'?"),
            ("nft_run(**RULES, send={'from': 'client', 'tcp': {'dport': '443'}})", "*.py:11: send.tcp.dport: must be*"),
            ("nft_run(ruleset='egde.nft', send=HTTPS)", "*.py:11: ruleset: 'egde.nft' does not exist*"),
            ("nft_lab(**RULES, lab='ruoter')", "*.py:11: lab: 'ruoter' is not a built-in lab; did you mean 'router'?"),
            ("nft_lab(**RULES, rulset='x')", "*.py:11: 'rulset' is not a valid key here; did you mean 'ruleset'?"),
            ("nft_run(**RULES, send=SSH).expect(counters={'inet a b': 1})", "*.py:11: counters can only be read*"),
            ("nft_lab(**RULES).step(sned=HTTPS)", "*.py:11: 'sned' is not a valid key here; did you mean 'send'?"),
        ],
    )
    def test_a_mistake_is_told_at_the_line_of_the_call(
        self, run: Callable[..., pytest.RunResult], body: str, sentence: str
    ) -> None:
        result = run(body)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"E *{sentence}"])


class TestEnds:
    def test_a_failure_shows_what_was_seen(self, run: Callable[..., pytest.RunResult]) -> None:
        result = run("assert nft_run(**RULES, send=SSH).verdict == 'accept'")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*- what was seen -*", "*ended *policy drop"])

    def test_an_expectation_is_shown_as_that_of_a_scenario(self, run: Callable[..., pytest.RunResult]) -> None:
        result = run("nft_run(**RULES, send=SSH, expect={'verdict': 'accept'})")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E *.py:11: test_it", "E *expect.verdict *accept *seen *drop", "E *lost *0 of 7*"])
        assert "fixtures.py" not in result.stdout.str()

    @pytest.mark.parametrize(
        ("packet", "sentence"),
        [("ODD", "*BrokenMeasurement: two oracles disagree"), ("LOST", "*BrokenMeasurement: lost 1 of 7*")],
    )
    def test_what_was_not_seen_is_an_error_even_where_a_failure_is_expected(
        self, run: Callable[..., pytest.RunResult], packet: str, sentence: str
    ) -> None:
        result = run(f"nft_run(**RULES, send={packet})", head="@pytest.mark.xfail")
        result.assert_outcomes(errors=1)
        assert result.ret == 6
        result.stdout.fnmatch_lines([f"E *{sentence}"])

    def test_what_this_kernel_cannot_do_is_a_skip(self, run: Callable[..., pytest.RunResult]) -> None:
        result = run("nft_run(**RULES, send=VRF)", "-rs")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["SKIPPED *unsupported here: this kernel has no VRF; modprobe vrf"])
        run("nft_run(**RULES, send=VRF)", "--nft-require").assert_outcomes(errors=1)


class TestReports:
    def test_a_result_for_each_lab(self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        run(
            "lab = nft_lab(**RULES)\nlab.send(HTTPS)\nlab.send(SSH)\n"
            "nft_run(**RULES, send=SSH, expect={'verdict': 'accept'})",
            "--nft-results=seen",
        )
        first, second = sorted(result.load([pytester.path / "seen"]), key=lambda one: one.id)
        assert second.id == f"{first.id} (2)"
        assert [sent.verdict for sent in first.sent] == ["accept", "drop"]
        assert second.outcome == "failed"
        assert [one.key for sent in second.sent for one in sent.mismatches] == ["expect.verdict"]
        assert first.position.line == 10

    def test_junit_has_their_verdicts(self, run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        run("nft_run(**RULES, send=SSH)", "--junitxml=out.xml")
        assert 'name="nft.verdict" value="drop"' in (pytester.path / "out.xml").read_text()

    def test_the_way_with_v(self, run: Callable[..., pytest.RunResult]) -> None:
        run("nft_run(**RULES, send=HTTPS)", "-v").stdout.fnmatch_lines(["*ended *delivered to server"])


def test_the_examples_of_the_documentation(pytester: pytest.Pytester, kernel: str) -> None:
    root = Path(__file__).parents[2]
    examples = re.findall(r"^```python\n(.*?)^```", (root / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        (pytester.path / f"test_{number}.py").write_text(example)
    shutil.copytree(root / "scenarios/rulesets", pytester.path / "rulesets")
    result = pytester.runpytest_subprocess("--nft-kernel", kernel, timeout=300)
    assert result.parseoutcomes().keys() == {"passed"}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("test_a.py", "def test(nft_run): ...", True),
        ("conftest.py", "def router(nft_lab): ...", True),
        ("test_a.py", "class T:\n  async def test(self, *, nft_run): ...", True),
        ("test_a.py", "TEXT = 'def test(nft_run): ...'", False),
        ("test_a.py", "def test(nft_run", False),
        ("helpers.py", "def test(nft_run): ...", False),
    ],
)
def test_tests_that_need_a_kernel_are_known_before_they_run(tmp_path: Path, name: str, text: str, found: bool) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / name).write_text(text)
    (tmp_path / "tests/test_other.py").touch()
    assert any(fixture_users([str(tmp_path)], ["test_*.py"])) is found


def test_a_fixture_of_a_folder_above(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def router(nft_lab): ...")
    (tmp_path / "tests").mkdir()
    (file := tmp_path / "tests/test_a.py").touch()
    assert any(fixture_users([f"{file}::test"], ["test_*.py"]))
