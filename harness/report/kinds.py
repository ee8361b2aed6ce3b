"""The reports that can be written to a file: each is ``--nft-NAME`` of pytest and ``--NAME`` of ``nft-harness report``.

What makes a report is imported when it is made: a worker needs to know of them only that they are wanted.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import HarnessError, shortage

if TYPE_CHECKING:
    from harness.model.result import Result


class ReportKind(NamedTuple):
    """A report."""

    name: str
    path: str
    """FILE or DIR."""
    what: str
    write: Callable[[Sequence[Result], Path, Path], None]
    """Writes results to a path. The last argument is the folder that the results' files are relative to.
    Raises :class:`OSError` or :class:`~harness.errors.HarnessError`."""

    @property
    def option(self) -> str:
        """The attribute of pytest's options that holds the path."""
        return f"nft_{self.name.replace('-', '_')}"


def _html(results: Sequence[Result], path: Path, _: Path) -> None:
    from harness.report import html
    from harness.save import save

    save(path, html.render(results))


def _jsonl(results: Sequence[Result], path: Path, _: Path) -> None:
    from harness.model.result import encode
    from harness.save import save_parts

    save_parts(path, (encode(result) + b"\n" for result in results))


def _pcapng(results: Sequence[Result], path: Path, _: Path) -> None:
    from harness.report import captures

    captures.write(results, path)


def _summary(results: Sequence[Result], path: Path, _: Path) -> None:
    from harness.report import summary
    from harness.save import save

    text = summary.render(results)
    if str(path) == os.environ.get(STEP_SUMMARY):
        if not results:
            return  # nobody asked for it
        # Other commands of the step write there as well.
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"\n{text}")
    else:
        save(path, text)


def _gitlab(results: Sequence[Result], path: Path, folder: Path) -> None:
    from harness.report import gitlab
    from harness.save import save

    save(path, gitlab.render(results, folder))


def _sarif(results: Sequence[Result], path: Path, folder: Path) -> None:
    from harness.report import sarif
    from harness.save import save

    save(path, sarif.render(results, folder))


def _coverage(kind: str) -> Callable[[Sequence[Result], Path, Path], None]:
    def write(results: Sequence[Result], path: Path, folder: Path) -> None:
        from harness.report.coverage import RuleCoverage

        RuleCoverage(results, folder).write(kind, path)

    return write


KINDS = (
    ReportKind("html", "FILE", "a page to read in a browser", _html),
    ReportKind("pcapng", "DIR", "captures for Wireshark: each interface, and the way of each packet", _pcapng),
    ReportKind("jsonl", "FILE", "all stored results, one per line", _jsonl),
    ReportKind("summary", "FILE", "a summary in Markdown; GitHub's job summary gets it by default", _summary),
    ReportKind("gitlab", "FILE", "GitLab's code quality report", _gitlab),
    ReportKind("sarif", "FILE", "SARIF: failures, and rules that no scenario met", _sarif),
    ReportKind("cov-html", "DIR", "rule coverage: annotated rulesets for a browser", _coverage("html")),
    ReportKind("cov-lcov", "FILE", "rule coverage as LCOV", _coverage("lcov")),
    ReportKind("cov-xml", "FILE", "rule coverage as Cobertura", _coverage("xml")),
)

STANDARD_OUTPUT = "-"
BY_REPORT = "name a file, or store results with --nft-results DIR and print a report of them: nft-harness report DIR"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def write(kind: ReportKind, results: Sequence[Result], path: Path, folder: Path) -> str:
    """Write one report; a sentence that says so, or that there was nothing to write.

    Raises :class:`~harness.errors.HarnessError` when that cannot be done.
    """
    try:
        kind.write(results, path, folder)
    except OSError as error:
        raise HarnessError(f"{kind.name} can't be written to {path}: {error.strerror or error}") from None
    except (MemoryError, SystemError) as error:
        if (short := shortage(error)) is None:
            raise
        raise HarnessError(f"{kind.name} can't be written to {path}: {short.sentence}", remedy=short.remedy) from None
    return f"{kind.name} is in {path}" if path.exists() else f"there is nothing to write to {path}"


def to_print(kind: ReportKind, results: Sequence[Result], folder: Path) -> str:
    """The text of one report. Raises :class:`~harness.errors.HarnessError` for one that is a folder of files."""
    from harness import temporary

    if kind.path != "FILE":
        raise HarnessError(f"--{kind.name} -: this report is a folder of files", remedy="name the folder")
    with temporary.folder("report") as made:
        path = made / kind.name
        write(kind, results, path, folder)
        return path.read_text("utf-8") if path.exists() else ""


def refuse_standard_output(options: Namespace) -> None:
    """Raise :class:`~harness.errors.HarnessError` where pytest's ``options`` ask for a report there."""
    for kind, path in asked(options):
        if path == STANDARD_OUTPUT:
            raise HarnessError(f"--nft-{kind.name} -: pytest prints to standard output itself", remedy=BY_REPORT)


def asked(options: Namespace) -> Iterator[tuple[ReportKind, str]]:
    """Yield the reports that pytest's ``options`` ask for, with their paths."""
    yield from ((kind, path) for kind in KINDS if (path := getattr(options, kind.option)))


def by_environment(options: Namespace) -> None:
    """Ask for what GitHub Actions shows by itself, unless the options say otherwise."""
    in_github = os.environ.get("GITHUB_ACTIONS") == "true"
    if options.nft_github == "auto":
        options.nft_github = "yes" if in_github else "no"
    if in_github and options.nft_summary is None:
        options.nft_summary = os.environ.get(STEP_SUMMARY)


def covers(options: Namespace) -> bool:
    """Whether pytest's ``options`` ask for rule coverage."""
    chosen = options.nft_cov or any(kind.name.startswith("cov-") for kind, _ in asked(options))
    return chosen or options.nft_cov_fail_under is not None


def wanted(options: Namespace) -> bool:
    """Whether pytest's ``options`` ask for anything that is made of results."""
    return bool(options.nft_results or options.nft_github == "yes" or covers(options) or any(asked(options)))
