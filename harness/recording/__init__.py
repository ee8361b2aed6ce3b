"""Recording: what was seen of a packet becomes what is expected of it, in the scenario's own file.

:mod:`~harness.recording.expectation` says what to expect, :mod:`~harness.recording.edit` changes a
YAML text without disturbing the rest of it, :mod:`~harness.recording.files` does both for the files
of a session, and :mod:`~harness.pytest_plugin.recording` is pytest's side of it.
"""
