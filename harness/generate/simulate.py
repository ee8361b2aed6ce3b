"""What a ruleset would do with a packet, as far as that can be known without a kernel.

This is a guess, made to choose packets: the kernel shows afterwards which rules they meet. An
expression that is not understood is *unknown*; it holds where that leads to the rule looked for.
See libnftables-json(5) for the form of rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

import msgspec

from harness.generate import names
from harness.generate.expressions import UNKNOWN, Fields, choices, contains, element, field, unpacked, value
from harness.generate.facts import Facts
from harness.model.observation import Place

ChainKey = tuple[str, str, str]

MANY: Final = 1000
"""Packets, where it takes more than anybody would write down."""
SURE_RATE: Final = 0.1
"""Packets a second that are sent however slow the machine is, emulated and busy."""
SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
DEPTH: Final = 16
"""Chains that call one another: NFT_JUMP_STACK_SIZE."""
FINAL: Final = ("accept", "drop", "reject", "queue")
NAT: Final = ("dnat", "snat", "masquerade", "redirect")
WRITTEN: Final = ("dscp", "ttl")
"""Fields of a header that rules write, and later ones look at."""
_TRACKING: Final = (*NAT, "flow", "synproxy", "ct count", "ct helper", "ct timeout", "ct expectation")


class SimulatedRule(NamedTuple):
    """A rule as nft shows it."""

    key: Place
    statements: Sequence[tuple[str, Any]]
    """Each statement's word, and what follows it."""


class SimulatedChain(NamedTuple):
    """A chain; only a base chain has a hook."""

    family: str
    table: str
    name: str
    hook: str
    kind: str
    priority: int
    policy: str
    devices: tuple[str, ...]
    rules: tuple[SimulatedRule, ...]

    @property
    def key(self) -> Place:
        """Of its policy."""
        return self.family, self.table, self.name, 0


class VerdictReached(Exception):
    """A verdict that ends a chain and those that called it."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class Traversal(msgspec.Struct):
    """What became of a packet."""

    met: list[Place]
    """Rules that matched and policies that decided, in order."""
    verdict: str
    fields: Fields
    """The packet at the end, after NAT."""
    came: dict[Place, int] = {}
    """How many rules of each chain it came to, matched or not; chains by the keys of their policies."""
    added: dict[ChainKey, list[Any]] = {}
    """Elements that it added to sets, by family, table and name of the set."""


class SimulatedRuleset:
    """A ruleset that packets can be tried on."""

    def __init__(self, facts: Facts) -> None:
        self.sets: dict[ChainKey, list[Any]] = {}
        devices = {(one.family, one.table, one.name): one.devices for one in facts.chains}
        rules: dict[ChainKey, list[SimulatedRule]] = defaultdict(list)
        for kind, what in (next(iter(one.items())) for one in facts.objects):
            if kind in ("set", "map"):
                self.sets[what["family"], what["table"], what["name"]] = what.get("elem", [])
            elif kind == "rule":
                place = what["family"], what["table"], what["chain"]
                statements = tuple(map(_statement, what.get("expr", ())))
                rules[place].append(SimulatedRule((*place, what["handle"]), statements))
        self.chains = {
            (what["family"], what["table"], what["name"]): SimulatedChain(
                family=what["family"],
                table=what["table"],
                name=what["name"],
                hook=what.get("hook", ""),
                kind=what.get("type", ""),
                priority=what.get("prio", 0),
                policy=what.get("policy", "accept"),
                devices=devices.get((what["family"], what["table"], what["name"]), ()),
                rules=tuple(rules.get((what["family"], what["table"], what["name"]), ())),
            )
            for what in (one["chain"] for one in facts.objects if "chain" in one)
        }
        self.learned: dict[ChainKey, list[Any]] = {}
        """Elements that packets have added to sets until now, see :meth:`learning`."""
        self.evaluated = 0
        """How many rules packets were compared with until now: what simulations cost."""
        self._callers: dict[ChainKey, list[SimulatedRule]] = defaultdict(list)
        for chain in self.chains.values():
            for rule in chain.rules:
                for target in dict.fromkeys(self.targets(rule)):
                    self._callers[chain.family, chain.table, target].append(rule)

    def is_tracked(self, family: str) -> bool:
        """Whether connections are tracked for packets of chains of ``family``: the kernel begins that for a rule that
        needs it (``nf_ct_netns_get()``), which a chain of type nat alone does not."""
        families = {"inet": ("inet", "ip", "ip6")}.get(family, (family, "inet"))
        return any(
            chain.family in families and any(map(_tracks, rule.statements))
            for chain in self.chains.values()
            for rule in chain.rules
        )

    @contextmanager
    def learning(self, *added: Mapping[ChainKey, list[Any]]) -> Iterator[None]:
        """Have sets those elements as well that packets ``added``; as long as the ``with`` lasts."""
        before = self.learned
        self.learned = {key: list(elements) for key, elements in before.items()}
        for one in added:
            for key, elements in one.items():
                self.learned.setdefault(key, []).extend(elements)
        try:
            yield
        finally:
            self.learned = before

    def callers(self, chain: SimulatedChain) -> Sequence[SimulatedRule]:
        """The rules that lead into ``chain``."""
        return self._callers.get((chain.family, chain.table, chain.name), ())

    def is_reached(self, chain: SimulatedChain) -> bool:
        """Whether rules lead from a base chain to ``chain``, or it is one."""
        return bool(chain.hook) or any(self.chains[key].hook for key in self.callers_of(chain))

    def callers_of(self, chain: SimulatedChain) -> set[ChainKey]:
        """The chains from which rules lead to ``chain``, by others or directly."""
        seen: set[ChainKey] = set()
        waiting = [chain]
        while waiting:
            for rule in self.callers(waiting.pop()):
                if rule.key[:3] not in seen:
                    seen.add(rule.key[:3])
                    waiting.append(self.chains[rule.key[:3]])
        return seen

    def targets(self, rule: SimulatedRule) -> Iterator[str]:
        """The chains that ``rule`` may jump to."""
        for word, what in rule.statements:
            verdicts = [{word: what}]
            if word == "vmap":
                verdicts = [verdict for _, verdict in self.elements(rule, what)]
            for verdict in verdicts:
                yield from jumps(verdict)

    def empty(self, rule: SimulatedRule) -> Iterator[str]:
        """The named sets that ``rule`` looks into and that have no element."""
        for word, what in rule.statements:
            right = what.get("right") if word == "match" else what.get("data") if word == "vmap" else None
            if isinstance(right, str) and right.startswith("@") and not self.members(rule, right):
                yield right[1:]

    def elements(self, rule: SimulatedRule, mapping: Any) -> list[tuple[Any, Any]]:
        """Pairs of key and value of a map."""
        found = self.members(rule, mapping.get("data")) if isinstance(mapping, Mapping) else []
        return [(one[0], one[1]) for one in found if isinstance(one, list) and len(one) == 2]

    def members(self, rule: SimulatedRule, right: Any) -> list[Any]:
        """Elements of a set or map, written in the rule or named."""
        if isinstance(right, str) and right.startswith("@"):
            key = (*rule.key[:2], right[1:])
            return [*self.sets.get(key, []), *self.learned[key]] if key in self.learned else self.sets.get(key, [])
        if isinstance(right, Mapping) and "set" in right:
            elements = right["set"]
            return elements if isinstance(elements, list) else [elements]
        return [right]

    # -- a packet ---------------------------------------------------------------------------------

    def evaluate(self, chain: SimulatedChain, way: Traversal, wanted: frozenset[Place]) -> str:
        """The verdict of a base chain."""
        try:
            _Evaluation(self, way, wanted).chain(chain, 0)
        except VerdictReached as ended:
            return ended.verdict
        way.met.append(chain.key)
        return chain.policy

    def holds(self, rule: SimulatedRule, match: Mapping[str, Any], fields: Fields) -> bool | None:
        """Whether a match holds; None for unknown."""
        left = match["left"]
        found = value(left, fields)
        if found is None:
            return False  # the packet has no such field, not even a different one
        if found is UNKNOWN:
            return None
        operator, members = match["op"], self.members(rule, match["right"])
        if operator in ("<", ">", "<=", ">="):
            a, b = (names.number(one, field(left), fields.get("proto")) for one in (found, members[0]))
            if a is None or b is None:
                return None
            return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[operator]
        if field(left) in ("state", "status"):
            holds = choices(found, members)
        elif operator in ("in", "!") and field(left) == "flags":
            holds = bool((names.flags(found) or 0) & (names.flags(members if len(members) > 1 else members[0]) or 0))
        else:
            holds = any(contains(left, found, one, fields) for one in members)
        return not holds if operator in ("!=", "!") else holds

    def look_up(self, rule: SimulatedRule, mapping: Mapping[str, Any], fields: Fields) -> Any:
        """The value that a map has for a packet; None for none, UNKNOWN where its key is not known."""
        key = value(mapping["key"], fields)
        if key is None or key is UNKNOWN:
            return key
        for member, found in self.elements(rule, mapping):
            if isinstance(key, frozenset) and choices(key, [member]):
                return found
            if member == "*" or contains(mapping["key"], key, member, fields):
                return found
        return None


def jumps(verdict: Any) -> Iterator[str]:
    """The chain that a verdict leads to, if it does."""
    word, what = unpacked(verdict)
    if word in ("jump", "goto") and isinstance(what, Mapping) and isinstance(what.get("target"), str):
        yield what["target"]


def _tracks(statement: tuple[str, Any]) -> bool:
    """Whether a statement needs connection tracking."""
    word, what = statement
    return word in _TRACKING or "'ct'" in repr(what) or "'ct " in repr(what)


def _statement(statement: Any) -> tuple[str, Any]:
    """A statement's word, and what follows it; nft prints some without an object, and some as text."""
    word, what = unpacked(statement)
    return (word, what) if word else (str(statement), None)


class _Evaluation:
    """A packet on its way through the chains of one hook."""

    def __init__(self, ruleset: SimulatedRuleset, way: Traversal, wanted: frozenset[Place]) -> None:
        self._ruleset = ruleset
        self._fields = way.fields
        self._way = way
        self._wanted = wanted
        self._returned = False

    def chain(self, chain: SimulatedChain, depth: int) -> None:
        """Evaluate a chain. Raises :class:`VerdictReached`."""
        came = self._way.came
        for number, rule in enumerate(chain.rules if depth < DEPTH else (), 1):
            came[chain.key] = max(came.get(chain.key, 0), number)
            self._ruleset.evaluated += 1
            before = len(self._way.met)
            self._way.met.append(rule.key)
            self._returned = False
            if not all(self._statement(chain, rule, word, what, depth) for word, what in rule.statements):
                del self._way.met[before]
            elif self._returned:
                self._returned = False
                return
        self._returned = False

    def _statement(self, chain: SimulatedChain, rule: SimulatedRule, word: str, what: Any, depth: int) -> bool:
        """Whether the rule goes on behind a statement."""
        if self._returned:
            return True
        wanted = rule.key in self._wanted
        if not wanted and word != "set" and self._is_halted(word, what):
            return False
        if word == "vmap":
            found = self._ruleset.look_up(rule, what, self._fields)
            if found is UNKNOWN and wanted:
                found = next((verdict for _, verdict in self._ruleset.elements(rule, what)), None)
            if not isinstance(found, Mapping):
                return False
            self._verdict(chain, *unpacked(found), depth)
            return True
        if word in _STATEMENTS:
            return _STATEMENTS[word](self, rule, word, what)
        self._verdict(chain, word, what, depth)
        return True

    def _match(self, rule: SimulatedRule, _: str, what: Any) -> bool:
        holds = self._ruleset.holds(rule, what, self._fields)
        return rule.key in self._wanted if holds is None else holds

    def _reject(self, _: SimulatedRule, __: str, what: Any) -> bool:
        if any(self._fields.get(name) != wanted for name, wanted in answered(what).items()):
            return False
        raise VerdictReached("reject")

    def _taken(self, _: SimulatedRule, __: str, ___: Any) -> bool:
        raise VerdictReached("stolen")

    def _is_halted(self, word: str, what: Any) -> bool:
        """Whether a limit, quota or count ends the rule for the packet."""
        if excess(word, what):
            return not self._fields.get("over")
        several = self._fields.get("nth") or self._fields.get("count") or 1
        return bool(0 < burst(word, what) < several)

    def _remember(self, rule: SimulatedRule, word: str, what: Any) -> bool:
        """Whether the rule goes on: nft_dynset_eval() ends it where the packet lacks what the set should get, and
        where an expression of the element does."""
        if not isinstance(what, Mapping):
            return True
        found = value(element(what.get("elem")), self._fields)
        if found is None:
            return False
        if found is not UNKNOWN and what.get("op") in ("add", "update"):
            key = (*rule.key[:2], str(what.get("set", "")).removeprefix("@"))
            self._way.added.setdefault(key, []).append(_member(found))
        return rule.key in self._wanted or not self._is_halted(word, what)

    def _mangle(self, _: SimulatedRule, __: str, what: Any) -> bool:
        key, new = what["key"], value(what["value"], self._fields)
        for kind, name in (("meta", "mark"), ("ct", "ct_mark")):
            if key == {kind: {"key": "mark"}} and isinstance(new, int):
                self._fields[name] = new
        name = field(key)
        if unpacked(key)[0] == "payload" and name in WRITTEN and (number := names.number(new, name)) is not None:
            self._fields[name] = number
        return True

    def _translate(self, rule: SimulatedRule, word: str, what: Any) -> bool:
        """Whether there is something to translate to: a map may have no element for the packet."""
        what = what if isinstance(what, Mapping) else {}
        address, port = what.get("addr"), what.get("port")
        if isinstance(address, Mapping) and "map" in address:
            address = self._ruleset.look_up(rule, address["map"], self._fields)
            if address is None:
                return False
        status = "dnat" if word in ("dnat", "redirect") else "snat"
        fields = self._fields
        fields["status"] = fields.get("status", frozenset()) | {status}
        if status == "dnat":
            self._send_on(word, address, port)
        raise VerdictReached("accept")

    def _send_on(self, word: str, address: Any, port: Any) -> None:
        kind, what = unpacked(element(address))
        if kind == "concat":
            address, port = what[0], what[1] if len(what) > 1 else port
        elif kind == "range":
            address = what[0]
        elif kind == "prefix":
            address = what.get("addr")
        if word == "redirect":
            self._fields["local"] = True
        elif isinstance(address, str):
            try:
                self._fields |= {"daddr": ip_address(address.partition("/")[0]), "local": False}
            except ValueError:
                return
        if isinstance(port, int):
            self._fields["dport"] = port

    def _verdict(self, chain: SimulatedChain, word: str, what: Any, depth: int) -> None:
        if word in FINAL:
            raise VerdictReached(word)
        for target in jumps({word: what}):
            if called := self._ruleset.chains.get((chain.family, chain.table, target)):
                self.chain(called, depth + 1)
            self._returned = word == "goto"
        if word == "return":
            self._returned = True


_STATEMENTS: Final[Mapping[str, Callable[[_Evaluation, SimulatedRule, str, Any], bool]]] = {
    "match": _Evaluation._match,
    "reject": _Evaluation._reject,
    "mangle": _Evaluation._mangle,
    "set": _Evaluation._remember,
    **dict.fromkeys(NAT, _Evaluation._translate),
    **dict.fromkeys(("fwd", "synproxy", "tproxy"), _Evaluation._taken),
}


def answered(reject: Any) -> dict[str, Any]:
    """What a packet must be for this kind of answer: nft asks for it by itself, and does not list that."""
    kind = reject.get("type", "") if isinstance(reject, Mapping) else ""
    kinds: dict[str, dict[str, Any]] = {"icmp": {"family": 4}, "icmpv6": {"family": 6}, "tcp reset": {"proto": "tcp"}}
    return kinds.get(kind, {})


def _member(found: Any) -> Any:
    """The value of an expression as an element of a set."""
    if isinstance(found, tuple):
        return {"concat": [_member(one) for one in found]}
    return found if isinstance(found, int | str) else str(found)


def filled(statement: tuple[str, Any]) -> str:
    """The name of the set that a statement adds to; "" for none."""
    word, what = statement
    adds = word == "set" and isinstance(what, Mapping) and what.get("op") in ("add", "update")
    return str(what.get("set", "")).removeprefix("@") if adds else ""


def burst(word: str, what: Any) -> int:
    """How many packets at once the limit of a statement lets by; 0 where it has none, or counts bytes."""
    if not isinstance(what, Mapping):
        return 0
    if word in ("set", "map"):
        return max((burst(*unpacked(one)) for one in what.get("stmt", ()) if isinstance(one, Mapping)), default=0)
    is_limit = word == "limit" and not what.get("inv") and "rate_unit" not in what
    return int(what.get("burst", 5)) if is_limit else 0


def excess(word: str, what: Any) -> int:
    """How many packets it takes to exceed the limit that a statement asks to be exceeded; 0 where it asks for none."""
    if not isinstance(what, Mapping):
        return 0
    if word in ("set", "map"):
        return max((excess(*unpacked(one)) for one in what.get("stmt", ()) if isinstance(one, Mapping)), default=0)
    if word == "ct count" and what.get("inv"):
        return int(what.get("val", MANY)) + 1
    if word == "quota" and what.get("inv"):
        return MANY
    if word == "limit" and what.get("inv"):
        rate = int(what.get("rate", MANY)) / SECONDS.get(str(what.get("per")), 1)
        return MANY if rate > SURE_RATE or "rate_unit" in what else int(what.get("burst", 5)) + 1
    return 0
