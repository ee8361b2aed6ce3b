"""Mutants for people and CI: text, annotations, a page; see :mod:`harness.mutate.schema` for viewers of mutants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from harness.generate.pool import describe_send
from harness.mutate.results import MutantResult, RulesetResult, score, shown
from harness.text import command, counted, escape, html_page, html_text

TITLE = "no scenario guards this rule"
NOT_SEARCHED = "not found yet: the search was interrupted, or what it sent could not be measured"


def text(results: Sequence[RulesetResult]) -> str:
    """For a terminal."""
    lines = []
    for _, one in shown(results, "survived"):
        lines += [*_survivor(one), ""]
    equivalent = list(shown(results, "equivalent"))
    if equivalent:
        lines.append("probably equivalent: no packet that was tried distinguishes these from the original")
        lines += [
            f"  {_place(one)}: {escape(one.name)} ({counted(one.packets, 'packet')} tried)" for _, one in equivalent
        ]
        lines.append("")
    for status, words in (("unjudged", "no scenario could be run under these"), ("not run", "not run")):
        found = list(shown(results, status))
        if found:
            lines.append(f"{words}:")
            lines += [f"  {_place(one)}: {escape(one.name)}" for _, one in found[:10]]
            lines += [f"  and {len(found) - 10} more"] * (len(found) > 10)
            lines.append("")
    for result in results:
        lines += [f"not used: {escape(one)}" for one in result.unused]
        lines += [f"{escape(result.name)}: {escape(one)}" for one in result.left_out]
    return "\n".join([*lines, *_table(results)])


def _table(results: Sequence[RulesetResult]) -> Iterator[str]:
    """Score and numbers of each ruleset, and of all."""
    width = max([*(len(escape(one.name)) for one in results), 5])
    yield f"{'ruleset':{width}}  score  killed  survived  equivalent  other  scenarios  seconds"
    for one in results:
        numbers = (one.count("killed"), one.count("survived"), one.count("equivalent"))
        other = one.count("unjudged", "not run")
        yield (
            f"{escape(one.name):{width}}  {_percent(one.score):>5}  {numbers[0]:6}  {numbers[1]:8}  {numbers[2]:10}  "
            f"{other:5}  {len(one.scenarios):9}  {one.seconds:7.1f}"
        )
    missing = sum(one.status == "survived" and one.witness is None for result in results for one in result.mutants)
    if missing:
        yield f"no packet was found yet for {missing} of those that survived: they count in the score"
    kernels = ", ".join(dict.fromkeys(one.kernel for one in results))
    watched = ", ".join(dict.fromkeys(one.watched for one in results if one.watched))
    killed, survived = (sum(one.count(status) for one in results) for status in ("killed", "survived"))
    yield (
        f"mutation score {_percent(score(results))}: {killed} of {killed + survived} mutants that some packet "
        f"distinguishes from the original were killed (kernel {kernels}; {watched})"
    )


def _percent(value: float | None) -> str:
    """A score, rounded down: 100 % are all."""
    return "none" if value is None else f"{int(value)} %"


def _place(one: MutantResult) -> str:
    return escape(f"{one.position.file}:{one.position.line}" if one.position else one.chain)


def diff(one: MutantResult) -> Iterator[tuple[str, str]]:
    """Lines of a difference, each with its sign."""
    for before, after in one.texts:
        yield from (("-", before),) if before else ()
        yield from (("+", after),) if after else ()


def question(sends: Sequence[dict[str, object]]) -> str:
    """Packets as ``nft-harness ask`` takes them."""
    return ", then ".join(describe_send(send) for send in sends)


def _survivor(one: MutantResult) -> Iterator[str]:
    yield f"{_place(one)}: {escape(one.name)}"
    yield from (f"  {sign} {escape(line)}" for sign, line in diff(one))
    if one.witness is not None:
        yield f"    packet  {escape(one.witness.summary)}"
        yield f"    ask     {escape(question(one.witness.sends))}"
        yield f"    shows   {escape(one.witness.difference)}{_confirmed(one)}"
        if "→" not in one.witness.difference:
            for name, before, after in one.witness.details:
                yield f"    {name:10} {escape(before)}  →  {escape(after)}"
    else:
        yield f"    packet  {NOT_SEARCHED}"
    yield f"    {_came(one)}"


def _came(one: MutantResult) -> str:
    """Which scenarios might have noticed it."""
    number = len(one.covered_by)
    came = f"packets of {counted(number, 'scenario')} come here" if number else "no scenario's packet comes here"
    return came + (f"; {len(one.left_open)} of them could not be judged" if one.left_open else "")


def _confirmed(one: MutantResult) -> str:
    if one.witness is None:
        return ""
    return f" (confirmed with {one.witness.confirmed})" if one.witness.confirmed else " (not confirmed)"


def warnings(results: Sequence[RulesetResult]) -> Iterator[str]:
    """Workflow commands of GitHub: a warning at each line with survivors, as GitHub shows ten of a step."""
    found: dict[tuple[str, int], list[str]] = {}
    for _, one in shown(results, "survived"):
        if one.position is not None and one.witness is not None:
            words = f"{one.name}: {one.witness.summary}: {one.witness.difference}"
            found.setdefault((one.position.file, one.position.line), []).append(words)
    for (file, line), several in found.items():
        yield command("warning", {"file": file, "line": str(line), "title": TITLE}, "\n".join(several))


TITLES: Final = {
    "survived": "Survived",
    "equivalent": "Probably equivalent",
    "unjudged": "No scenario could be run under these",
    "not run": "Not run",
    "killed": "Killed",
}
UNUSUAL: Final = ("unjudged", "not run")
_STYLE = (
    "del{background:#f003;text-decoration:none}ins{background:#0f03;text-decoration:none}del,ins{display:block}"
    "summary{cursor:pointer}"
)


def as_html(results: Sequence[RulesetResult]) -> str:
    """One page that needs no network."""
    parts = [f"<h1>Mutation score {_percent(score(results))}</h1>"]
    parts.append(
        "<table><tr><th>ruleset<th>score<th>killed<th>survived<th>probably equivalent<th>other<th>kernel"
        "<th>seconds</tr>"
    )
    parts += [
        f"<tr><td>{html_text(one.name)}<td>{_percent(one.score)}<td>{one.count('killed')}<td>{one.count('survived')}"
        f"<td>{one.count('equivalent')}<td>{one.count('unjudged', 'not run')}<td>{html_text(one.kernel)}"
        f"<td>{one.seconds:.1f}</tr>"
        for one in results
    ]
    parts.append("</table>")
    for status, title in TITLES.items():
        found = [one for _, one in shown(results, status)]
        if not found and status in UNUSUAL:
            continue
        state = " open" if status == "survived" else ""
        parts.append(f"<details{state}><summary>{title}: {len(found)}</summary><table>")
        parts += [_row(one) for one in found]
        parts.append("</table></details>")
    parts += [f"<p>{html_text(sentence)}</p>" for one in results for sentence in (*one.unused, *one.left_out)]
    return html_page("nft-harness mutate", _STYLE, parts)


def _row(one: MutantResult) -> str:
    tags = {"-": "del", "+": "ins"}
    lines = "".join(f"<{tags[sign]}>{html_text(line)}</{tags[sign]}>" for sign, line in diff(one))
    if one.witness is not None:
        about = (
            f"<code>{html_text(one.witness.summary)}</code><br>{html_text(one.witness.difference + _confirmed(one))}"
            f"<br><code>{html_text(question(one.witness.sends))}</code><br>{html_text(_came(one))}"
        )
    elif one.status in UNUSUAL:
        about = ""
    else:
        tried = NOT_SEARCHED if one.status == "survived" else f"{counted(one.packets, 'packet')} tried"
        about = html_text(f"{one.killed_by}: {one.why}" if one.killed_by else tried)
    return f"<tr><td>{html_text(_place(one))}<td>{html_text(one.name)}<td><code>{lines}</code><td>{about}</tr>"
