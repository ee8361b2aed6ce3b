"""The plugin as pytest's users meet it: a folder of scenarios, a command line, and what is then read."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.linux import features
from harness.model import stored_results
from harness.pytest_plugin import reports
from harness.vm import images
from harness.wait import wait_until

pytest_plugins = ["pytester"]

RULESET = """\
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport 443 accept
	}
}
"""
WEB = """\
ruleset: web.nft
scenarios:
  - name: HTTPS passes
    marks: [smoke]
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept, delivered: server}
  - name: SSH is dropped
    send: {from: client, to: server, tcp: {dport: 22}}
    expect: {verdict: drop}
"""
BROKEN = """\
ruleset: web.nft
scenarios:
  - name: a good one
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept}
  - name: a misspelt host
    send: {from: clint, to: server, tcp: {dport: 443}}
    expect: {verdict: accept}
"""

A_KERNEL_OF_NAMES = '''
"""A kernel that shows nothing wrong, except where a scenario's name asks for it."""
import pytest
from harness.pytest_plugin import session
from harness.errors import BrokenMeasurement, Unsupported
from harness.linux import features
from harness.vm import placement as where

features.function_probes = lambda: features.Support(True)
features.kprobe_multi = lambda: features.Support(True)

def run(self, case):
    if "unsupported" in case.name:
        raise Unsupported("this kernel has no VRF", remedy="modprobe vrf")
    if "lossy" in case.name:
        raise BrokenMeasurement("lost 3 of 212 events")
    return ()

session.Session.run = run
'''


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, this_cache: Path) -> pytest.Pytester:
    """A user's project with a folder of scenarios; kernel images are those of this machine."""
    monkeypatch.delenv("NFT_KERNEL", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\nmarkers = smoke\n")
    scenarios = pytester.mkdir("scenarios")
    (scenarios / "web.nft").write_text(RULESET)
    (scenarios / "web.yaml").write_text(WEB)
    return pytester


@pytest.fixture
def anywhere(project: pytest.Pytester) -> pytest.Pytester:
    """The same, with scenarios that run in this process and on no kernel."""
    project.makeconftest(A_KERNEL_OF_NAMES)
    return project


def write(project: pytest.Pytester, name: str, text: str) -> None:
    (project.path / "scenarios" / name).write_text(text)


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    result = project.runpytest_subprocess(*arguments, timeout=180)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str()
    return result


class TestCollection:
    def test_each_scenario_is_a_test_called_by_its_name(self, project: pytest.Pytester) -> None:
        result = run(project, "--collect-only", "-q")
        assert result.outlines[:2] == [
            "scenarios/web.yaml::HTTPS-passes",
            "scenarios/web.yaml::SSH-is-dropped",
        ]

    def test_yaml_elsewhere_is_not_ours(self, project: pytest.Pytester) -> None:
        (project.path / "compose.yaml").write_text("services: {}\n")
        assert not any("compose" in line for line in run(project, "--collect-only", "-q").outlines)

    def test_k_and_m_choose(self, anywhere: pytest.Pytester) -> None:
        run(anywhere, "-k", "SSH").assert_outcomes(passed=1, deselected=1)
        run(anywhere, "-m", "smoke").assert_outcomes(passed=1, deselected=1)
        run(anywhere, "scenarios/web.yaml::SSH-is-dropped").assert_outcomes(passed=1)

    def test_x_stops_at_the_first(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "a.yaml", BROKEN)
        result = run(anywhere, "-x")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*stopping after 1 failures*"])

    def test_lf_runs_what_failed(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "a.yaml", BROKEN)
        run(anywhere).assert_outcomes(passed=3, errors=1)
        run(anywhere, "--lf").assert_outcomes(errors=1)

    def test_nft_repeat_runs_all_so_many_times(self, anywhere: pytest.Pytester) -> None:
        run(anywhere, "--nft-repeat=3").assert_outcomes(passed=6)
        result = run(anywhere, "--nft-repeat=2", "--collect-only", "-q")
        result.stdout.fnmatch_lines(["*::HTTPS-passes[[]1]", "*::SSH-is-dropped[[]1]", "*::HTTPS-passes[[]2]"])
        result = run(anywhere, "--nft-repeat=0")
        result.stderr.fnmatch_lines(["*--nft-repeat: '0' is not a whole number of 1 or more"])

    def test_python_tests_run_beside_them(self, anywhere: pytest.Pytester) -> None:
        anywhere.makepyfile(test_x="def test_x(): pass")
        run(anywhere).assert_outcomes(passed=3)


class TestEnds:
    def test_a_broken_scenario_is_an_error_and_the_others_run(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "a.yaml", BROKEN)
        result = run(anywhere)
        result.assert_outcomes(passed=3, errors=1)
        result.stdout.fnmatch_lines(
            ["*a.yaml:7:18: send.from: 'clint' is not a host of the lab; did you mean 'client'?*"]
        )

    def test_a_broken_file_is_an_error_and_the_others_run(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "a.yaml", BROKEN.replace("web.nft", "gone.nft"))
        write(anywhere, "b.yaml", "ruleset: web.nft\nscenarios: []\n")
        result = run(anywhere)
        assert result.parseoutcomes()["passed"] == 2
        result.stdout.fnmatch_lines(["*a.yaml:1:10: ruleset: 'gone.nft' does not exist*"])
        result.stdout.fnmatch_lines(["*b.yaml:2:12: scenarios: is empty*"])

    def test_what_this_kernel_cannot_do_is_skipped_with_the_reason(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "web.yaml", WEB.replace("SSH is dropped", "unsupported"))
        result = run(anywhere, "-rs")
        result.assert_outcomes(passed=1, skipped=1)
        result.stdout.fnmatch_lines(["*unsupported here: this kernel has no VRF; modprobe vrf*"])

    def test_nft_require_makes_that_an_error(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "web.yaml", WEB.replace("SSH is dropped", "unsupported"))
        result = run(anywhere, "--nft-require")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["this kernel has no VRF; modprobe vrf"])

    def test_a_broken_measurement_is_an_error(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "web.yaml", WEB.replace("SSH is dropped", "lossy"))
        result = run(anywhere)
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["lost 3 of 212 events"])

    def test_junit_tells_errors_from_failures_and_skips(self, anywhere: pytest.Pytester) -> None:
        write(anywhere, "web.yaml", WEB.replace("HTTPS passes", "lossy").replace("SSH is dropped", "unsupported"))
        write(anywhere, "a.yaml", BROKEN)
        run(anywhere, "--junitxml", "out.xml")
        suite = ET.parse(anywhere.path / "out.xml").getroot()[0]
        assert {key: suite.get(key) for key in ("tests", "errors", "failures", "skipped")} == {
            "tests": "4",
            "errors": "2",
            "failures": "0",
            "skipped": "1",
        }
        errors = [error.get("message") for error in suite.iter("error")]
        assert any(message and "clint" in message for message in errors)


class TestPlace:
    def test_the_header_says_where_and_why(self, anywhere: pytest.Pytester) -> None:
        result = run(anywhere)
        release = re.escape(os.uname().release)
        assert re.search(
            rf"^nft-harness: the host's kernel {release}: it has function probes; functions by kprobe.multi; nft ",
            result.stdout.str(),
            re.MULTILINE,
        )

    def test_a_session_without_scenarios_is_left_alone(self, project: pytest.Pytester) -> None:
        shutil.rmtree(project.path / "scenarios")
        project.makepyfile(test_x="def test_x(): pass")
        result = run(project)
        result.assert_outcomes(passed=1)
        assert "nft-harness:" not in result.stdout.str()
        assert "worker" not in result.stdout.str()

    def test_a_kernel_that_nobody_has(self, project: pytest.Pytester) -> None:
        result = run(project, "--nft-kernel", "nonsense")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "there is no kernel image 'nonsense'; use one of 6.1, 6.12, 7.2" in result.stderr.str()

    def test_the_host_where_it_cannot_trace(self, project: pytest.Pytester) -> None:
        if features.function_probes().able:
            pytest.skip("this kernel can trace functions")
        result = run(project, "--nft-kernel", "host")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        # A user who may become root by sudo is given root's reason.
        reasons = (features.function_probes().reason, "the host's kernel has no function probes")
        assert any(reason in result.stderr.str() for reason in reasons)
        assert "leave out --nft-kernel host" in result.stderr.str()

    def test_a_file_that_is_no_kernel(self, project: pytest.Pytester) -> None:
        (project.path / "vmlinuz").write_text("not a kernel")
        result = run(project, "--nft-kernel", "./vmlinuz")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "vmlinuz is not a kernel image; give a bzImage" in result.stderr.str()

    def test_without_qemu(self, project: pytest.Pytester, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(project.mkdir("bin")))
        result = run(project, "--nft-kernel", kernel)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "qemu-system-x86_64 is missing; run apt-get install qemu-system-x86" in result.stderr.str()

    def test_a_kernel_under_two_names(self, project: pytest.Pytester, kernel: str) -> None:
        image = images.find(kernel)
        assert image
        result = run(project, "--nft-kernel", kernel, "--nft-kernel", str(image.vmlinuz))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "was requested twice; its results could not be distinguished" in result.stderr.str()


def qemus(project: pytest.Pytester) -> list[str]:
    """The processes that run in the project's folder, except ours: QEMU and its wrapper."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cwd").readlink() == project.path and folder.name != str(os.getpid()):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return [command for command in found if "qemu" in command or "microvm" in command]


class TestMicrovm:
    """These boot a guest, a few seconds each."""

    def test_a_failure_is_told_at_its_line_in_the_words_of_a_firewall(
        self, project: pytest.Pytester, kernel: str
    ) -> None:
        write(project, "web.yaml", WEB.replace("verdict: drop", "verdict: accept"))
        write(project, "broken.yaml", BROKEN)
        result = run(project, "--nft-kernel", kernel, "--junitxml", "out.xml")
        result.assert_outcomes(passed=2, failed=1, errors=1)
        result.stdout.fnmatch_lines(
            [
                "nft-harness: kernel * in a microVM (*): asked for; it *; functions by kprobe.multi; nft *",
                "*scenarios/web.yaml:9:23: SSH is dropped",
                "*expect.verdict*accept*seen*drop*",
                "*policy drop*",
                "nft-harness: * functions by kprobe.multi on kernel *",
            ]
        )
        failures = list(ET.parse(project.path / "out.xml").getroot().iter("failure"))
        assert len(failures) == 1
        assert "seen drop" in failures[0].get("message", "")
        assert qemus(project) == []

    def test_two_guests_share_and_each_result_names_the_kernel(
        self, project: pytest.Pytester, kernel: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        first = ("-p", "xdist", "-p", "harness.plugin")
        result = run(project, *first, "--nft-kernel", kernel, "-n", "2", "--nft-results", "results")
        result.assert_outcomes(passed=2)
        image = images.find(kernel)
        assert image
        stored = stored_results.load([project.path / "results"])
        assert [one.kernel for one in stored] == [image.release] * 2
        assert qemus(project) == []

    def test_a_kernel_whose_payload_is_damaged_is_not_booted(self, project: pytest.Pytester, kernel: str) -> None:
        image = images.find(kernel)
        assert image
        project.mkdir("lib").joinpath("modules").symlink_to(image.modules / "lib/modules")
        whole = image.vmlinuz.read_bytes()
        (project.path / "vmlinuz").write_bytes(whole[:0x8000] + bytes(len(whole) - 0x8000))
        result = run(project, "--nft-kernel", "./vmlinuz")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "vmlinuz is not a complete kernel image; fetch it again, or give another one" in result.stderr.str()

    def test_a_guest_that_does_not_come_up(self, project: pytest.Pytester, kernel: str) -> None:
        image = images.find(kernel)
        assert image
        modules = project.mkdir("lib") / "modules"
        modules.symlink_to(image.modules / "lib/modules")
        whole = image.vmlinuz.read_bytes()
        # ud2 in place of all code behind the real-mode part: three faults and it ends
        kept = 512 * (whole[0x1F1] + 1)
        (project.path / "vmlinuz").write_bytes((whole[:kept] + b"\x0f\x0b" * len(whole))[: len(whole)])
        result = run(project, "--nft-kernel", "./vmlinuz")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "the guest ended before it was up" in result.stdout.str() + result.stderr.str()
        assert "a microVM did not come up" in result.stderr.str()
        assert qemus(project) == []

    def test_a_panic_is_an_error_with_the_last_words(self, project: pytest.Pytester, kernel: str) -> None:
        project.makeconftest(
            """
            import os
            from pathlib import Path
            import pytest
            from harness.wait import wait_until

            def pytest_runtest_logreport(report):
                if hasattr(report, "node") and report.when == "teardown":  # it has arrived here
                    Path("arrived").touch()

            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_setup(item):
                if "SSH" in item.name:
                    wait_until(lambda: "arrived" in os.listdir(), 30, "the report of the other to arrive")
                    Path("/proc/sysrq-trigger").write_text("c")
            """
        )
        result = run(project, "--nft-kernel", kernel)
        assert result.ret == reports.BROKEN
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*console of *.*", "*Kernel panic - not syncing: sysrq triggered crash*"])
        result.stdout.fnmatch_lines(["*SSH-is-dropped*"])
        died = re.search(r"\[ *([\d.]+)\] Kernel panic", result.stdout.str())
        assert died
        assert result.duration - float(died[1]) < 30, "seconds after its death"
        assert qemus(project) == []

    @pytest.mark.parametrize("hook", ["runtest_logstart(nodeid)", "sessionfinish(session)"])
    def test_what_the_kernel_complains_of_between_scenarios_breaks_the_run(
        self, project: pytest.Pytester, kernel: str, hook: str
    ) -> None:
        # A warning of mm/page_alloc.c: 16 MiB of ancillary data, see tests/linux/test_health.py.
        project.makeconftest(
            f"""
            import os, socket
            from pathlib import Path
            import pytest

            @pytest.hookimpl(tryfirst=True)
            def pytest_{hook}:
                if os.uname().nodename == "nft-harness" and "SSH" in str(locals().get("nodeid", "SSH")):
                    Path("/proc/sys/net/core/optmem_max").write_text(str(64 << 20))
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending, pytest.raises(OSError):
                        sending.sendmsg([b""], [(socket.SOL_SOCKET, 1, bytes(16 << 20))], 0, ("127.0.0.1", 9))
            """
        )
        result = run(project, "--nft-kernel", kernel)
        assert result.ret == reports.BROKEN
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["nft-harness: a kernel complained when no scenario ran: WARNING: *page_alloc*"])

    @pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
    def test_a_killed_run_leaves_no_guest(self, project: pytest.Pytester, kernel: str, end: signal.Signals) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "--nft-kernel", kernel],
            cwd=project.path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: len(qemus(project)) >= 2, 60, "the guest to boot")
            process.send_signal(end)
            process.wait(30)
            wait_until(lambda: not qemus(project), 10, "QEMU to end")
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("where", ["distribute.distribute", "Session"])
def test_a_shortage_when_pytest_begins_is_a_sentence(
    where: str, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "harness/x.py")

    monkeypatch.setattr(f"harness.plugin.{where}", short)
    done = project.runpytest_inprocess("--nft-kernel", "host", "--nft-tracer", "tracepoints")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(
        ["ERROR: nft-harness: harness/x.py: this process may not open more files; raise its limit*"]
    )
    done.stderr.no_fnmatch_line("*INTERNALERROR*")
