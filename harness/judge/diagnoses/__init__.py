"""Known causes of failures, each a sentence that is said only where the observation proves it; pure.

Every module has one family of them, as functions of :class:`~harness.judge.evidence.Evidence`.
``docs/diagnoses.md`` lists them by symptom.
"""

from __future__ import annotations
