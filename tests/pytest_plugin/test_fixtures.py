"""The fixtures for tests in Python, as their users meet them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.model import stored_results
from harness.packets.spec import TCP, Send
from harness.scenario.files import fixture_users
from harness.scenario.models.actions import NftAction, SendAction
from tests.pytest_plugin.conftest import Acting

pytest_plugins = ["pytester"]


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
        first, second = sorted(stored_results.load([pytester.path / "seen"]), key=lambda one: one.id)
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


class TestLabsThatTestsShare:
    TESTS = """
        import pytest
        SEND = {"from": "client", "to": "server", "tcp": {"dport": 443}}

        @pytest.fixture(scope="SCOPE")
        def gate(FIXTURE):
            return FIXTURE(ruleset=RULESET)

        def test_first(gate):
            assert gate.send(SEND).verdict == "accept"

        def test_second(gate):
            assert gate.send(SEND | {"tcp": {"dport": 22}}).verdict == "accept"

        def test_third(gate):
            pass
    """

    @pytest.fixture
    def share(self, stage: Acting, pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
        def share(scope: str, *arguments: str, ruleset: str = "edge.nft") -> pytest.RunResult:
            (pytester.path / "edge.nft").touch()
            text = self.TESTS.replace("SCOPE", scope).replace("FIXTURE", f"nft_{scope}_lab")
            pytester.makepyfile(test_gate=text.replace("RULESET", repr(ruleset)))
            return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

        return share

    @pytest.mark.parametrize("scope", ["module", "session"])
    def test_one_lab_serves_them_and_each_has_its_own_packets_in_reports(
        self, share: Callable[..., pytest.RunResult], stage: Acting, pytester: pytest.Pytester, scope: str
    ) -> None:
        run = share(scope, "--nft-results", "stored", "--junitxml", "junit.xml")
        run.assert_outcomes(passed=2, failed=1)
        assert stage.opened == 1
        stored = {one.name: one for one in stored_results.load([pytester.path / "stored"])}
        assert {name: (one.outcome, len(one.sent)) for name, one in stored.items()} == {
            "test_first": ("passed", 1),
            "test_second": ("failed", 1),
        }
        cases = ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
        counts = {one.get("name"): len(one.findall("properties/property[@name='nft.loss']")) for one in cases}
        assert counts == {"test_first": 1, "test_second": 1, "test_third": 0}

    def test_a_lab_that_cannot_be_built_is_an_error_of_each_test(self, share: Callable[..., pytest.RunResult]) -> None:
        run = share("module", ruleset="nothing.nft")
        run.assert_outcomes(errors=3)
        run.stdout.fnmatch_lines(["*test_gate.py:6:*nothing.nft*"])
        run.stdout.no_fnmatch_line("*fixtures.py*")

    def test_a_test_that_runs_again_has_each_property_once_for_a_lab(
        self, share: Callable[..., pytest.RunResult], pytester: pytest.Pytester
    ) -> None:
        pytester.makeconftest(
            "from _pytest.runner import runtestprotocol\n"
            "def pytest_runtest_protocol(item, nextitem):\n"
            "    runtestprotocol(item, nextitem=nextitem, log=False)\n"
        )
        share("module", "-k", "first or third", "--junitxml", "junit.xml").assert_outcomes(passed=2)
        properties = ElementTree.parse(pytester.path / "junit.xml").iter("property")
        assert [one.get("name") for one in properties].count("nft.loss") == 1

    def test_their_users_are_known_before_they_run(self, tmp_path: Path) -> None:
        for scope in ("module", "session"):
            (tmp_path / "test_a.py").write_text(f"def gate(nft_{scope}_lab): ...")
            assert any(fixture_users([str(tmp_path)], ["test_*.py"]))


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
