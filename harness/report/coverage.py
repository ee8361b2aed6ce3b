"""Rule coverage, by coverage.py's reporters.

A line of an nft file counts as covered when every rule and policy that begins on it matched a
packet. The contexts of a line are the scenarios that did it. The elements of the sets that its rules
look into are its branches, as far as it is known whether they were met; those that were not are one
branch, for coverage.py shows no more than one missing of a line.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

try:
    import coverage
    from coverage.plugin import CoveragePlugin, FileReporter
    from coverage.plugin_support import Plugins
    from coverage.types import TArc, TLineNo
except ImportError as missing:
    from harness.errors import Unsupported

    raise Unsupported(f"rule coverage needs coverage.py ({missing})", remedy="pip install 'nft-harness[cov]'") from None

from harness.errors import HarnessError
from harness.model.result import Result
from harness.report.evaluated import CoveredRule, covered_rules
from harness.text import counted, escape

_PLAIN = str.maketrans("<>", "[]")


class _Ruleset(FileReporter):
    """An nft file, as it was during the run."""

    def __init__(self, name: str, text: str, branches: Mapping[int, Sequence[str]]) -> None:
        super().__init__(name)
        self._text = text
        self._branches = branches
        """What a packet may meet on each line that holds a rule or policy."""

    def source(self) -> str:
        return self._text

    def lines(self) -> set[int]:
        return set(self._branches)

    def arcs(self) -> set[TArc]:
        return {(line, _exit(number)) for line, several in self._branches.items() for number in range(len(several))}

    def exit_counts(self) -> dict[TLineNo, int]:
        return {line: len(several) for line, several in self._branches.items()}

    def missing_arc_description(self, start: TLineNo, end: TLineNo, executed_arcs: object = None) -> str:
        return f"no packet met {self.arc_description(start, end)}"

    def arc_description(self, start: TLineNo, end: TLineNo) -> str:
        return escape(self._branches[start][_exit(end)]).translate(_PLAIN)


def _exit(number: int) -> int:
    """The line, to coverage.py, that the branch ``number`` leads to, and back: one that is in no file."""
    return -2 - number


class _Rulesets(CoveragePlugin):
    def __init__(self, files: dict[str, _Ruleset]) -> None:
        self._files = files

    def file_reporter(self, filename: str) -> FileReporter | str:
        return self._files[filename]


class RuleCoverage:
    """The coverage of some results."""

    def __init__(self, results: Sequence[Result], folder: Path) -> None:
        """``folder`` is the one that the files' names are relative to.

        Raises :class:`~harness.errors.HarnessError` when a file changed from one result to the other.
        """
        self.places = covered_rules(results)
        texts = _texts(results)
        lines: dict[str, dict[int, list[CoveredRule]]] = defaultdict(lambda: defaultdict(list))
        for place in self.places:
            if place.position.file in texts:
                lines[place.position.file][place.position.line].append(place)
        files = {name: str((folder / name).absolute()) for name in lines}
        branches = {name: {line: _branches(met) for line, met in by_line.items()} for name, by_line in lines.items()}
        reporters = {
            files[name]: _Ruleset(files[name], texts[name], {line: list(names) for line, names in by_line.items()})
            for name, by_line in branches.items()
        }
        plugin = _Rulesets(reporters)

        def register(plugins: Plugins) -> None:
            plugins.add_file_tracer(plugin)

        self._coverage = coverage.Coverage(data_file=None, config_file=False, plugins=[register], messages=False)
        data = self._coverage.get_data()
        contexts: dict[str, dict[str, list[TArc]]] = defaultdict(lambda: defaultdict(list))
        for name, by_line in lines.items():
            for line, met in by_line.items():
                for context, arcs in _arcs(line, met, branches[name][line]):
                    contexts[context][files[name]] += arcs
        data.add_arcs({file: [] for file in reporters})  # so that it knows to be about branches, where none was met
        for context, covered in contexts.items():
            data.set_context(context)
            data.add_arcs(covered)
        for file in reporters:
            data.touch_file(file, plugin_name=plugin._coverage_plugin_name)
        self.percent = 100.0
        """Of the lines that hold rules or policies, and of their branches."""
        self._table = self._report() if reporters else ""

    def _report(self) -> str:
        out = io.StringIO()
        self.percent = self._coverage.report(show_missing=True, file=out)
        # A branch leads nowhere, which to coverage.py is an exit.
        return re.sub(r"\b(\d+)->exit(?:, \1->exit)*", r"\1 in part", out.getvalue())

    def lines(self) -> Iterator[str]:
        """Yield coverage.py's table and what of the rules no scenario met, for a terminal."""
        yield from self._table.splitlines() or ["no rule of any ruleset was found in its file: nothing to cover"]
        rules = [place for place in self.places if not place.is_policy]
        if self._table and rules:
            met = sum(bool(place.matched) for place in rules)
            yield f"{met} of {counted(len(rules), 'rule')} met; Cover counts policies and elements of sets as well"
        yield from _listed("not fully met:", self.places, _missed)
        if self._table:
            yield from _clauses(self.places)

    def shortfall(self, least: float | None) -> str:
        """Return a sentence when less than ``least`` percent is covered, else ""."""
        if least is None or self.percent >= least:
            return ""
        return f"rule coverage is {self.percent:.1f} %, and {least:g} % were asked for"

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


def _listed(
    title: str, places: Iterable[CoveredRule], remarks: Callable[[CoveredRule], Iterator[tuple[str, str]]]
) -> Iterator[str]:
    """The remarks on places in columns, below a title; nothing where there are none."""
    rows = [
        (f"{place.position.file}:{place.position.line}", place.chain_path, *remark)
        for place in places
        for remark in remarks(place)
    ]
    if rows:
        yield ""
        yield title
    widths = [max(len(escape(row[column])) for row in rows) for column in range(3)] if rows else []
    for row in rows:
        cells = [escape(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join(["", *cells, escape(row[3])])


def _clauses(places: Sequence[CoveredRule]) -> Iterator[str]:
    """How many matches, policies, jumps and elements were seen to decide; and the matches that were not."""
    matches = [one for place in places for one in place.clauses.values()]
    both = sum(bool(one.held and one.failed) for one in matches)
    open_ = sum(bool(one.missing) and one.is_open for one in matches)
    policies = [place for place in places if place.is_policy]
    jumps = [place for place in places if not place.is_policy and _JUMPS.search(place.text)]
    elements = [bool(names) for place in places for names in place.elements.values()]
    unclear = sum(len(place.unclear_only) for place in places)
    counts = [
        f"{both} of {counted(len(matches), 'match')} seen to hold and to fail" + f" ({open_} not known)" * bool(open_),
        f"{sum(bool(one.decided) for one in policies)} of {counted(len(policies), 'policy')} decided",
        f"{sum(bool(one.matched) for one in jumps)} of {counted(len(jumps), 'rule')} with a jump matched",
        f"{sum(elements)} of {counted(len(elements), 'element')} met" + f" ({unclear} not known)" * bool(unclear),
    ]
    yield ""
    yield f"clauses: {', '.join(counts)}"
    yield from _listed("matches not seen to hold and to fail:", places, _half_seen)


_JUMPS = re.compile(r"(?<!\S)(?:jump|goto) ")


def _half_seen(place: CoveredRule) -> Iterator[tuple[str, str]]:
    """The remark on each match of a rule that a packet came to, of which not both was seen."""
    if not place.evaluated:
        return  # the rule is listed already
    for match, seen in place.clauses.items():
        if seen.missing:
            yield seen.missing, match


def _missed(place: CoveredRule) -> Iterator[tuple[str, str]]:
    """The remark on a place that was not met, or on its elements that were not."""
    if not place.matched:
        yield place.status, place.text
        return
    if place.missed:
        yield "elements never met", f"{', '.join(place.missed)} of: {place.text}"
    if place.unclear_only:
        yield "elements not known", f"{', '.join(place.unclear_only)} of: {place.text}"


def _branches(places: Iterable[CoveredRule]) -> dict[str, set[str]]:
    """What a packet may meet on a line, as far as it is known whether one did; with the scenarios that met it."""
    branches: dict[str, set[str]] = {}
    missed: list[str] = []
    for place in places:
        for element, names in place.elements.items():
            if names:
                branches.setdefault(element, set()).update(names)
        missed += place.missed
        if place.unclear_only and not any(place.elements.values()):
            branches[f"one of {', '.join(place.unclear_only)}"] = set(place.matched)
    if missed:
        branches[", ".join(missed)] = set()
    return branches if len(branches) > 1 else {}


def _arcs(
    line: int, places: Sequence[CoveredRule], branches: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, list[TArc]]]:
    """What each scenario has executed of a line, in coverage.py's terms; nothing unless all its rules matched."""
    if all(place.matched for place in places):
        for context, scenario in _contexts(places):
            met = (number for number, names in enumerate(branches.values()) if scenario in names)
            yield context, [(-1, line), *((line, _exit(number)) for number in met)]


def _contexts(places: Iterable[CoveredRule]) -> set[tuple[str, str]]:
    """What coverage.py is to call the scenarios that met ``covered_rules``, and their names."""
    # coverage.py writes them into a script, where a name could end it.
    return {
        (f"{escape(name).translate(_PLAIN)} ({'decided' if name in place.decided else 'matched'})", name)
        for place in places
        for name in place.matched
    }


def _texts(results: Iterable[Result]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for result in results:
        for name, text in result.ruleset.texts.items() if result.ruleset else ():
            if texts.setdefault(name, text) != text:
                raise HarnessError(
                    f"{name} changed between the results, so its lines cannot be attributed",
                    remedy="run all scenarios again",
                )
    return texts
