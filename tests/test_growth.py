"""What is done for rules, elements, hosts and scenarios grows with their number and no faster: calls are counted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.model.result import Result
from harness.model.stored_results import StoredResults
from harness.report import html
from harness.report.evaluated import covered_rules
from harness.report.findings import findings
from harness.ruleset import listing, source
from harness.ruleset.load import placed
from harness.ruleset.texts import Texts
from harness.scenario.load import load, load_lab

Work = Callable[[], object]
Make = Callable[..., Result]
TWICE = 2.2
"""How much more may be done for twice as many."""


def operations(work: Work) -> int:
    """How many functions, Python's own among them, ``work`` calls."""
    count = 0

    def called(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def growth(work: Callable[[int], Work], number: int) -> float:
    """How much more is done for twice ``number`` than for ``number``."""
    work(1)()  # what is done once
    return operations(work(2 * number)) / operations(work(number))


def test_rules_are_read_and_placed(tmp_path: Path) -> None:
    def work(number: int) -> Work:
        rules = [f"ip saddr 10.0.{n >> 8}.{n & 255} tcp dport {n + 1} accept" for n in range(number)]
        file = tmp_path / f"{number}.nft"
        file.write_text("table inet t {\n\tchain c {\n" + "".join(f"\t\t{one}\n" for one in rules) + "\t}\n}\n")
        listed = "".join(f"\t\t{one} # handle {n}\n" for n, one in enumerate(rules, 2))
        text = f"table inet t {{ # handle 1\n\tchain c {{ # handle 1\n{listed}\t}}\n}}\n"

        def read() -> None:
            written = source.read([file], Texts.of_files(1 << 24, None), str)
            assert all(rule.position for rule in placed(listing.read(text)[1], written.rules))

        return read

    assert growth(work, 500) < TWICE


def test_elements_are_read(tmp_path: Path) -> None:
    def work(number: int) -> Work:
        elements = ", ".join(f"10.0.{n >> 8}.{n & 255}" for n in range(number))
        file = tmp_path / f"{number}.nft"
        file.write_text(f"table inet t {{\n\tset s {{ type ipv4_addr; elements = {{ {elements} }} }}\n}}\n")
        return lambda: source.read([file], Texts.of_files(1 << 24, None), str)

    assert growth(work, 2000) < TWICE


def test_hosts_are_planned(tmp_path: Path) -> None:
    def work(number: int) -> Work:
        own = ", ".join(f"e{n}: [10.0.{n}.1/24]" for n in range(number))
        hosts = [f"  h{n}: {{interfaces: {{e: [10.0.{n}.2/24]}}, gateway: device}}\n" for n in range(number)]
        links = [f"  - [device:e{n}, h{n}:e]\n" for n in range(number)]
        file = tmp_path / f"{number}.yaml"
        file.write_text(f"hosts:\n  device: {{interfaces: {{{own}}}}}\n{''.join(hosts)}links:\n{''.join(links)}")
        return lambda: load_lab(file).links

    assert growth(work, 100) < TWICE


def test_scenarios_are_read(tmp_path: Path) -> None:
    (tmp_path / "edge.nft").touch()

    def work(number: int) -> Work:
        file = tmp_path / f"{number}.yaml"
        file.write_text(
            f"ruleset: edge.nft\nscenarios:\n  - name: a\n    matrix: {{port: {list(range(1, number + 1))}}}\n"
            "    send: {from: client, to: server, tcp: {dport: $port}}\n    expect: {verdict: drop}\n"
        )
        return lambda: load(file)

    assert growth(work, 200) < TWICE


@pytest.mark.parametrize("report", [covered_rules, findings, html.render])
def test_results_are_reported(report: Callable[[StoredResults], object], make_result: Make) -> None:
    def work(number: int) -> Work:
        one = make_result()
        assert one.ruleset is not None
        other = [msgspec.structs.replace(one.ruleset.rules[0], chain="other", handle=n) for n in range(200)]
        ruleset = msgspec.structs.replace(one.ruleset, rules=(*one.ruleset.rules, *other))
        results = StoredResults(
            msgspec.structs.replace(one, name=f"{n}", id=f"{n}", ruleset=ruleset) for n in range(number)
        )
        return lambda: report(results)

    assert growth(work, 100) < TWICE


def test_a_large_ruleset_is_looked_through_once_for_all_scenarios(make_result: Make) -> None:
    one = make_result()
    assert one.ruleset is not None
    other = [msgspec.structs.replace(one.ruleset.rules[0], chain="other", handle=n) for n in range(1000)]
    large = msgspec.structs.replace(one, ruleset=msgspec.structs.replace(one.ruleset, rules=tuple(other)))
    large = msgspec.structs.replace(large, sent=())
    assert operations(lambda: covered_rules(StoredResults([large] * 50))) < 1.5 * operations(
        lambda: covered_rules([large])
    )
