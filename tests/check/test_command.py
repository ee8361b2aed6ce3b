"""What ``nft-harness check`` finds in rulesets without a kernel, and what it leaves to the kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.check.command import check
from harness.linux import modules
from harness.ruleset import process

Write = Callable[..., Path]


def errors(file: Path) -> list[str]:
    found = check([file])
    assert found.notes == ()
    return [str(error) for error in found.errors]


def test_nothing_is_wrong_in_a_right_file(project: Write) -> None:
    found = check([project()])
    assert (found.files, found.scenarios, found.errors, found.warnings, found.notes) == (1, 1, (), (), ())


@pytest.mark.parametrize(
    ("ruleset", "place"),
    [
        ("table inet t {\n\tchain c {\n\t\ttcp dport 22 acept\n\t}\n}\n", "edge.nft:3:21: nft: syntax error"),
        ("table inet t {\n\tchain c {\n\t\tip saddr @nobody drop\n\t}\n}\n", "edge.nft:3:12: nft: No such file"),
        ("table inet t {\n\tchain c {\n\t\tip saddr 2001:db8::1 drop\n\t}\n}\n", "edge.nft:3:12: nft: "),
        ("table inet t {\n\tchain c {\n\t\ttcp dport $x drop\n\t}\n}\n", "edge.nft:3:14: nft: unknown identifier"),
        ('include "missing.nft"\n', "edge.nft:1:1: nft: File not found"),
        ('include "/etc/hostname"\n', "edge.nft:1:1: /etc/hostname lies outside of the project"),
    ],
)
def test_what_nft_refuses_whatever_the_kernel(project: Write, ruleset: str, place: str) -> None:
    (found,) = errors(project(ruleset=ruleset))
    assert found.startswith(place)


@pytest.mark.parametrize(
    "rule",
    [
        "iif eth7 accept",  # the lab's interfaces are not there
        "jump nowhere",  # the kernel's answer
        "socket transparent 1",
        "synproxy mss 1460",
        'ct helper set "nothing"',
        "fwd to eth7",
    ],
)
def test_what_only_the_kernel_or_the_lab_decides_is_left_to_them(project: Write, rule: str) -> None:
    hook = "chain c { type filter hook ingress device eth7 priority 0; fwd to eth7; }"
    table = f"table netdev t {{ {hook}; }}" if rule.startswith("fwd") else f"table inet t {{ chain c {{ {rule}; }}; }}"
    assert errors(project(ruleset=f"{table}\n")) == []


def test_two_folders_are_two_transactions(project: Write, tmp_path: Path) -> None:
    """The second names what the first has loaded, which is not there when nothing is loaded."""
    file = project()
    (tmp_path / "more").mkdir()
    more = tmp_path / "more/more.nft"
    file.write_text(file.read_text().replace("edge.nft", "[edge.nft, more/more.nft]"))
    more.write_text("add rule inet edge from_wan ip saddr @blocked drop\n")
    assert errors(file) == []
    more.write_text("add rule inet edge from_wan ip saddr @blocked dorp\n")
    assert [one.partition(": ")[0] for one in errors(file)] == ["more/more.nft:1:51"]


def test_nothing_reaches_the_kernel(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file would do to the kernel is not asked for: it has no table afterwards, and no module either."""
    before = modules.loaded()
    file = project()
    reader = process.Child(None, process.Reach((Path.cwd(),)))
    with reader:
        load = {"json": False, "folder": str(Path.cwd()), "file": "./edge.nft"}
        assert b"Operation not permitted" in reader.ask(load).error
        assert reader.ask({"json": False, "folder": "", "commands": "list ruleset"}).output == b""
    assert errors(file) == []
    assert modules.loaded() == before


def test_no_module_is_loaded_for_a_check(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "is_there", lambda name: name != "nf_tables")
    monkeypatch.setattr(process, "_start_parent", lambda *_, **__: pytest.fail("nothing may be asked"))
    monkeypatch.setattr(process, "_readers", process._Projects(alone=True))
    found = check([project(ruleset="nonsense\n")])
    assert found.errors == ()
    (note,) = found.notes
    assert note.startswith("rulesets were not checked: the module nf_tables is not loaded, and nothing is loaded")


def test_a_machine_that_refuses_says_so(project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(ruleset="nonsense\n")
    monkeypatch.setattr(process, "_map_users", lambda pid: (_ for _ in ()).throw(process._refused("x", alone=True)))
    monkeypatch.setattr(process, "_readers", process._Projects(alone=True))
    found = check([file])
    assert found.errors == ()
    (note,) = found.notes
    assert note == (
        "rulesets were not checked: a ruleset is read by a process that sees no other files, and this machine refuses "
        "that: x; allow mounts, as docker run --privileged does, and user namespaces"
    )


def test_a_mistake_of_the_ruleset_is_reported_once(project: Write) -> None:
    file = project(ruleset="nonsense\n")
    Path("second.yaml").write_text(file.read_text())
    found = check([file, Path("second.yaml")])
    assert len(found.errors) == 1
    assert found.files == found.scenarios == 2


BAD = "table inet t {\n\tchain c {\n\t\ttcp dport 22 acept\n\t}\n}\n"
SYNTAX = "edge.nft:3:21: nft: syntax error"


def test_a_mistake_in_each_scenario_does_not_hide_those_of_the_ruleset(project: Write) -> None:
    form, ruleset = errors(project(expect="{verdict: acept}", ruleset=BAD))
    assert form.startswith("edge.yaml:6:23: expect.verdict: 'acept' is not one of")
    assert ruleset.startswith(SYNTAX)


def test_mistakes_of_form_in_the_lab_and_in_a_ruleset_hide_neither(project: Write) -> None:
    file = project(ruleset=BAD)
    file.write_text(file.read_text().replace("lab: router", "lab: router\ninterfaces: [wan0]"))
    names, ruleset = errors(file)
    assert names.startswith("edge.yaml:2:13: interfaces: must be a mapping")
    assert ruleset.startswith(SYNTAX)
    file.write_text(file.read_text().replace("lab: router\n", "").replace("edge.nft", "egde.nft"))
    names, ruleset = errors(file)
    assert names.startswith("edge.yaml:1:13: interfaces: must be a mapping")
    assert ruleset == "edge.yaml:2:10: ruleset: 'egde.nft' does not exist; did you mean 'edge.nft'?"


def test_a_mistake_of_form_in_a_ruleset_does_not_hide_those_of_the_lab(project: Write) -> None:
    file = project()
    file.write_text(file.read_text().replace("lab: router", "lab: rooter").replace("edge.nft", "{}"))
    lab, ruleset = errors(file)
    assert lab == "edge.yaml:1:6: lab: 'rooter' is not a built-in lab; did you mean 'router'?"
    assert ruleset.startswith("edge.yaml:2:10: ruleset: must be")


def test_scenarios_that_are_all_wrong_do_not_hide_the_lab_and_the_ruleset(project: Write) -> None:
    file = project(ruleset=BAD)
    text = file.read_text().replace("lab: router", "lab: rooter")
    for wrong in ("scenarios: []\n", "scenarios: [{send: 1}]\n", "scenario: []\n", ""):
        file.write_text(text[: text.index("scenarios")] + wrong)
        found = errors(file)
        assert "edge.yaml:1:6: lab: 'rooter' is not a built-in lab; did you mean 'router'?" in found
        # An unknown key may have been meant for something that the ruleset needs.
        assert found[-1].startswith(SYNTAX) is not wrong.startswith("scenario:")


def test_with_an_unknown_key_the_ruleset_is_not_read(project: Write) -> None:
    """It may be a misspelt ``defines``, of which the ruleset needs variables."""
    file = project(ruleset="table inet t { chain c { tcp dport $port accept; }; }\n")
    file.write_text(f"define: {{port: 22}}\n{file.read_text()}")
    (found,) = errors(file)
    assert found.startswith("edge.yaml:1:1: 'define' is not a valid key here; did you mean 'defines'?")
