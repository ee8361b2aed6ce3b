"""Numbers of options: each is refused in a sentence where it can mean nothing."""

from __future__ import annotations

import pytest

from harness.cli import main, parser
from harness.cli.shells import _actions

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["diff", "--packets", "0"], "--packets: '0' is not a whole number from 1 to 20,000"),
        (["diff", "--packets", "many"], "--packets: 'many' is not a whole number from 1 to 20,000"),
        (["diff", "--seed", "1.5"], "--seed: '1.5' is not a whole number of 0 or more"),
        (["mutate", "--mutants", "0"], "--mutants: '0' is not a whole number of 1 or more"),
        (["mutate", "--mutants", "x"], "--mutants: 'x' is not a whole number of 1 or more"),
        (["mutate", "--fail-under", "101"], "--fail-under: '101' is not a percentage from 0 to 100"),
        (["mutate", "--fail-under", "nan"], "--fail-under: 'nan' is not a percentage from 0 to 100"),
        (["report", "x", "--cov-fail-under", "-1"], "--cov-fail-under: '-1' is not a percentage from 0 to 100"),
        (["report", "x", "--cov-fail-under", "90%"], "--cov-fail-under: '90%' is not a percentage from 0 to 100"),
        (["discover", "--max-trace", "-3"], "--max-trace: '-3' is not a whole number of 1 or more"),
        (["discover", "--priority", "3"], "--priority: '3' is not a whole number from 0 to 2"),
        (["trace", "--max-functions", "0"], "--max-functions: '0' is not a whole number of 1 or more"),
        (["trace", "--max-functions", "x"], "--max-functions: 'x' is not a whole number of 1 or more"),
        (["trace", "--buffer", "4k"], "--buffer: '4k' is not a whole number from 1 to 1,048,576"),
        (["trace", "--buffer", "0"], "--buffer: '0' is not a whole number from 1 to 1,048,576"),
        (["trace", "--duration", "0"], "--duration: '0' is not a positive number of seconds"),
        (["trace", "--duration", "5s"], "--duration: '5s' is not a positive number of seconds"),
        (["trace", "--duration", "nan"], "--duration: 'nan' is not a positive number of seconds"),
    ],
)
def test_a_number_that_means_nothing(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nft-buffer", "4k"], "--nft-buffer: '4k' is not a whole number from 1 to 1,048,576"),
        (["--nft-repeat", "0"], "--nft-repeat: '0' is not a whole number of 1 or more"),
        (["--nft-cov-fail-under", "most"], "--nft-cov-fail-under: 'most' is not a percentage from 0 to 100"),
    ],
)
def test_a_number_of_the_plugin_that_means_nothing(
    arguments: list[str], sentence: str, pytester: pytest.Pytester
) -> None:
    ended = pytester.runpytest_inprocess(*arguments)
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    assert sentence in ended.stderr.str()


def test_no_number_of_an_option_has_the_parsers_own_sentence() -> None:
    types = [action.type for action in _actions(parser()) if action.type in (int, float)]
    assert not types
