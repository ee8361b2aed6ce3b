"""Results made by hand, for what reads them; and programs that tests need."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness import cache
from harness.errors import HarnessError, Position
from harness.model.mismatch import Mismatch
from harness.model.observation import Delivery, Hop, Loss, Observation, ObservedPacket, Rule, Step, Verdict
from harness.model.result import LabInterface, LabPlan, OutcomeName, PacketResult, Policy, Result, RulesetPlan
from harness.ruleset.nft import Nft, NftError
from harness.ruleset.process import LostError
from harness.vm import images
from tests import leftovers


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that tests start do not annotate this one's commit, nor write into its summary."""
    for name in ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)


class Soak:
    """How long a property is tried: a moment in ``./run test``, minutes in ``./run soak``.

    ``NFT_SOAK_MINUTES`` asks for the long form, ``NFT_SOAK_SEED`` tries one seed again.
    """

    HANG = 10.0
    """Seconds for one example."""
    MEMORY = 1 << 30
    """Bytes that the process may grow by."""

    def __init__(self) -> None:
        self.seconds = float(os.environ.get("NFT_SOAK_MINUTES", 0)) * 60

    def turns(self, short: int) -> Iterator[int]:
        """Count turns: ``short`` in the short form, as many as the time allows in the long one."""
        started = time.monotonic()
        number = 0
        while time.monotonic() - started < self.seconds if self.seconds else number < short:
            yield number
            number += 1

    def holds(self, strategy: Any, proposition: Callable[[Any], None], examples: int) -> None:
        """Try ``proposition`` with so many examples of a strategy of hypothesis, or a long time with new seeds.

        An example may take 10 s (:meth:`example`), and the process may grow by 1 GiB. A failure that does not repeat
        with the same example is one as well, and is shown as it was the first time.
        """
        import hypothesis  # expensive to import under TCG

        settings = hypothesis.settings(
            max_examples=10 * examples if self.seconds else examples,
            derandomize=False,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        random.seed()
        failures: list[str] = []

        def tried(one: Any) -> None:
            try:
                proposition(one)
            except Exception:
                failures.append(traceback.format_exc())
                raise

        fixed = os.environ.get("NFT_SOAK_SEED")
        with self._bounds():
            for turn in self.turns(1):
                seed = int(fixed) if fixed else random.getrandbits(32) if self.seconds else 0
                try:
                    hypothesis.seed(seed)(settings(hypothesis.given(strategy)(lambda one: tried(one))))()
                except BaseException as error:
                    error.add_note(f"NFT_SOAK_SEED={seed} tries it again (turn {turn + 1})")
                    if isinstance(error, hypothesis.errors.Flaky):
                        error.add_note(
                            f"This did not repeat; it failed {len(failures)} times, first so:\n{failures[0]}"
                        )
                    raise

    @contextmanager
    def _bounds(self) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_AS)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + self.MEMORY, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    @contextmanager
    def example(self) -> Iterator[None]:
        """One example, which must end within :data:`HANG` seconds."""

        def late(*_: object) -> None:
            raise AssertionError(f"not done within {self.HANG:g} s")

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, self.HANG)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@pytest.fixture
def soak() -> Soak:
    """Tries a property for as long as was asked for."""
    return Soak()


@pytest.fixture(scope="session")
def reads_rulesets() -> None:
    """Skip the test where no ruleset can be read without loading it, as in a chroot, which has no user namespaces."""
    try:
        with closing(Nft(None)) as reader, suppress(NftError):
            reader.run("table ip t { }")
    except (HarnessError, LostError) as error:
        pytest.skip(f"no ruleset can be read here: {error}")


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> Callable[[str, str], str]:
    """Finds a program that a test needs and says which Debian package has it if not: a skip, or an error with
    ``--nft-require``."""

    def find(name: str, package: str) -> str:
        if found := shutil.which(name):
            return found
        why = f"needs {name}: apt-get install {package}"
        if pytestconfig.option.nft_require:
            pytest.fail(why, pytrace=False)
        pytest.skip(why)

    return find


TEXT = """table inet edge {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established accept
		tcp dport 443 accept
		tcp dport 22 accept # nobody tries
	}
}
"""
FILE = "rulesets/edge.nft"
LAB = LabPlan(
    hosts=("client", "device", "server"),
    device="device",
    interfaces=(
        LabInterface(host="client", name="eth0", addresses=("203.0.113.5/24",), peer=("device", "wan0")),
        LabInterface(host="device", name="wan0", addresses=("203.0.113.1/24",), peer=("client", "eth0")),
        LabInterface(host="device", name="lan0", addresses=("10.0.2.1/24",), peer=("server", "eth0")),
        LabInterface(host="server", name="eth0", addresses=("10.0.2.2/24",), peer=("device", "lan0")),
    ),
)
WAY = [
    ("client", "eth0", "__dev_queue_xmit", "Xmit"),
    ("device", "wan0", "netif_receive_skb", "Device"),
    ("device", "wan0", "ip_rcv", "IPv4"),
    ("device", "wan0", "nft_do_chain", "Netfilter"),
    ("device", "lan0", "ip_output", "IPv4"),
    ("device", "lan0", "__dev_queue_xmit", "Xmit"),
    ("server", "eth0", "netif_rx", "Device"),
]


def rule(line: int, handle: int, text: str) -> Rule:
    place = Position(FILE, line, 3)
    return Rule(family="inet", table="edge", chain="forward", handle=handle, text=text, written=text, position=place)


RULES = (
    rule(4, 3, "ct state established accept"),
    rule(5, 4, "tcp dport 443 accept"),
    rule(6, 5, "tcp dport 22 accept"),
)
POLICY = Policy(
    family="inet", table="edge", chain="forward", hook="forward", verdict="drop", position=Position(FILE, 3, 45)
)
RULESET = RulesetPlan(file=FILE, rules=RULES, policies=(POLICY,), texts={FILE: TEXT})


def step(verdict: Verdict, by: Rule | None) -> Step:
    kind = "rule" if by else "policy"
    return Step(
        time=900,
        host="device",
        hook="forward",
        family="inet",
        table="edge",
        chain="forward",
        kind=kind,
        verdict=verdict,
        rule=by,
        policy_at=None if by else POLICY.position,
    )


CACHE = cache.cache_dir().parent
"""Asked for before pytester moves the home folder."""


@pytest.fixture(scope="session", autouse=True)
def _leaves_the_cache_as_it_was() -> Iterator[None]:
    """Over the whole run: what a test keeps in the cache, beside :data:`leftovers.KEPT`, it keeps in one of its own."""
    before = leftovers.of(CACHE)
    yield
    assert not (left := leftovers.of(CACHE) - before), f"tests have left in the user's cache folder: {sorted(left)}"


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Callable[[Sequence[str], str], None]:
    """Assert that a command line is refused, with status 2 and an error that begins with these words."""
    from harness.cli import main  # it imports every command

    def assert_refused(arguments: Sequence[str], words: str) -> None:
        assert main(list(arguments)) == 2
        assert capsys.readouterr().err.startswith(f"nft-harness: error: {words}")

    return assert_refused


@pytest.fixture
def this_cache(monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's cache folder, also where pytester moves the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    return CACHE


@pytest.fixture
def kernel(this_cache: Path) -> str:
    """A kernel that this machine can boot."""
    for program in ("qemu-system-x86_64", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, so no microVM can be booted")
    image = images.find(images.DEFAULT)
    if image is None:
        pytest.skip("no kernel image is here; run nft-harness kernels fetch")
    return image.release


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Makes the result of a packet to port 443, which a rule accepts, or to another one, which the policy drops."""

    def make(
        name: str = "HTTPS is let in",
        *,
        outcome: OutcomeName = "passed",
        accepted: bool = True,
        kernel: str = "6.12.1",
        line: int = 5,
        message: str = "",
        **more: Any,
    ) -> Result:
        decided = step(Verdict.ACCEPT, RULES[1]) if accepted else step(Verdict.DROP, None)
        way = WAY if accepted else WAY[:4]
        packet = ObservedPacket(
            number=0,
            sender="client",
            frame=bytes(54),
            hops=tuple(
                Hop(
                    time=number * 1500,
                    cpu=0,
                    host=host,
                    device=device,
                    function=function,
                    layer=layer,
                    detail={"chain": "inet edge forward", "hook": "forward", "verdict": str(decided.verdict)}
                    if function == "nft_do_chain"
                    else {},
                )
                for number, (host, device, function, layer) in enumerate(way)
            ),
            steps=(decided,),
            deliveries=(Delivery(time=11000, host="server", device="eth0", frame=bytes(54)),) if accepted else (),
        )
        sent = PacketResult(
            action=0,
            summary=f"client 203.0.113.5:40000 → server 10.0.2.2:{443 if accepted else 23} tcp S (IPv4, 40 bytes)",
            packet=0,
            observation=Observation(
                packets=(packet,),
                loss=Loss(entered=7, received=7),
                kernel=kernel,
                engine="kprobe.multi",
                device="device",
            ),
            verdict=decided.verdict,
            decided=(decided,),
            ended="delivered to server" if accepted else "dropped on device by inet edge forward, policy drop",
            mismatches=(
                Mismatch(
                    keys=("expect", "verdict"),
                    position=Position("scenarios/edge.yaml", line + 2),
                    expected="x",
                    seen="y",
                ),
            )
            if outcome == "failed"
            else (),
        )
        result = {
            "id": f"scenarios/edge.yaml::{name.replace(' ', '-')}",
            "name": name,
            "position": Position("scenarios/edge.yaml", line),
            "outcome": outcome,
            "message": message,
            "kernel": kernel,
            "engine": "kprobe.multi",
            "sent": (sent,),
            "ruleset": RULESET,
            "lab": LAB,
            "seconds": 0.25,
        }
        return Result(**{**result, **more})

    return make


FORWARD = """\
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport 443 accept
	}
}
"""
ONE_OF_TWO_PASSES = """\
ruleset: edge.nft
scenarios:
  - name: HTTPS passes
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept}
  - name: HTTPS is refused
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: drop}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with scenarios of its own: one passes, one fails."""
    (folder := tmp_path / "project" / "scenarios").mkdir(parents=True)
    (folder / "edge.nft").write_text(FORWARD)
    (folder / "edge.yaml").write_text(ONE_OF_TWO_PASSES)
    return tmp_path / "project"
