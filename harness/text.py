"""Untrusted text where it is shown: names, rules, file names, error messages, output of a guest.

Whatever shows such text calls the function of its language:

- a cell, a name, a part of a sentence: :func:`escape`
- lines of a terminal or of a CI job's log: :func:`lines`, :func:`say`
- Markdown: :func:`markdown`; Mermaid: :func:`mermaid`
- workflow commands of GitHub: :func:`command`
- HTML: :func:`html_text`; jinja2's autoescape, of escaped text (:mod:`harness.report.html`)
- JSON, SARIF and XML: their encoders
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final, TextIO

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
"""Select Graphic Rendition (ECMA-48, 8.3.117): it changes how text looks, and moves nothing."""
_COMMAND = re.compile(r"^((?:\s|\x1b\[[0-9;]*m)*):(?=:.*::)")
"""``::error::…`` at the beginning of a line is a command to GitHub's runner (ActionCommand.cs, TryParseV2)."""
_OLD_COMMAND = re.compile(r"#(?=(?:\x1b\[[0-9;]*m)*#(?:\x1b\[[0-9;]*m)*\[)")
"""So is ``##[error]…`` anywhere in it (TryParse)."""

_MARKS = re.compile(r"\^[\^~ ]*|~+\^?~*")


def escape(text: str) -> str:
    """Return ``text`` on one line, with control and other unprintable characters spelled out: ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def numbers_in(text: str) -> list[int]:
    """The numbers in ``text``: kernel releases, versions and names of packages are ordered by them."""
    return [int(number) for number in re.findall(r"\d+", text)]


def counted(number: int, noun: str) -> str:
    """Return ``number`` with ``noun`` in the number that it takes: ``1 packet``, ``2 more policies``, ``0 matches``."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith('ch') else 's'}"


def last_sentence(printed: str, otherwise: str = "it printed nothing") -> str:
    """The last sentence that a program has ``printed``, for which it ended, or ``otherwise``.

    nft, Python and compilers print the line that an error is about, and marks below it, behind the sentence.
    """
    said = [line.strip() for line in printed.splitlines() if line.strip()]
    while said and _MARKS.fullmatch(said[-1]):
        del said[-2:]
    return said[-1] if said else otherwise


def lines(text: str, *, colour: bool = False) -> str:
    """Return the lines of ``text`` as a terminal may show them: nothing moves the cursor or is a workflow command.

    ``colour`` keeps colours. Tabs stay.
    """
    return "\n".join(_line(one, colour) for one in text.split("\n"))


def _line(text: str, colour: bool) -> str:
    parts = _COLOUR.split(text) if colour else [text]
    shown = "".join(
        part if number % 2 else "\t".join(map(escape, part.split("\t"))) for number, part in enumerate(parts)
    )
    return _OLD_COMMAND.sub(r"\\x23", _COMMAND.sub(r"\1\\x3a", shown))


def say(text: object, stream: TextIO | None = None) -> None:
    """Print ``text`` in lines that :func:`lines` makes, to standard output or ``stream``."""
    print(lines(str(text)), file=stream or sys.stdout, flush=True)


COLOURS: Final = {"red": 31, "green": 32, "yellow": 33}
"""Select Graphic Rendition by name."""


def in_colour(stream: TextIO | None = None) -> bool:
    """Whether ``stream`` (default: standard output) is a terminal whose reader has not refused colour: no-color.org."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour(name: str, text: str) -> str:
    """Return ``text``, which is escaped already, in one of :data:`COLOURS`."""
    return f"\x1b[{COLOURS[name]}m{text}\x1b[0m"


def markdown(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, on one line and not at the beginning of it."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$@!])", r"\\\1", escape(text))


def html_text(text: str) -> str:
    """``text`` as it stands in HTML, in an element or an attribute in quotes."""
    from html import escape as quote  # with a table of 2,200 characters' names, which no guest needs

    return quote(escape(text))


def html_page(title: str, style: str, parts: Iterable[str]) -> str:
    """A page of ``parts``, which are HTML, with ``style`` besides the usual; it has no script and loads nothing."""
    head = (
        f"<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>{html_text(title)}</title>\n"
        "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em}"
        "table{border-collapse:collapse;width:100%}td,th{border:1px solid #8884;padding:.3em .6em;text-align:left;"
        f"vertical-align:top}}code{{overflow-wrap:anywhere}}{style}</style>"
    )
    return "\n".join([head, *parts, "</html>\n"])


def mermaid(*texts: str) -> str:
    """Return a quoted label of these lines; what Mermaid or a browser could take for their own is spelled by number."""
    safe = [re.sub(r"[^\w .,:/()→…-]", lambda found: f"#{ord(found[0])};", escape(one)) for one in texts]
    return f'"{"<br>".join(safe)}"'


_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def command(name: str, properties: Mapping[str, str], text: str) -> str:
    """Return a workflow command of GitHub; properties that are empty are left out.

    Source: github.com/actions/runner, src/Runner.Common/ActionCommand.cs.
    """
    written = ",".join(f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items() if value)
    return f"::{name} {written}::{text.translate(_DATA)}"
