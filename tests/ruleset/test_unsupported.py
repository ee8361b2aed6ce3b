"""Every kind of thing that a ruleset may hold: loaded, placed and traced, or named as what this kernel lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.errors import ScenarioError, Unsupported
from harness.lab.lab import Host, Lab
from harness.ruleset.load import Ruleset
from harness.ruleset.nft import Nft, NftError, marked
from harness.ruleset.nftrace_chains import TraceChains
from harness.ruleset.unsupported import FEATURES, missing
from harness.topology.builtin import LABS
from harness.topology.network import Network

SUGGESTED = "No such file or directory; did you mean chain \u2018c0\u2019 in table bridge \u2018t0\u2019?"
FILES = sorted((Path(__file__).parent / "zoo/features").glob("*.nft"))


@pytest.fixture
def device() -> Iterator[Host]:
    with Lab.build(Network.of(LABS["router"])) as lab:
        yield lab.device


@pytest.mark.kernel
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_it_loads_and_every_rule_has_its_place(device: Host, file: Path) -> None:
    try:
        ruleset = Ruleset.load(device, file)
    except Unsupported as lacking:
        pytest.skip(str(lacking))
    lines = file.read_text().splitlines()
    for rule in ruleset.rules:
        assert rule.position, rule.text
        assert f'comment "{rule.comment}"' in lines[rule.position.line - 1]
    assert ruleset.rules


@pytest.mark.kernel
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_tracing_leaves_it_as_it_is(device: Host, file: Path) -> None:
    try:
        ruleset = Ruleset.load(device, file)
    except Unsupported as lacking:
        pytest.skip(str(lacking))

    nft = ruleset.nft

    def listed() -> str:
        """The user's tables, in nft's words."""
        tables = nft.run("list tables").splitlines()
        return "".join(nft.run(f"list {one}") for one in tables if "nft_harness" not in one)

    before = listed()
    tracing = TraceChains(device, ruleset)
    assert listed() == before
    assert tracing.read() == []


@pytest.mark.kernel
def test_what_the_kernel_lacks_is_named_and_else_the_text_is_wrong(device: Host, tmp_path: Path) -> None:
    file = tmp_path / "rules.nft"
    file.write_text("table ip t {\n chain c {\n  limit rate 1/second counter jump nowhere\n }\n}\n")
    with pytest.raises(ScenarioError, match=r"rules\.nft:3:36: nft: Could not process rule: No such file"):
        Ruleset.load(device, file)
    nft = Nft(device.namespace)
    assert missing(nft, "limit rate 1/second jump nowhere") is None
    assert not nft.ruleset()
    file.write_text('table ip t {\n secmark s { "nobody:knows:this:s0"; }\n}\n')
    with pytest.raises(Unsupported, match=r"rules\.nft:2:10: the kernel has no secmark, for: secmark s .*; it needs"):
        Ruleset.load(device, file)


@pytest.mark.parametrize("suggested", ["Could not process rule: No such file or directory", SUGGESTED])
def test_a_chain_that_nft_suggests_hides_nothing(suggested: str) -> None:
    line = "\t\tether type 2048 counter reject with icmpx port-unreachable"
    refused = NftError(f"/tmp/rules.nft:6:27-32: Error: {suggested}\n{line}\n\t\t{' ' * 24}^^^^^^\n")
    assert list(marked(refused)) == ["reject", line]


@pytest.mark.kernel
def test_every_trial_is_one_that_nft_understands(device: Host) -> None:
    """A trial that fails for its own mistake would call every kernel lacking."""
    nft = Nft(device.namespace)
    for feature in FEATURES:
        with suppress(NftError):
            nft.run(feature.trial.replace("TRIAL", "t"))
            nft.run("flush ruleset")
            continue
        with pytest.raises(NftError, match="Could not process rule"):
            nft.run(feature.trial.replace("TRIAL", "t"))
