"""Which kernel a session runs in, whatever the options of pytest-xdist and the order of plugins.

The guests here are Pythons on this machine that call themselves kernels: what is tried is pytest's and
xdist's, and the microVM has tests of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import xdist.dsession  # noqa: F401  # else each session of a test imports it anew

from harness.linux import features
from harness.pytest_plugin import distribute, reports
from harness.pytest_plugin.distribute import Distribution, Kernel
from harness.vm import images
from harness.vm.guest import Guest
from harness.vm.kernel_image import Image
from harness.vm.placement import Placement

pytest_plugins = ["pytester"]

SCENARIO = """\
  - name: {name}
    send: {{from: client, to: server, tcp: {{dport: {port}}}}}
    expect: {{verdict: accept}}
"""
SCENARIOS = "ruleset: web.nft\nscenarios:\n" + "".join(
    SCENARIO.format(name=name, port=port) for port, name in enumerate(("one", "two", "three", "four"), 80)
)

PRETENDED = '''
"""Guests that are Pythons of this machine and call themselves kernels 6.1.9, 6.12.9; the last boots the wrong one."""
from pathlib import Path

import pytest
from harness.pytest_plugin import distribute, session
from harness.linux import features
from harness.vm import guest, images, kernel_image

features.function_probes = lambda: features.Support(False, "this kernel is for tests")
images.get = lambda request, progress: kernel_image.Image(
    release=f"{request}.9", vmlinuz=Path("vmlinuz"), modules=Path("."), config=None
)
guest.Guest.plan = classmethod(lambda cls, image: cls(image, "tcg"))
guest.Guest.spec = lambda self, copy=0: f"popen//id={self.worker(copy)}"
distribute.ASK = """
name = channel.gateway.id.removesuffix("-worker")
kernel, _, copy = name.partition("-")
channel.send((kernel.replace("7.2", "5.10"), "of this guest"))
"""
session.Session.run = lambda self, case: ()

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if report.when == "call" and hasattr(report, "node"):
        with open("ran.txt", "a") as file:
            print(report.node.gateway.id, report.nodeid, file=file)
'''

NATIVE = """
from types import SimpleNamespace
from harness.vm import placement

def use_nft(asked):
    with open("nft.txt", "a") as file:
        print(asked, file=file)

features.function_probes = features.kprobe_multi = lambda: features.Support(True)
placement.use_nft = use_nft
session.Session._open = lambda self, engine: SimpleNamespace(half_armed=False, close=lambda: None)
session.Session.run = lambda self, case: (self._armed_tracer(), ())[1]
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with four scenarios, for guests that are not."""
    for name in ("NFT_KERNEL", "PYTEST_ADDOPTS", "PYTEST_XDIST_AUTO_NUM_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    scenarios = pytester.mkdir("scenarios")
    (scenarios / "web.nft").write_text("table inet t { chain c { type filter hook forward priority 0; }; }\n")
    (scenarios / "web.yaml").write_text(SCENARIOS)
    pytester.makeconftest(PRETENDED)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    result = project.runpytest_subprocess(*arguments, timeout=120)
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str()
    return result


def ran(project: pytest.Pytester) -> dict[str, Counter[str]]:
    """How many times each kernel ran each scenario, and the workers that ran any."""
    found: dict[str, Counter[str]] = {"workers": Counter()}
    for line in (project.path / "ran.txt").read_text().splitlines():
        worker, test = line.split()
        found["workers"][worker] += 1
        found.setdefault(worker.partition("-")[0], Counter())[test.partition("::")[2]] += 1
    return found


ONCE = Counter(["one", "two", "three", "four"])


@pytest.fixture
def options(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], str]]:
    """What xdist reads of its options ``tx`` and ``dist`` when it starts workers; it starts none."""
    for name in ("NFT_KERNEL", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "3")
    pretend(monkeypatch)
    seen: list[tuple[list[str], str]] = []

    class Stop:
        @pytest.hookimpl(wrapper=True)
        def pytest_sessionstart(self, session: pytest.Session) -> Generator[None]:
            seen.append((session.config.option.tx, session.config.option.dist))
            raise pytest.UsageError("that was all")
            yield

    def read(*arguments: str) -> tuple[list[str], str]:
        pytester.inline_run(*arguments, plugins=[Stop()])
        return seen.pop()

    return read


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in this process what the project's conftest.py does in another."""
    monkeypatch.setattr(features, "function_probes", lambda: features.Support(False, "this kernel is for tests"))
    monkeypatch.setattr(images, "get", lambda request, progress: image(f"{request}.9"))
    monkeypatch.setattr(Guest, "plan", classmethod(lambda cls, image: cls(image, "tcg")))
    monkeypatch.setattr(Guest, "spec", lambda self, copy=0: f"popen//id={self.worker(copy)}")


def image(release: str) -> Image:
    return Image(release=release, vmlinuz=Path("/vmlinuz"), modules=Path("/"), config=None)


NUMBERS = {"": 1, "-n0": 1, "-n1": 1, "-n2": 2, "-nauto": 3, "-nlogical": 3}
DISTS = (
    "",
    "-d",
    *(f"--dist={how}" for how in ["no", "load", "loadfile", "loadscope", "loadgroup", "worksteal", "each"]),
)


class TestOptionsOfXdist:
    """What the kernels are is not for xdist to say, how tests are shared within one is."""

    @pytest.mark.parametrize("number", NUMBERS)
    def test_workers_are_guests(self, options: Callable[..., tuple[list[str], str]], number: str) -> None:
        one = [f"popen//id=6.12.9{'-' * (copy > 0)}{copy or ''}" for copy in range(NUMBERS[number])]
        other = [spec.replace("6.12", "6.1") for spec in one]
        for dist in DISTS if number in ("", "-n2") else ("",):
            given = list(filter(None, (number, dist)))
            how = dist.removeprefix("--dist=")
            expected = how if how.startswith(("load", "work")) and number != "-n0" else "load"
            assert options("--nft-kernel=6.12", *given) == (one, expected)
        assert options("--nft-kernel=6.1", "--nft-kernel=6.12", *given)[0] == [*other, *one]

    @pytest.mark.parametrize("order", [("xdist", "harness.plugin"), ("harness.plugin", "xdist"), ("xdist",)])
    def test_whichever_plugin_comes_first(
        self,
        options: Callable[..., tuple[list[str], str]],
        pytester: pytest.Pytester,
        monkeypatch: pytest.MonkeyPatch,
        order: tuple[str, ...],
    ) -> None:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        plugins = [argument for name in order for argument in ("-p", name)]
        if "harness.plugin" not in order:
            pytester.makeconftest('pytest_plugins = ["harness.plugin"]')
        for number in ("-n2", "-nauto", "-n0"):
            workers, dist = options(*plugins, "--nft-kernel=6.12", number)
            assert (len(workers), dist) == (NUMBERS[number], "load")
            assert workers[0] == "popen//id=6.12.9"

    def test_maxprocesses_is_kept_to(self, options: Callable[..., tuple[list[str], str]]) -> None:
        assert len(options("--nft-kernel=6.12", "-nauto", "--maxprocesses=2")[0]) == 2
        assert len(options("--nft-kernel=6.12", "--maxprocesses=2")[0]) == 1

    def test_on_the_host_alone_they_are_xdists_own(
        self, options: Callable[..., tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(features, "function_probes", lambda: features.Support(True))
        assert options("--nft-kernel=host", "-n2", "--dist=each") == (["popen", "popen"], "each")
        assert options("--nft-kernel=host", "-n0") == ([], "no")


class TestEveryScenarioOnceInThePlannedKernel:
    @pytest.mark.parametrize("number", ["-n2", "-n0"])
    def test_on_one_kernel(self, project: pytest.Pytester, number: str) -> None:
        result = run(project, "--nft-kernel=6.12", number)
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["nft-harness: kernel 6.12.9 in a microVM (TCG): asked for*"])
        seen = ran(project)
        assert seen.keys() == {"workers", "6.12.9"}
        assert seen["6.12.9"] == ONCE
        assert len(seen["workers"]) == NUMBERS[number]

    def test_on_several_kernels(self, project: pytest.Pytester) -> None:
        run(project, "--nft-kernel=6.1", "--nft-kernel=6.12", "-n2", "--dist=each").assert_outcomes(passed=8)
        seen = ran(project)
        assert seen["6.1.9"] == seen["6.12.9"] == ONCE
        assert len(seen["workers"]) == 4

    def test_a_scheduler_of_the_projects_own_shares_within_each_kernel(self, project: pytest.Pytester) -> None:
        own = """
from xdist.scheduler import LoadScopeScheduling

class First(LoadScopeScheduling):
    def _split_scope(self, nodeid):
        return nodeid.partition("::")[2][0]  # two and three go together

def pytest_xdist_make_scheduler(config, log):
    return First(config, log)
"""
        project.makeconftest(PRETENDED + own)
        run(project, "--nft-kernel=6.1", "--nft-kernel=6.12", "-n2").assert_outcomes(passed=8)
        lines = [line.split() for line in (project.path / "ran.txt").read_text().splitlines()]
        for kernel in ("6.1.9", "6.12.9"):
            of_t = {worker for worker, test in lines if test.partition("::")[2][0] == "t" and worker.startswith(kernel)}
            assert len(of_t) == 1
        assert ran(project)["6.1.9"] == ran(project)["6.12.9"] == ONCE


class TestAnotherKernel:
    """Nothing is green that ran elsewhere than the header says."""

    def test_a_guest_with_another_kernel_ends_the_run(self, project: pytest.Pytester) -> None:
        result = run(project, "--nft-kernel=6.12", "--nft-kernel=7.2")
        assert result.ret == reports.BROKEN
        assert " passed" not in result.stdout.str()
        assert "worker 7.2.9 runs on kernel 5.10.9, not the host's, and not on kernel 7.2.9 in a microVM" in (
            result.stderr.str()
        )

    def test_a_worker_on_the_host_ends_the_run(self, project: pytest.Pytester) -> None:
        asked = distribute.ASK.replace('"""', "")
        project.makeconftest(f'{PRETENDED}\ndistribute.ASK = """{asked}"""\n')
        result = run(project, "--nft-kernel=6.12")
        assert result.ret == reports.BROKEN
        assert "the host's, and not on kernel 6.12.9 in a microVM" in result.stderr.str()

    @pytest.mark.parametrize("trick", ['tx = ["popen"]', 'dist = "no"'])
    def test_another_plugin_that_chooses_workers_ends_the_run(self, project: pytest.Pytester, trick: str) -> None:
        late = f"def pytest_configure(config):\n    config.option.{trick}\n"
        project.makeconftest(f"{PRETENDED}\n{late}")
        result = run(project, "--nft-kernel=6.12")
        assert result.ret == reports.BROKEN
        assert "another plugin changed them; nothing was tested" in result.stderr.str()

    @pytest.mark.parametrize(("arguments", "asked"), [([], "image"), (["--nft-program=host"], "host")])
    def test_workers_on_the_host_read_rulesets_by_the_nft_that_is_asked_for(
        self, project: pytest.Pytester, arguments: list[str], asked: str
    ) -> None:
        ask = distribute.ASK.replace('"""', "")
        project.makeconftest(f'{PRETENDED}{NATIVE}\ndistribute.ASK = """{ask}"""\n')
        run(project, "--nft-kernel=host", "-n2", *arguments).assert_outcomes(passed=4)
        assert set((project.path / "nft.txt").read_text().split()) == {asked}

    def test_xdists_own_workers_on_the_host_are_checked(self, project: pytest.Pytester) -> None:
        able = "features.function_probes = features.kprobe_multi = lambda: features.Support(True)\n"
        project.makeconftest(PRETENDED + able)
        result = run(project, "--tx=2*popen", "--dist=load")
        assert result.ret == reports.BROKEN
        assert "worker gw0 runs on kernel gw0, not the host's, and not on the host's kernel" in result.stderr.str()
        asked = distribute.ASK.replace('"""', "")
        project.makeconftest(f'{PRETENDED}{able}\ndistribute.ASK = """{asked}"""\n')
        run(project, "--tx=2*popen", "--dist=load").assert_outcomes(passed=4)


class TestRefused:
    """What cannot be together with a microVM."""

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--tx=popen", "-d"], "--tx names workers, but tests run in a microVM; leave it out"),
            (["-pno:xdist"], "a microVM is a worker of pytest-xdist; leave out -p no:xdist"),
            (["--pdb"], "--pdb debugs this process, but tests run in a microVM; leave it out"),
            (["--trace"], "--trace debugs this process, but tests run in a microVM; leave it out"),
            (["-n0", "--pdb"], "--pdb debugs this process"),
        ],
    )
    def test_with_a_sentence(
        self,
        pytester: pytest.Pytester,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        sentence: str,
    ) -> None:
        pretend(monkeypatch)
        result = pytester.runpytest_inprocess("--nft-kernel=6.12", *arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert f"ERROR: nft-harness: {sentence}" in result.stderr.str()

    @pytest.mark.parametrize("module", ["bcc", "nftables"])
    def test_missing_bindings_before_anything_boots(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        pretend(monkeypatch)
        monkeypatch.setitem(sys.modules, module, None)
        for kernel in ("6.12", "host"):
            result = pytester.runpytest_inprocess(f"--nft-kernel={kernel}")
            assert result.ret == pytest.ExitCode.USAGE_ERROR
            package = {"bcc": "python3-bpfcc", "nftables": "python3-nftables"}[module]
            assert f"has no module {module}; run apt-get install {package}" in result.stderr.str()
            assert "created:" not in result.stdout.str()

    @pytest.mark.parametrize("argument", ["scenarios/nothere.yaml", "nothere", "nothere.py::test_x"])
    def test_a_path_that_names_nothing_before_anything_boots(self, project: pytest.Pytester, argument: str) -> None:
        result = run(project, "--nft-kernel=6.12", "scenarios/web.yaml", argument)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert f"ERROR: file or directory not found: {argument}" in result.stderr.str()
        assert "created:" not in result.stdout.str()

    @pytest.mark.parametrize("more", [[], ["-q"], ["-n2"], ["--nft-kernel=6.1"]])
    def test_a_scenario_that_does_not_exist(self, project: pytest.Pytester, more: list[str]) -> None:
        result = run(project, "--nft-kernel=6.12", "scenarios/web.yaml::five", *more)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        found = [line for line in result.outlines if line.startswith("ERROR: not found: ")]
        assert len(found) == 1
        assert found[0].endswith("scenarios/web.yaml::five")

    @pytest.mark.parametrize("option", ["--help", "--version", "--fixtures", "--markers", "--collect-only"])
    def test_nothing_is_chosen_where_nothing_runs(self, pytester: pytest.Pytester, option: str) -> None:
        pytester.makepyfile("def test_x(): pass")
        result = pytester.runpytest_inprocess("--nft-kernel=nonsense", "-pno:xdist", option)
        assert result.ret == pytest.ExitCode.OK


HOST = Kernel("6.18.5", "host")


def planned(*releases: str, copies: int = 1) -> Distribution:
    """A distribution to these kernels; "" is the host."""
    places = [Placement(image=image(one) if one else None, reason="asked for") for one in releases]
    return Distribution([(one, Guest(one.image, "tcg") if one.image else None) for one in places], copies)


class TestPlan:
    @pytest.mark.parametrize(
        ("worker", "seen", "wrong"),
        [
            ("6.1.9", Kernel("6.1.9-amd64", "another"), ""),
            ("6.1.9-1", Kernel("6.1.9-amd64", "another"), ""),
            ("host", HOST, ""),
            ("6.1.9", Kernel("6.1.9-amd64", "host"), "the host's"),
            ("6.1.9", HOST, "the host's"),
            ("6.1.9", Kernel("6.1.90-amd64", "another"), "not the host's"),
            ("6.1.90", Kernel("6.1.9-amd64", "another"), "not the host's"),
            ("host", Kernel("6.18.5", "another"), "not the host's"),
            ("host-1", Kernel("6.1.9-amd64", "another"), "not the host's"),
            ("gw0", HOST, "not a planned worker"),
        ],
    )
    def test_release_and_boot_have_to_be_the_planned(self, worker: str, seen: Kernel, wrong: str) -> None:
        said = planned("6.1.9-amd64", "6.1.90-amd64", "", copies=2).misplaced(worker, seen, HOST)
        assert wrong in said
        assert bool(said) is bool(wrong)

    def test_the_host_alone_takes_any_worker_in_its_kernel(self) -> None:
        assert planned("").specs() == []
        assert planned("").misplaced("gw7", HOST, HOST) == ""
        assert planned("").misplaced("gw7", Kernel("6.18.5", "another"), HOST)

    def test_this_kernel_is_the_hosts(self) -> None:
        assert Kernel.here() == Kernel.here()
        assert len(Kernel.here().boot) == 36


@pytest.mark.usefixtures("reads_rulesets")  # another process tries them where they cannot be read
class TestCosts:
    """What a session with guests costs the controller, as far as that does not depend on the machine."""

    COUNTING = """
import gc, sys

forks = []
sys.addaudithook(lambda event, arguments: forks.append(arguments[0]) if event == "subprocess.Popen" else None)

def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        packages = sorted({name.partition(".")[0] for name in sys.modules})
        modules = sum(name.startswith("harness.") for name in sys.modules)
        with open("costs.txt", "w") as file:
            print(len(sys.modules), modules, len(forks), gc.get_freeze_count(), *packages, file=file)
"""

    @pytest.fixture
    def costs(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[str]]:
        """Numbers of modules, of our own modules, of processes and of objects that are no garbage, and the names of
        packages, in a second session."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(project.path / "cache"))
        project.makepyfile(counting=self.COUNTING)
        for _ in "12":
            run(project, "-p", "counting", "-p", "no:cacheprovider", "--nft-kernel=6.12", "-k", "one").assert_outcomes(
                passed=1
            )
        *numbers, packages = (project.path / "costs.txt").read_text().split(maxsplit=4)
        return [*map(int, numbers)], packages.split()

    def test_what_is_expensive_is_not_imported(self, costs: tuple[list[int], list[str]]) -> None:
        _, packages = costs
        assert not {"scapy", "cryptography", "hypothesis", "bcc", "nftables", "jinja2"} & {*packages}

    def test_numbers_of_modules_and_processes(self, costs: tuple[list[int], list[str]]) -> None:
        (modules, ours, processes, kept), _ = costs
        assert modules <= 600
        assert ours <= 137
        assert processes == 2  # nft --version, and the worker
        assert kept > 30_000, "pytest looks at all objects twice at the end"
