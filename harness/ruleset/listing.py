"""What ``nft --handle list ruleset`` prints, read back: chains, and rules with their handles.

nft's JSON has no text of rules and, in 1.0.6, no devices of chains.

A rule may hold rules: ``tcp dport 22 jump { … }``. For nf_tables the block is a chain with a name
like ``__chain7``; nft prints neither that name nor handles inside, so these come from the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from harness.errors import Position
from harness.model.observation import Lasting, Place


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain as loaded; only a base chain has a hook."""

    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = ""
    devices: tuple[str, ...] = ()
    """Of a chain at ingress or egress."""
    position: Position | None = None
    """Where its policy is written, or its hook if that is not; None when that was not found."""

    @property
    def is_base(self) -> bool:
        """Whether packets enter here by a hook."""
        return bool(self.hook)


class ListedRule(NamedTuple):
    """A rule as nft lists it."""

    family: str
    table: str
    chain: str
    handle: int
    text: str
    comment: str
    block: str = ""
    """Name of the chain that stands in the rule itself."""

    @property
    def place(self) -> Place:
        """As of :attr:`harness.model.observation.Rule.place`."""
        return self.family, self.table, self.chain, self.handle


class Handle(NamedTuple):
    """A rule of a block as the kernel lists it."""

    family: str
    table: str
    chain: str
    handle: int


ANONYMOUS: Final = re.compile(r"__chain(\d+)$")
"""Name of a block, with the order of creation (nf_tables_addchain in net/netfilter/nf_tables_api.c)."""

_HANDLE = re.compile(r" # handle (\d+)$")
_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_TABLE_HANDLE = re.compile(r"^table (\S+) (\S+) \{ # handle (\d+)$", re.MULTILINE)
_TABLES = re.compile(r"^(?=table )", re.MULTILINE)
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_OBJECT = re.compile(
    r"^\t(?P<kind>set|map|limit|ct timeout) (?P<name>\S+) \{(?: # handle \d+)?\n(?P<body>(?:\t\t.*\n)*)\t\}$",
    re.MULTILINE,
)
_TIMEOUT = re.compile(r"^\t\ttimeout (\S+)$", re.MULTILINE)
_STAYS = re.compile(r"\btimeout (\w+)")
_ELEMENTS = re.compile(r"\belements?\b[^{};]*\{([^{}]*)\}")
_QUOTED = re.compile(r'"[^"]*"')
_POLICY = re.compile(r"^\t\tpolicy = \{([^}]*)\}", re.MULTILINE)
_LIMIT = re.compile(r"\blimit rate (?:over )?\d+(?: \w+)?/\w+(?: burst \d+ \w+)?")
_SIZE = re.compile(r"^\t\tsize (\d+)$", re.MULTILINE)
_TIMED = re.compile(r"^\t\tflags (?:\w+,)*timeout\b", re.MULTILINE)
_BASE = re.compile(
    r"^\t\ttype (?P<type>\S+) hook (?P<hook>\S+)(?: devices? (?:= )?(?P<devices>\{[^}]*\}|\S+))?"
    r" priority (?P<priority>-?\d+);(?: policy (?P<policy>\S+);)?"
)
_COMMENT = re.compile(r'(?:^|\s)comment "([^"]*)"$')
_OF_CHAIN = re.compile(r'^\t\t(?:comment "[^"]*"|flags [^;]*;|policy \S+;)$')
"""Lines of a chain that are neither a rule nor its hook."""
_OPENS_BLOCK = re.compile(r"(?:^|\s)(?:jump|goto) \{$")


def tables(listing: str) -> dict[tuple[str, str], int]:
    """The handles of the tables in ``listing``, by family and name. A table that is made anew has another one."""
    return {(found[1], found[2]): int(found[3]) for found in _TABLE_HANDLE.finditer(listing)}


def without_table(listing: str, name: str) -> str:
    """``listing`` without the tables called ``name``, and without the handles of tables."""
    kept = (one for one in _TABLES.split(listing) if one and _named(one) != name)
    return "".join(_TABLE_HANDLE.sub(r"table \1 \2 {", one) for one in kept)


def _named(table: str) -> str:
    found = _TABLE.match(table)
    return found[2] if found else ""


def timeouts(listing: str) -> dict[str, str]:
    """The timeouts of the sets and maps in ``listing`` whose elements may expire, by family, table and name; "" where
    each element has one of its own."""
    found = {}
    for _, name, body in _objects(listing, "set", "map"):
        if timeout := _TIMEOUT.search(body):
            found[name] = timeout[1]
        elif _TIMED.search(body):
            found[name] = ""
    return found


def of_elements(texts: Iterable[str]) -> str:
    """What elements in the rulesets ``texts`` have of their own that is not of their set: timeouts and limits."""
    found = (one for text in texts for one in _ELEMENTS.findall(text) if "timeout" in one or "limit" in one)
    return "; ".join(_QUOTED.sub("", one) for one in found)


def limits(listing: str, elements: str = "") -> dict[str, str]:
    """The named limits in ``listing``, by family, table and name, each as a rule would have it.

    By family, table and ``@name``, those that sets and maps have for each of their elements, one behind the other;
    ``elements``, as of :func:`of_elements`, may have others.
    """
    found = {}
    for kind, named, body in _objects(listing, "limit", "set", "map") if "limit" in listing else ():
        if kind == "limit":
            found[named] = f"limit {' '.join(body.split())}"
        elif of_each := _LIMIT.findall(body):
            table, _, name = named.rpartition(" ")
            found[f"{table} @{name}"] = "; ".join(dict.fromkeys([*of_each, *_LIMIT.findall(elements)]))
    return found


def sizes(listing: str) -> dict[str, int]:
    """How many elements the sets and maps in ``listing`` take which say so, by family, table and ``@name``."""
    found = {}
    for _, named, body in _objects(listing, "set", "map"):
        if size := _SIZE.search(body):
            table, _, name = named.rpartition(" ")
            found[f"{table} @{name}"] = int(size[1])
    return found


def _objects(listing: str, *kinds: str) -> Iterator[tuple[str, str, str]]:
    """The objects of ``kinds`` in ``listing``: kind, family with table and name, and the lines between the braces."""
    for table in _TABLES.split(listing):
        if named := _TABLE.match(table):
            for found in _OBJECT.finditer(table):
                if found["kind"] in kinds:
                    yield found["kind"], f"{named[1]} {named[2]} {found['name']}", found["body"]


def read(listing: str, handles: Iterable[Handle] = ()) -> tuple[tuple[Chain, ...], tuple[ListedRule, ...]]:
    """Chains and rules of ``listing``, in its order; ``handles`` are those of the rules in blocks."""
    chains: list[Chain] = []
    rules: list[ListedRule] = []
    blocks: dict[ListedRule, list[str]] = {}
    family = table = chain = ""
    pending: list[str] = []
    for line in listing.splitlines():
        if found := _TABLE.match(line):
            family, table = found.groups()
        elif found := _CHAIN.match(line):
            chain = found[1]
            chains.append(Chain(family=family, table=table, name=chain))
        elif line == "\t}":
            chain = ""
        elif not chain:
            continue  # a set or another object
        elif not pending and (base := _BASE.match(line)):
            chains[-1] = Chain(
                family=family,
                table=table,
                name=chain,
                type=base["type"],
                hook=base["hook"],
                priority=int(base["priority"]),
                policy=base["policy"] or "accept",
                devices=tuple(re.findall(r"[^\s{},\"]+", base["devices"] or "")),
            )
        elif not pending and (_OF_CHAIN.match(line) or not line.strip()):
            continue
        else:
            # A rule ends with its handle; until then it may take several lines.
            pending.append(line.strip())
            if handle := _HANDLE.search(line):
                pending[-1] = _HANDLE.sub("", pending[-1])
                inside = pending[1:-1] if _OPENS_BLOCK.search(pending[0]) else []
                text = " ".join([pending[0], *(f"{rule};" for rule in inside), pending[-1]] if inside else pending)
                rules.append(ListedRule(family, table, chain, int(handle[1]), text, _comment(text)))
                if inside:
                    blocks[rules[-1]] = inside
                pending.clear()
    return tuple(chains), tuple(_with_blocks(rules, blocks, handles))


_DURATION = re.compile(r"(\d+)(ms|[wdhms]?)")
_SECONDS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1, "": 1, "ms": 0.001}
_ADDED = re.compile(r"\b(?:add|update) @(?P<name>[\w./-]+) \{[^}]*?\btimeout (?P<time>\w+)")

_DELETED = re.compile(r"\bdelete (?P<name>@[\w./-]+) \{")


def seconds(duration: str) -> float:
    """What nft calls ``1h30m``."""
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def added(rules: str) -> Iterator[tuple[str, float]]:
    """The sets and maps to which ``rules`` add elements with a timeout of their own, and its seconds."""
    return ((found["name"], seconds(found["time"])) for found in _ADDED.finditer(rules))


def deleted(rule: str) -> Iterator[str]:
    """The sets and maps of which ``rule`` deletes elements."""
    return (found["name"] for found in _DELETED.finditer(rule))


def lasting(listing: str, elements: str = "") -> tuple[Lasting, ...]:
    """For how long elements of sets stay, and connections by policies of timeouts, as ``listing`` says; of each the
    shortest. ``elements``, as of :func:`of_elements`, may have others."""
    found: dict[str, Lasting] = {}
    own = min((seconds(one) for one in _STAYS.findall(elements)), default=None)
    for one in _each_lasting(listing, own) if "timeout" in listing else ():
        found[one.what] = min(found.get(one.what, one), one, key=attrgetter("seconds"))
    return tuple(found.values())


def _each_lasting(listing: str, own: float | None) -> Iterator[Lasting]:
    for kind, named, body in _objects(listing, "set", "map", "ct timeout"):
        name = named.rpartition(" ")[2]
        if kind != "ct timeout":
            yield from (_of_set(name, seconds(one[1])) for one in _TIMEOUT.finditer(body))
            if own is not None and _TIMED.search(body):
                yield _of_set(name, own)
        elif policy := _POLICY.search(body):
            times = [seconds(entry.rpartition(":")[2]) for entry in policy[1].split(",") if ":" in entry]
            yield Lasting(f"a connection by the ct timeout {name}", min(times, default=0.0))
    yield from (_of_set(*one) for one in added(listing))


def _of_set(name: str, time: float) -> Lasting:
    return Lasting(f"an element of set {name}", time, f"@{name}")


def _with_blocks(
    rules: Iterable[ListedRule], blocks: Mapping[ListedRule, list[str]], handles: Iterable[Handle]
) -> Iterator[ListedRule]:
    """Each rule, followed by those of its block where the kernel's list leaves no doubt which they are."""
    names: dict[tuple[str, str], dict[str, list[int]]] = {}
    for one in handles:
        names.setdefault((one.family, one.table), {}).setdefault(one.chain, []).append(one.handle)
    found: dict[ListedRule, tuple[str, list[int]]] = {}
    for table, chains in names.items():
        holders = sorted((rule for rule in blocks if (rule.family, rule.table) == table), key=lambda rule: rule.handle)
        # nft makes the chain of a block just before the rule that holds it.
        created = sorted(chains.items(), key=lambda chain: int(ANONYMOUS.sub(r"\1", chain[0])))
        if [len(blocks[rule]) for rule in holders] == [len(inside) for _, inside in created]:
            found |= dict(zip(holders, created, strict=True))
    for rule in rules:
        name, inside = found.get(rule, ("", []))
        yield rule._replace(block=name)
        for handle, text in zip(sorted(inside), blocks.get(rule, []), strict=False):
            yield ListedRule(rule.family, rule.table, name, handle, text, _comment(text))


def _comment(text: str) -> str:
    found = _COMMENT.search(text)
    return found[1] if found else ""
