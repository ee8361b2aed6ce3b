"""Kernels and nft that nothing is called: every command that takes a name refuses them at once."""

from __future__ import annotations

import argparse

import pytest

from harness.cli import kernels, main, parser
from harness.cli.shells import _actions
from harness.errors import Unsupported

LACKING = "nft-harness: error: there is no kernel image '5.9'; use one of "


@pytest.mark.parametrize(
    "command",
    [
        "ask edge.nft x --kernel 5.9",
        "check --kernel 5.9 scenarios",
        "check --nft-program 5.9 scenarios",
        "diff a.nft b.nft --kernel 5.9",
        "diff a.nft --kernels 6.12 5.9",
        "discover --kernel 5.9",
        "init edge.nft --kernel 5.9",
        "lab enter edge.yaml --kernel 5.9",
        "lab enter edge.yaml --nft-program 5.9",
        "mutate scenarios --nft-kernel 5.9",
        "trace --kernel 5.9 -- true",
        "vm --kernel 5.9 -- true",
        "kernels fetch 5.9",
        "kernels warm 5.9",
    ],
)
def test_an_unknown_one_is_refused_in_one_sentence(
    command: str, this_cache: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(LACKING)
    assert err.count("\n") == 1


@pytest.mark.parametrize("variable", ["NFT_KERNEL", "NFT_PROGRAM"])
def test_so_is_one_of_the_environment(
    variable: str, this_cache: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "5.9")
    assert main(["check", "scenarios"]) == 2
    assert capsys.readouterr().err.startswith(LACKING)


@pytest.mark.parametrize("name", ["auto", "host", "6.1", "6.12", "7.2", ""])
def test_known_ones_are_taken(name: str, this_cache: object) -> None:
    assert kernels.kernel(name) == name


@pytest.mark.parametrize("name", ["auto", "host"])
def test_a_microvm_has_an_image(name: str, this_cache: object) -> None:
    with pytest.raises(Unsupported, match="there is no kernel image"):
        kernels.image(name)


def test_every_option_of_a_kernel_or_nft_is_checked() -> None:
    named = [one for one in _actions(parser()) if {*one.option_strings} & {"--kernel", "--nft-kernel", "--nft-program"}]
    unchecked = [one for one in named if one.type not in (kernels.kernel, kernels.image, kernels.program)]
    assert [one.metavar for one in unchecked] == ["RELEASE"]  # report: that of results, which any machine may have
    assert all(isinstance(one, argparse.Action) for one in named)


def test_a_kernel_is_chosen_by_the_same_options_everywhere() -> None:
    choose = [one for one in _actions(parser()) if one.type in (kernels.kernel, kernels.image) and one.option_strings]
    named = [one for one in choose if one.option_strings != ["--kernels"]]
    assert len(named) > 8
    assert {tuple(sorted(one.option_strings)) for one in named} == {kernels.OPTIONS}
