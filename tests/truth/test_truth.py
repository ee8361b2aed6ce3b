"""Generated rulesets and packets: the project's observation, a reference evaluator and the kernel's counters agree.

docs/reliability.md has the figures. ``NFT_TRUTH=sift`` leaves the functions out, which is several times quicker.
``NFT_TRUTH_FLOWS=FILE`` has rulesets judged that ``python -m tests.truth.flow FILE`` has made, in as many tests as
:data:`PARTS`, for several guests.
A flow that they do not agree about is printed as a ruleset and a scenario, and written to build/truth (by a microVM it
is only printed). A measurement that is broken says nothing, and is counted.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cache import cache_dir
from harness.errors import BrokenMeasurement, Unsupported
from harness.tracer.base import BaseTracer
from harness.tracer.kernel_cache import KernelCache
from harness.vm import nft
from tests.truth import keeping, trial
from tests.truth.flow import LABS, Flow, read

Counted = Callable[[Mapping[str, int]], None]
KEPT = Path(__file__).parents[2] / "build/truth"
"""Where a flow is kept that judges do not agree about; hypothesis ends with the smallest one, the first is in
``first``."""
FLOWS = os.environ.get("NFT_TRUTH_FLOWS", "")
PARTS = 40 if FLOWS else 1


@pytest.fixture(autouse=True)
def _one_nft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load and list by the same nft, that of this machine.

    In a microVM rulesets are read by the nft of the kernel's release, and nft 1.0.6 crashed when it listed what a newer
    one had loaded.
    """
    monkeypatch.delenv(nft.VARIABLE, raising=False)


@pytest.fixture(scope="module")
def tracer(pytestconfig: pytest.Config) -> Iterator[BaseTracer | None]:
    """As ``--nft-tracer`` says; none to sift."""
    if os.environ.get("NFT_TRUTH") == "sift":
        yield None
    elif pytestconfig.option.nft_tracer == "tracepoints":
        from harness.tracer.stacks import Stacks

        with Stacks(KernelCache(cache_dir())) as stacks:
            yield stacks
    else:
        from harness.tracer.tracer import Tracer

        with Tracer(KernelCache(cache_dir())) as functions:
            yield functions


@pytest.fixture
def counted(soak: Any, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]) -> Counted:
    """Reports what was counted: in the terminal, and as properties, which a microVM sends as well (`--junitxml`)."""

    def report(done: Mapping[str, int]) -> None:
        for name, count in done.items():
            record_property(name, count)
        if soak.seconds or FLOWS:
            with capsys.disabled():
                print("\n" + ", ".join(f"{count} {name}" for name, count in done.items()))

    return report


@pytest.mark.soak
@pytest.mark.parametrize("lab", LABS)
def test_three_judges_agree_here(lab: str, soak: Any, counted: Counted) -> None:
    """On this machine's own kernel, without functions, if it lets us; without modules that it may lack."""
    if os.geteuid():
        pytest.skip("needs root, for network namespaces with nf_tables' trace")
    _agree(None, _generated(soak, 12, (lab,), modules=False), counted)


@pytest.mark.kernel
@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_three_judges_agree(part: int, tracer: BaseTracer | None, soak: Any, counted: Counted) -> None:
    if FLOWS:
        _agree(tracer, functools.partial(_each, read(Path(FLOWS), part, PARTS)), counted)
    elif not soak.seconds:
        pytest.skip("to make rulesets takes a minute under emulation; ./run soak makes some")
    else:
        _agree(
            tracer, _generated(soak, 1, LABS, modules=True), counted
        )  # between turns it is seen whether time is over


def _each(flows: Sequence[Flow], agree: Callable[[Flow], None]) -> None:
    """Have all judged; of one that the judges do not agree about, also what is needed of it."""
    for flow in flows:
        try:
            agree(flow)
        except trial.Disagreement as first:
            keeping.smallest(flow, functools.partial(_fails, agree))
            raise first


def _fails(agree: Callable[[Flow], None], flow: Flow) -> bool:
    try:
        agree(flow)
    except trial.Disagreement:
        return True
    return False


def _generated(
    soak: Any, examples: int, labs: Sequence[str], *, modules: bool
) -> Callable[[Callable[[Flow], None]], object]:
    from tests.truth import strategies  # hypothesis is expensive to import under emulation

    return lambda agree: soak.holds(strategies.flows(labs, modules=modules), agree, examples)


def _agree(tracer: BaseTracer | None, each: Callable[[Callable[[Flow], None]], object], counted: Counted) -> None:
    done = {"rulesets": 0, "packets": 0, "compared": 0, "broken": 0, "failed": 0, "unsupported": 0}

    def agree(flow: Flow) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                done["compared"] += trial.judge(flow, Path(folder), tracer)
        except Unsupported as error:
            done["unsupported"] += 1
            print(error)
            if not done["rulesets"] and not FLOWS:
                pytest.skip(str(error))
            return
        except BrokenMeasurement as error:
            done["broken"] += 1
            print(error)
        except Exception as error:
            error.add_note(f"\n{flow.ruleset.text}\n{keeping.scenario(flow)}")
            keeping.keep(flow, KEPT)
            done["failed"] += 1
            if done["failed"] == 1:  # it may not repeat
                keeping.keep(flow, KEPT / "first")
            raise
        done["rulesets"] += 1
        done["packets"] += len(flow.packets)

    try:
        each(agree)
    finally:
        counted(done)
    assert done["broken"] <= done["rulesets"] / 50
