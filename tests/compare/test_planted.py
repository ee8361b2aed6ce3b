"""Changes that an administrator could make, planted in rulesets: ``diff`` finds those that a packet can show, and none
in refactorings.

``planted/NAME.nft`` is a ruleset, ``planted/NAME.yaml`` what is planted in it. The short form compares a few; all of
them: ``./run soak -k planted``. ``NFT_PLANTED_KERNEL=6.12`` does so on that kernel, confirmed with functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.batch.session import BatchSession
from harness.compare import command
from harness.compare.command import DiffRequest
from harness.compare.output import Comparison
from harness.errors import HarnessError
from harness.generate import pool
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
PACKETS = 120
"""Of a comparison in the short form, and few of them are simulated; in the long form as many as a user has."""

IN_LONG_FORM = "NFT_SOAK_MINUTES" in os.environ
Compare = Callable[[str, Planted], Comparison]


def _named(several: Iterator[tuple[str, Planted]]) -> list[object]:
    """Parameters; in the short form few."""
    named = {f"{ruleset}: {one.name}": (ruleset, one) for ruleset, one in several}
    return [pytest.param(*both, id=name) for name, both in named.items() if IN_LONG_FORM or name in SHORT]


@pytest.fixture(scope="module")
def session() -> Iterator[Callable[[], BatchSession]]:
    """Gives the session that all comparisons share: to begin one takes as long as some comparisons."""
    with ExitStack() as stack:
        opened: list[BatchSession] = []

        def given() -> BatchSession:
            if not opened:
                tracer = placement.AUTO if KERNEL else features.TRACEPOINTS
                opened.append(stack.enter_context(BatchSession.open(KERNEL or placement.HOST, tracer)))
            return opened[0]

        yield given


@pytest.fixture
def compared(session: Callable[[], BatchSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Compares a ruleset with the same after an edit."""
    if not KERNEL and os.geteuid():
        pytest.skip("needs root, for network namespaces with nf_tables' trace")
    if not IN_LONG_FORM:
        monkeypatch.setattr(pool, "TRIED_AT_MOST", 2 * PACKETS)
    (tmp_path / "pytest.ini").touch()
    monkeypatch.chdir(tmp_path)
    running = session()

    @contextmanager
    def shared(*_: str) -> Iterator[BatchSession]:
        yield running

    monkeypatch.setattr(command.BatchSession, "open", shared)

    def compare(ruleset: str, one: Planted) -> Comparison:
        text = (planted.FOLDER / f"{ruleset}.nft").read_text()
        old, new = tmp_path / "old.nft", tmp_path / "new.nft"  # the session has been begun in another folder
        old.write_text(text)
        new.write_text(one.applied(text))
        optimize = one.kind == planted.OPTIMIZE
        asked = DiffRequest(
            rulesets=(str(old),) if optimize else (str(old), str(new)),
            optimize=optimize,
            packets=DiffRequest(rulesets=()).packets if IN_LONG_FORM else PACKETS,
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
@pytest.mark.parametrize(("ruleset", "one"), _named(planted.changes()))
def test_a_planted_change_is_found_if_a_packet_can_show_it(ruleset: str, one: Planted, compared: Compare) -> None:
    found = compared(ruleset, one)
    said = "\n".join([found.title, *found.left_out])
    if one.unreached:
        assert not found.changes, "it is reached now: take away what says that it is not"
        assert one.unreached in said
    elif one.shows:
        assert found.changes, said
    else:
        assert not found.changes, "\n".join(f"{c.kind}: {c.witness.summary} {c.old} → {c.new}" for c in found.changes)


@pytest.mark.soak
@pytest.mark.parametrize(("ruleset", "one"), _named(planted.refactorings()))
def test_a_refactoring_shows_no_change(ruleset: str, one: Planted, compared: Compare) -> None:
    found = compared(ruleset, one)
    assert not found.changes, "\n".join(f"{c.kind}: {c.witness.summary} {c.old} → {c.new}" for c in found.changes)
    assert not found.disagreements
