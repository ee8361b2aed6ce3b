"""One packet through a ruleset, from the command line to the answer and the saved scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.ask import command
from harness.ask.command import AskRequest
from harness.ask.steps import Question
from harness.batch import measure
from harness.batch.messages import Seen
from harness.cache import cache_dir
from harness.errors import HarnessError
from harness.generate import facts
from harness.generate.facts import Facts
from harness.model.result import decode
from harness.scenario.case import Case
from harness.scenario.load import load
from harness.tracer.kernel_cache import KernelCache
from harness.tracer.tracer import Tracer

RULESET = """\
table inet fw {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established accept
		iifname "wan0" oifname "lan0" tcp dport 443 accept
	}
	chain nat {
		type nat hook prerouting priority dstnat;
		iifname "wan0" tcp dport 8443 dnat ip to 10.0.2.2:443
	}
}
"""


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    with Tracer(KernelCache(cache_dir())) as tracer:
        yield tracer


class Here:
    """The session in this process."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def look(self, paths: Sequence[Path]) -> Facts:
        return facts.load(*paths)

    def run(self, cases: Sequence[Case], _: Any) -> Iterator[Seen]:
        return (measure.run_alone(case, self.tracer) for case in cases)


@pytest.fixture
def ask(tracer: Tracer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    @contextmanager
    def here(*_: str) -> Iterator[Here]:
        yield Here(tracer)

    monkeypatch.setattr("harness.batch.session.BatchSession.open", here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "fw.nft").write_text(RULESET)

    def answer(line: str = "", question: Question | None = None, **options: Any) -> str:
        shown: list[str] = []
        given = question or Question(line=line)
        command.run(AskRequest(rulesets=(Path("fw.nft"),), question=given, **options), shown.append, lambda _: None)
        return "\n".join(shown)

    return answer


@pytest.mark.kernel
def test_the_answer_names_the_rule_the_way_and_the_end(ask: Any) -> None:
    refused = ask("client > server tcp dport 22")
    assert "verdict   drop" in refused
    assert "inet fw forward, fw.nft:3   policy drop" in refused
    assert "arrived   nowhere" in refused
    assert "lost      0 of" in refused
    (sent,) = decode(ask("client > server tcp dport 443", json=True).encode()).sent
    assert sent.verdict == "accept"
    assert [step.position and step.position.line for step in sent.decided] == [8, 5]


@pytest.mark.kernel
def test_programs_talk_where_the_packet_arrives_and_it_is_saved(ask: Any, tmp_path: Path) -> None:
    file = Path("scenarios/asked.yaml")
    shown = ask("client > device tcp dport 8443", flow=True, save=file)
    assert "flow      answered" in shown
    ask("client > server udp dport 53", save=file)
    first, second = load(file)
    assert isinstance(first, Case)
    assert isinstance(second, Case)
    assert [type(one).__name__ for one in first.actions] == ["ListenAction", "ConnectAction", "ExchangeAction"]
    assert second.actions[0].entries[0][1].verdict == "drop"


@pytest.mark.kernel
def test_a_packet_that_cannot_be_is_refused_with_its_place(ask: Any) -> None:
    for line, words in (
        ("clint > server tcp dport 22", "packet:1:1: send.from: 'clint' is not a host of the lab"),
        ("client > server tcp dport 70000", "packet:1:27: send.tcp.dport: 70000 is not in"),
        ("client > server icmp type ecco", "packet:1:27: send.icmp.type: 'ecco'"),
    ):
        with pytest.raises(HarnessError) as raised:
            ask(line)
        assert str(raised.value).startswith(words)
    with pytest.raises(HarnessError, match=r"--packet:1:10: send\.packet: TCP has no field 'dprt'"):
        ask(question=Question(packet="IP()/TCP(dprt=1)"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "none.nft", "client > server icmp"], "none.nft is neither a file nor a folder"),
        (["ask", "fw.nft"], "no packet is given"),
        (["ask", "fw.nft", "client > server icmp", "--send", "{}"], "several packets are given"),
        (["ask", "fw.nft", "--lab", "ofice", "client > server icmp"], "--lab: 'ofice' is neither a built-in lab nor"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Callable[[Sequence[str], str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fw.nft").write_text(RULESET)
    refuses(arguments, words)


def test_a_file_that_cannot_be_added_to_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[Sequence[str], str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fw.nft").write_text(RULESET)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/broken.yaml").write_text("ruleset: [fw.nft\n")
    asked = ["ask", "fw.nft", "client > server tcp dport 443", "--save"]
    refuses([*asked, "scenarios/broken.yaml"], "no scenario can be added to a file in which something is wrong")
    refuses([*asked, "notes.txt"], "notes.txt is not called scenarios/*.yaml")
