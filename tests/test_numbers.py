"""Numbers of options: each is refused in a sentence where it can mean nothing."""

from __future__ import annotations

import pytest

from harness.cli import main


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
    ],
)
def test_a_number_that_means_nothing(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
