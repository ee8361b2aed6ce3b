"""What packets leave behind in a ruleset: counts and the elements of sets. See libnftables-json(5)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from harness.errors import HarnessError
from harness.lab.lab import Host
from harness.nft_syntax import is_object
from harness.ruleset.nft import Nft, NftError, counted


class MissingError(HarnessError):
    """The ruleset has no such counter, set or map; ``name`` is it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"the ruleset has no {what} {name}", remedy="write family, table and name as nft lists them")
        self.name = name


def counters(nft: Nft, names: Iterable[str]) -> dict[str, int]:
    """Packets counted by the counters ``names``, each ``family table name``."""
    return {name: _object(nft, name, "counter")["packets"] for name in names}


def every_counter(nft: Nft) -> dict[str, int]:
    """Packets counted by all named counters, by ``family table name``."""
    found = (one["counter"] for one in nft.ask({"list": {"counters": None}}) if "counter" in one)
    return {f"{one['family']} {one['table']} {one['name']}": one["packets"] for one in found}


def counts_of_rules(host: Host) -> dict[str, int]:
    """Packets counted by the counter statements of rules, by ``family table chain handle``; not those with none."""
    found = host.namespace.call(counted)
    return {" ".join(map(str, handle)): packets for handle, packets in found.items() if packets}


def elements(nft: Nft, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What the sets and maps ``names``, each ``family table name``, hold; of a map the keys."""
    found = {}
    for name in names:
        held = _object(nft, name, "set", "map").get("elem", [])
        found[name] = tuple(_text(one[0] if isinstance(one, list) else one) for one in held)
    return found


def kept(nft: Nft, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """As :func:`elements`, and for how long each is kept that is not kept for good: ``192.0.2.1 timeout 600s``."""
    found = {}
    for name in names:
        what = _object(nft, name, "set", "map")
        held = [one[0] if isinstance(one, list) else one for one in what.get("elem", [])]
        found[name] = tuple(f"{_text(one)}{_timeout(one, what.get('timeout'))}" for one in held)
    return found


def _timeout(element: Any, usual: int | None) -> str:
    """For how long an element is kept, in nft's words."""
    own = _stays(element, usual)
    return f" timeout {own}s" if own else ""


def _stays(element: Any, usual: int | None) -> int | None:
    """Seconds that an element stays: nft lists those of one only where they are others than its set's, ``usual``."""
    own: int | None = (
        element["elem"].get("timeout", usual) if isinstance(element, dict) and "elem" in element else usual
    )
    return own


def loaded_timeouts(nft: Nft, names: Iterable[str]) -> dict[str, list[int]]:
    """Seconds that each element of the sets and maps ``names`` stays which does not stay for good."""
    found = {}
    for name in names:
        what = _object(nft, name, "set", "map")
        held = (_stays(one[0] if isinstance(one, list) else one, what.get("timeout")) for one in what.get("elem", []))
        found[name] = [timeout for timeout in held if timeout]
    return found


def lasting(nft: Nft, names: Iterable[str]) -> dict[str, int | None]:
    """Seconds that elements of the sets and maps ``names`` stay, as far as these say; None where they stay for good.

    Where only rules say it, it is the shortest that nft lists: a second.
    """
    found = {}
    for name in names:
        what = _object(nft, name, "set", "map")
        found[name] = what.get("timeout") or (1 if "timeout" in what.get("flags", ()) else None)
    return found


def members(nft: Nft, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What the sets and maps ``names`` hold, of a map as ``key : value``; those that are not there are left out."""
    found = {}
    for name in names:
        with suppress(MissingError):
            held = _object(nft, name, "set", "map").get("elem", [])
            found[name] = tuple(" : ".join(map(_text, one)) if isinstance(one, list) else _text(one) for one in held)
    return found


def _object(nft: Nft, name: str, *kinds: str) -> dict[str, Any]:
    if not is_object(name):
        raise MissingError(name, " or ".join(kinds))
    keys = dict(zip(("family", "table", "name"), name.split(), strict=True))
    for kind in kinds:
        with suppress(NftError):
            for one in nft.ask({"list": {kind: keys}}):
                if kind in one:
                    found: dict[str, Any] = one[kind]
                    return found
    raise MissingError(name, " or ".join(kinds))


def _text(element: Any) -> str:
    """An element in nft's words, without its timeout, counter and comment."""
    match element:
        case {"elem": {"val": value}}:
            return _text(value)
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{_text(first)}-{_text(last)}"
        case {"concat": parts}:
            return " . ".join(map(_text, parts))
        case {"jump": {"target": chain}}:
            return f"jump {chain}"
        case {"goto": {"target": chain}}:
            return f"goto {chain}"
        case dict() if list(element.values()) == [None]:  # any other verdict
            return str(next(iter(element)))
    return str(element)
