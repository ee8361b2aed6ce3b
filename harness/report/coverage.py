"""Rule coverage, by coverage.py's reporters.

A line of an nft file counts as covered when every rule and policy that begins on it matched a
packet. The contexts of a line are the scenarios that did it.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import coverage
    from coverage.plugin import CoveragePlugin, FileReporter
    from coverage.plugin_support import Plugins
except ImportError as missing:
    from harness.errors import Unsupported

    raise Unsupported(f"rule coverage needs coverage.py ({missing})", remedy="pip install 'nft-harness[cov]'") from None

from harness.errors import HarnessError
from harness.judge import escape
from harness.report.met import Place, places
from harness.result import Result

_PLAIN = str.maketrans("<>", "[]")


class _Ruleset(FileReporter):
    """An nft file, as it was during the run."""

    def __init__(self, name: str, text: str, lines: set[int]) -> None:
        super().__init__(name)
        self._text = text
        self._lines = lines

    def source(self) -> str:
        return self._text

    def lines(self) -> set[int]:
        return self._lines


class _Rulesets(CoveragePlugin):
    def __init__(self, files: dict[str, _Ruleset]) -> None:
        self._files = files

    def file_reporter(self, filename: str) -> FileReporter | str:
        return self._files[filename]


class RuleCoverage:
    """The coverage of some results."""

    def __init__(self, results: Iterable[Result], folder: Path) -> None:
        """``folder`` is the one that the files' names are relative to.

        Raises :class:`~harness.errors.HarnessError` when a file changed from one result to the other.
        """
        results = list(results)
        self.places = places(results)
        texts = _texts(results)
        lines: dict[str, dict[int, list[Place]]] = defaultdict(lambda: defaultdict(list))
        for place in self.places:
            if place.position.file in texts:
                lines[place.position.file][place.position.line].append(place)
        files = {name: str((folder / name).absolute()) for name in lines}
        reporters = {files[name]: _Ruleset(files[name], texts[name], set(lines[name])) for name in lines}
        plugin = _Rulesets(reporters)

        def register(plugins: Plugins) -> None:
            plugins.add_file_tracer(plugin)

        self._coverage = coverage.Coverage(data_file=None, config_file=False, plugins=[register], messages=False)
        data = self._coverage.get_data()
        contexts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for name, by_line in lines.items():
            for line, met in by_line.items():
                if all(place.matched for place in met):
                    for context in _contexts(met):
                        contexts[context][files[name]].append(line)
        data.add_lines({file: [] for file in reporters})  # so that it knows to be about lines, where none was met
        for context, covered in contexts.items():
            data.set_context(context)
            data.add_lines(covered)
        for file in reporters:
            data.touch_file(file, plugin_name=plugin._coverage_plugin_name)
        self.percent = 100.0
        """Of the lines that hold rules or policies."""
        self._table = self._report() if reporters else ""

    def _report(self) -> str:
        out = io.StringIO()
        self.percent = self._coverage.report(show_missing=True, file=out)
        return out.getvalue()

    def lines(self) -> Iterator[str]:
        """Yield coverage.py's table and the rules that no scenario met, for a terminal."""
        yield from self._table.splitlines() or ["no rule of any ruleset was found in its file: nothing to cover"]
        missed = [place for place in self.places if not place.matched]
        if missed:
            yield ""
            yield "met by no scenario:"
        rows = [
            (
                f"{place.position.file}:{place.position.line}",
                place.chain_path,
                place.fate,
                place.text,
            )
            for place in missed
        ]
        widths = [max(len(escape(row[column])) for row in rows) for column in range(3)] if rows else []
        for row in rows:
            cells = [escape(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
            yield "  ".join(["", *cells, escape(row[3])])

    def write(self, kind: str, path: Path) -> None:
        """Write coverage.py's report ``html`` to the folder ``path``, or ``lcov`` or ``xml`` to the file.

        Nothing is written where there is nothing to cover.
        Raises :class:`~harness.errors.HarnessError` when that cannot be done.
        """
        if not self._table:
            return
        try:
            if kind == "html":
                self._coverage.html_report(directory=str(path), show_contexts=True, title="Rule coverage")
            elif kind == "lcov":
                self._coverage.lcov_report(outfile=str(path))
            else:
                self._coverage.xml_report(outfile=str(path))
        except (OSError, coverage.CoverageException) as error:
            raise HarnessError(f"rule coverage can't be written to {path}: {error}") from None


def _contexts(places: Iterable[Place]) -> set[str]:
    # coverage.py writes them into a script, where a name could end it.
    return {
        f"{escape(name).translate(_PLAIN)} ({'decided' if name in place.decided else 'matched'})"
        for place in places
        for name in place.matched
    }


def _texts(results: Iterable[Result]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for result in results:
        for name, text in result.ruleset.texts.items() if result.ruleset else ():
            if texts.setdefault(name, text) != text:
                raise HarnessError(
                    f"{name} changed between the results, so that its lines cannot be told",
                    remedy="run all scenarios again",
                )
    return texts
