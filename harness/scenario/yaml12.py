"""ruamel.yaml's parser, for YAML 1.2 to the letter and for its reasons where a text is no YAML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError as MarkedYAMLError  # for those who catch it
from ruamel.yaml.scanner import Scanner, ScannerError

from harness.bounds import YAML_DEPTH

NESTED = "nested too deep"
"""The reason for refusing brackets in one another."""


def events(text: str) -> Iterator[Any]:
    """The events of a YAML text, in order; raises :class:`~ruamel.yaml.error.MarkedYAMLError` among them."""
    parser = YAML(typ="safe", pure=True)
    parser.Scanner = _Scanner
    found: Iterator[Any] = parser.parse(text)
    return found


class _Scanner(Scanner):
    """ruamel.yaml's, which takes minutes for a few thousand brackets in one another."""

    def fetch_flow_collection_start(self, token: Any, to_push: str) -> None:
        # It reads ahead of who walks over the events, and must not stop behind the place where that would.
        if len(self.indents) + len(self.flow_context) >= YAML_DEPTH:
            raise ScannerError(None, None, NESTED, self.reader.get_mark())
        super().fetch_flow_collection_start(token, to_push)
