"""Changes that an administrator could make, planted in rulesets: ``diff`` finds those that a packet can show, and none
in refactorings.

``planted/NAME.nft`` is a ruleset, ``planted/NAME.yaml`` what is planted in it. The short form compares a few; all of
them: ``./run soak -k planted``. ``NFT_PLANTED_KERNEL=6.12`` does so on that kernel, confirmed with functions.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.compare import command
from harness.compare.command import DiffRequest
from harness.compare.output import Comparison
from harness.errors import HarnessError
from harness.linux import features
from harness.vm import placement
from tests.compare import planted
from tests.compare.planted import Planted

KERNEL = os.environ.get("NFT_PLANTED_KERNEL", "")
"""Where rulesets are compared; "" for this machine's own, without functions."""
SHORT = (
    "mail-web-server: a partner's network is a single address",
    "limits: over missing at the log server",
    "container-host: destination NAT at another priority",
    "ipv6-router: extension headers in a chain of their own",
    "nat-gateway: rules instead of the map of services",
)
"""Those that are compared in the short form."""


def _named(several: list[tuple[str, Planted]]) -> list[object]:
    return [pytest.param(name, one, id=f"{name}: {one.name}") for name, one in several]


@pytest.fixture
def compared(soak: object, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Compares a ruleset with the same after an edit."""
    name = request.node.callspec.id
    if not getattr(soak, "seconds", 0) and name not in SHORT:
        pytest.skip("compared in the long form: ./run soak -k planted")
    if not KERNEL and os.geteuid():
        pytest.skip("needs root, for network namespaces with nf_tables' trace")
    (tmp_path / "pytest.ini").touch()
    monkeypatch.chdir(tmp_path)

    def compare(ruleset: str, one: Planted) -> Comparison:
        text = (planted.FOLDER / f"{ruleset}.nft").read_text()
        Path("old.nft").write_text(text)
        Path("new.nft").write_text(one.applied(text))
        optimize = one.kind == planted.OPTIMIZE
        asked = DiffRequest(
            rulesets=("old.nft",) if optimize else ("old.nft", "new.nft"),
            optimize=optimize,
            kernel=KERNEL or placement.HOST,
            tracer=placement.AUTO if KERNEL else features.TRACEPOINTS,
        )
        try:
            (found,) = command.run(asked, lambda _: None)
        except HarnessError as error:
            if not KERNEL and "flowtable" in text:
                pytest.skip(f"this machine's kernel may lack flow tables: {error}")
            raise
        return found

    return compare


def test_there_are_as_many_as_promised() -> None:
    assert len(planted.sheets()) >= 10
    assert len([*planted.changes()]) >= 100
    assert len([*planted.refactorings()]) >= 30
    assert {one.kind for _, one in planted.refactorings()} == set(planted.KINDS)
    names = {f"{ruleset}: {one.name}" for ruleset, one in [*planted.changes(), *planted.refactorings()]}
    assert set(SHORT) <= names


@pytest.mark.parametrize("ruleset", planted.sheets())
def test_what_is_planted_says_what_it_is(ruleset: str) -> None:
    """Every edit can be made, changes the text, and what no packet shows has a reason."""
    sheet, text = planted.sheets()[ruleset], (planted.FOLDER / f"{ruleset}.nft").read_text()
    assert sheet.ruleset == f"{ruleset}.nft"
    assert sum(line.startswith("\t\t") for line in text.splitlines()) >= 20
    for one in (*sheet.changes, *sheet.refactorings):
        assert one.applied(text) != text or one.kind == planted.OPTIMIZE
    for one in sheet.changes:
        assert one.shows is not None
        assert bool(one.why) is (not one.shows or bool(one.unreached)), one.name
    for one in sheet.refactorings:
        assert one.kind in planted.KINDS
        assert one.shows is None


@pytest.mark.soak
@pytest.mark.parametrize(("ruleset", "one"), _named([*planted.changes()]))
def test_a_planted_change_is_found_if_a_packet_can_show_it(ruleset: str, one: Planted, compared: object) -> None:
    found: Comparison = compared(ruleset, one)  # type: ignore[operator]
    said = "\n".join([found.title, *found.left_out])
    if one.unreached:
        assert not found.changes, "it is reached now: take away what says that it is not"
        assert one.unreached in said
    elif one.shows:
        assert found.changes, said
    else:
        assert not found.changes, "\n".join(f"{c.kind}: {c.witness.summary} {c.old} → {c.new}" for c in found.changes)


@pytest.mark.soak
@pytest.mark.parametrize(("ruleset", "one"), _named([*planted.refactorings()]))
def test_a_refactoring_shows_no_change(ruleset: str, one: Planted, compared: object) -> None:
    found: Comparison = compared(ruleset, one)  # type: ignore[operator]
    assert not found.changes, "\n".join(f"{c.kind}: {c.witness.summary} {c.old} → {c.new}" for c in found.changes)
    assert not found.disagreements
