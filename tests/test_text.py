"""Text of strangers: one nasty string through each way out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import text
from harness.cli import main
from harness.errors import HarnessError, Position, ScenarioError
from harness.model.result import Result, store

NASTY = "a\n::error::b\r\x1b[31mred\x1b]0;title\x07\x9b2J \u202eevil\u2028 ##[error]old `@all` <b>"
RULESET = """table inet t {
	chain forward {
		type filter hook forward priority 0; policy drop;
	}
}
"""


def is_harmless(shown: str) -> bool:
    """Whether nothing in it is a control character, turns the writing or is a workflow command."""
    rows = shown.split("\n")
    return (
        all(row.replace("\t", "").isprintable() for row in rows)
        and not any(row.lstrip().startswith("::") for row in rows)
        and "##[" not in shown
    )


def test_one_line_stays_one_line() -> None:
    assert text.escape("plain → text") == "plain → text"
    assert text.escape("a\nb\x1b[31m\u202e") == r"a\nb\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("::error::x", r"\x3a:error::x"),
        ("ok\n \t ::stop-commands::x", "ok\n \t " + r"\x3a:stop-commands::x"),
        ("a ##[error]x", r"a \x23#[error]x"),
        ("::1 → server", "::1 → server"),
        ("a\rb\x08\x9b", r"a\rb\x08\x9b"),
    ],
)
def test_lines(said: str, shown: str) -> None:
    assert text.lines(said) == shown


def test_colour_is_all_that_is_kept_of_sequences() -> None:
    assert (
        text.lines("\x1b[31mred\x1b[0m\x1b[2J\x1b]0;t\x07", colour=True)
        == "\x1b[31mred\x1b[0m" + r"\x1b[2J\x1b]0;t\x07"
    )
    assert text.lines("\x1b[31m::error::x", colour=True) == "\x1b[31m" + r"\x3a:error::x"
    assert "##[" not in text.lines("##\x1b[0m[error]", colour=True).replace("\x1b[0m", "")


def test_an_error_is_one_line() -> None:
    assert "\n" not in str(HarnessError(NASTY, remedy=NASTY))
    assert str(ScenarioError(NASTY, Position("\n::error::.yaml", 1))).isprintable()


def test_languages() -> None:
    assert text.mermaid('a"]; click x', "<b>") == '"a#34;#93;#59; click x<br>#60;b#62;"'
    assert text.markdown("[x](y) <b> @me\n# h") == r"\[x\](y) \<b\> \@me\\n\# h"
    assert text.command("error", {"file": "a,b:c", "line": ""}, "x\n::y%") == "::error file=a%2Cb%3Ac::x%0A::y%25"


SCENARIOS = """ruleset: ok.nft
scenarios:
  - name: "n\\n::error::NAME\\e[31mRED ##[error]V1"
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: accept}
  - name: bad value
    send: {from: client, to: "\\n::error::host\\n::stop-commands::tok\\n\\e[31m\\e]0;title\\a", tcp: {dport: 443}}
    expect: {verdict: accept}
  - name: a key
    send: {from: client, to: server, "\\n::error::key\\e[2J": {dport: 443}}
    expect: {verdict: accept}
  - name: a path
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {path: ["\\n::error::path"], layers: ["\\n::error::layer"]}
  - name: a packet
    send: {from: client, packet: "IP(\\n::error::=1)"}
    expect: {verdict: drop}
  - name: a capture
    send: {from: client, pcap: "\\n::error::file"}
    expect: {verdict: drop}
  - name: a rule
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {rule: "x\\n::error::PWNED by rule\\e[2J"}
  - name: elements
    send: {from: client, to: server, tcp: {dport: 443}}
    expect: {verdict: drop, elements: {"inet t s\\n::error::PWNSET": []}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (folder := tmp_path / "scenarios").mkdir()
    (folder / "ok.nft").write_text(RULESET)
    (folder / "::error::\x1b[31m.yaml").write_text(SCENARIOS)
    return tmp_path


def test_check_shows_no_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(project / "scenarios")])
    assert is_harmless(said := capsys.readouterr().out)
    assert r"\x1b[31m" in said


def test_pytest_shows_no_command(project: Path) -> None:
    """In a session of its own on this kernel: scenarios that are wrong need none."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "scenarios",
        "-k",
        "bad or key or path or packet",
    ]
    (project / "scenarios/::error::\x1b[31m.yaml").rename(project / "scenarios/a.yaml")
    (project / "conftest.py").write_text(
        "from harness.linux import features\nfeatures.function_probes = lambda: features.Support(True)\n"
        "features.kprobe_multi = lambda: features.Support(True)\n"
    )
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "4 errors" in ran.stdout, ran.stdout
    assert is_harmless(ran.stdout), ran.stdout


def test_report_shows_no_command(
    tmp_path: Path, make_result: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    position = Position(f"scenarios/{NASTY}.yaml", 3)
    result = make_result(NASTY, outcome="failed", accepted=False, message=NASTY, kernel=NASTY, position=position)
    store([result], tmp_path)
    assert main(["report", str(tmp_path), "--cov"]) == 0
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert is_harmless(said.out + said.err)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("one\ntwo\n\n", "two"),
        ("/dev/stdin:1:4-7: Error: syntax error\nadd nope\n    ^^^^\n", "/dev/stdin:1:4-7: Error: syntax error"),
        (
            "Traceback:\n    f()\n    ^^^\nnft.NftError: t.nft:3:1-9: Error: no\n\ttcp dport 1\n\t^^^~~~^\n",
            "nft.NftError: t.nft:3:1-9: Error: no",
        ),
        ("x.c:1:1: error: expected ';'\nint f\n~~~~^\n", "x.c:1:1: error: expected ';'"),
        ("^^^^\n", "nothing"),
        ("", "nothing"),
    ],
)
def test_of_an_error_that_shows_a_line_the_sentence_is_told(printed: str, said: str) -> None:
    assert text.last_sentence(printed, "nothing") == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 packets"), (1, "1 packet"), (2, "2 packets"), (1200, "1,200 packets")]
)
def test_a_noun_agrees_with_its_number(number: int, said: str) -> None:
    assert text.counted(number, "packet") == said
