"""``mutate --save``: a scenario for each packet that distinguishes a survivor; it expects what the ruleset does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.batch import drafts, saving
from harness.errors import HarnessError
from harness.generate.pool import describe_send
from harness.mutate.ruleset import MutatedRuleset
from harness.pytest_plugin import kept_frames


def save(file: Path, ruleset: MutatedRuleset, progress: Callable[[str], None]) -> None:
    """Append a scenario to ``file``, or begin it, for each survivor of ``ruleset`` that a packet distinguishes.

    Survivors that the same packet distinguishes have one scenario. What an expectation cannot record is left out, with
    a line of ``progress``. Raises :class:`~harness.errors.HarnessError` where ``file`` cannot be written.
    """
    if len(ruleset.subject.files.paths) != 1 or ruleset.subject.files.defines:
        raise HarnessError(f"--save writes scenarios of a ruleset that is one file, and {ruleset.subject.name} is not")
    like = ruleset.network_case
    lab = drafts.lab_of(like)
    done: set[str] = set()
    for mutant in ruleset.survivors():
        witness = ruleset.known(mutant).witness
        if witness is None or repr(witness.sends) in done:
            continue
        done.add(repr(witness.sends))
        case = drafts.like(like, witness.sends)
        (seen,) = ruleset.run_alone(case, kept_frames.prepare(case.sends))
        if seen.error:
            progress(f"not saved: {describe_send(witness.sends[-1])}: {seen.error}")
            continue
        verdicts = [str(one.verdict or "undecided") for one in seen.sent]
        try:
            words = f"{describe_send(witness.sends[-1])}: {verdicts[-1] if verdicts else 'nothing'}"
            progress(saving.save(file, words, case, seen, lab))
        except saving.NotRecordedError as error:
            progress(f"not saved: {error}")
