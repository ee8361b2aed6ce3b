"""What a ruleset consists of, as the kernel and nft have it: it is loaded once in a namespace of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness import ending
from harness.errors import HarnessError
from harness.model.observation import Place, Rule
from harness.project import find
from harness.ruleset.listing import ANONYMOUS, Chain
from harness.ruleset.nft import Nft, NftError
from harness.scenario.files import shortened
from harness.untrusted import Unreadable

if TYPE_CHECKING:
    from harness.lab.lab import Host
    from harness.lab.namespace import Namespace

INTERFACES_AT_MOST = 64

_TOKEN = re.compile(r'#[^\n]*|"[^"]*"|[\w.@*-]+|[^\s\w]')
_NAME = re.compile(r"(?!\d+$)[\w][\w.@-]{0,14}")
_BEFORE_NAMES = frozenset({"iif", "oif", "iifname", "oifname", "device", "devices", "to", "elements"})


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A ruleset."""

    objects: list[dict[str, Any]]
    """What ``nft -j list ruleset`` shows; see libnftables-json(5). A block, ``jump { … }``, is a chain like others."""
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    defines: dict[str, str]
    """The names that the file has for interfaces: ``{"enp1s0": "wan"}``."""


def look(paths: Sequence[Path], kernel: str) -> Facts:
    """Load ``paths``, one after the other, and look at them: here if that can be done, else in a guest with ``kernel``.

    Raises :class:`~harness.errors.HarnessError`, with the place in the file where nft refuses it.
    """
    if os.geteuid() == 0:
        with suppress(HarnessError):  # this kernel may lack what the ruleset needs: then the guest decides
            return load(*paths)
    from harness.vm.microvm import NO_STATUS, complaint, wrapper

    command = [*wrapper(), "--kernel", kernel, "-m", __name__, *map(str, paths)]
    ending.check()
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        return msgspec.json.decode(ran.stdout, type=Facts)
    except msgspec.MsgspecError:
        printed, unknown = ran.stderr.decode(errors="replace").strip(), f"{paths[0]} could not be loaded"
        raise HarnessError(complaint(printed) if ran.returncode == NO_STATUS else printed or unknown) from None


def load(*paths: Path) -> Facts:
    """Load ``paths``, one after the other, in a new network namespace of this kernel; nothing of it is left."""
    from harness.lab.lab import Host
    from harness.lab.namespace import Namespace
    from harness.linux import modules
    from harness.ruleset import required_modules
    from harness.ruleset.load import Ruleset
    from harness.topology import parts

    modules.refuse(required_modules.of_files(paths))
    with modules.watched(), Namespace("ruleset") as namespace:
        defines = dict(_interfaces(_texts(paths, namespace)))
        plan = parts.HostPlan(
            name="device",
            interfaces={},
            made={},
            routes=(),
            rules=(),
            neighbours=(),
            forwarding=False,
            sysctls={},
            silent=False,
            speaking=frozenset(),
        )
        host = Host(plan, namespace, {})
        _make(host, [name for name in defines if name != "lo"])
        loaded = Ruleset.load(host, *map(shortened, paths))
        listed = _with_blocks(loaded.nft, loaded.nft.ask({"list": {"ruleset": None}}), loaded.rules)
        objects = [{"rule": with_lists(one["rule"])} if "rule" in one else one for one in listed]
    return Facts(objects=objects, chains=loaded.chains, rules=loaded.rules, defines=defines)


def _with_blocks(nft: Nft, objects: Sequence[dict[str, Any]], rules: Sequence[Rule]) -> Iterator[dict[str, Any]]:
    """``objects`` with the rules of blocks, which nft's JSON lacks: it shows a block as text in the rule that has it.

    A rule of a block is added to a chain of its own, so that nft shows it as JSON; ``rules`` are in nft's order,
    those of a block behind the rule that has it.
    """
    blocks: dict[Place, list[Rule]] = {}
    holder: Place = ("", "", "", 0)
    for rule in rules:
        if ANONYMOUS.match(rule.chain):
            blocks.setdefault(holder, []).append(rule)
        else:
            holder = rule.place
    for one in objects:
        what = one.get("rule")
        inside = blocks.get((what["family"], what["table"], what["chain"], what["handle"])) if what else None
        if what is None or not inside:
            yield one
            continue
        word = next((str(part).split()[0] for part in what["expr"] if isinstance(part, str)), "jump")
        expressions = [part for part in what["expr"] if not isinstance(part, str)]
        yield {"rule": what | {"expr": [*expressions, {word: {"target": inside[0].chain}}]}}
        yield {"chain": {"family": what["family"], "table": what["table"], "name": inside[0].chain}}
        for rule in inside:
            place = {"family": rule.family, "table": rule.table, "chain": rule.chain, "handle": rule.handle}
            yield {"rule": place | {"expr": _expressions(nft, rule)}}


def with_lists(expression: Any) -> Any:
    """``expression`` with flags as lists of names: nft writes ``fin|syn`` so up to 1.0, and as ``{"|": […]}`` since."""
    match expression:
        case {"|": [*names], **others} if not others and all(isinstance(one, str) for one in names):
            return names
        case dict():
            return {key: with_lists(value) for key, value in expression.items()}
        case list():
            return [with_lists(value) for value in expression]
    return expression


def _expressions(nft: Nft, rule: Rule) -> list[Any]:
    """The statements of ``rule`` as JSON; one that cannot be understood where nft does not take it alone."""
    scratch = f"nft-harness-{rule.handle}"
    place = f"{rule.family} {rule.table} {scratch}"
    try:
        nft.run(f"add chain {place}\nadd rule {place} {rule.text}")
        listed = nft.ask({"list": {"chain": {"family": rule.family, "table": rule.table, "name": scratch}}})
    except NftError:
        return [rule.text]
    return next((list(one["rule"]["expr"]) for one in listed if "rule" in one), [rule.text])


def _interfaces(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every word of a ruleset's files that may be an interface; with the variable that has it.

    nft refuses a device that does not exist, and an interface by index (``iif``) likewise. One too many does no harm.
    """
    found: dict[str, str] = {}
    for text in texts:
        words = [token.strip('"') for token in _TOKEN.findall(text) if not token.startswith("#")]
        for place, word in enumerate(words):
            if word == "define" and words[place + 2 : place + 3] == ["="]:
                names, variable = _list(words[place + 3 :]), words[place + 1]
            elif word in _BEFORE_NAMES:
                names, variable = _list(words[place + 1 :]), ""
            else:
                continue
            for name in names:
                if len(name) < 16 and _NAME.fullmatch(name):
                    found[name] = found.get(name) or variable
    yield from list(found.items())[:INTERFACES_AT_MOST]


def _list(words: list[str]) -> list[str]:
    """The word, or those in braces, that ``words`` begin with; signs before them aside, and what is joined to it."""
    while words and words[0] in ("!", "="):
        words = words[1:]
    if words[:1] == ["."] and "{" in words[:16]:
        words = words[words.index("{") :]
    if words[:1] != ["{"]:
        return words[:1]
    return words[1 : words.index("}")] if "}" in words else []


def _texts(paths: Sequence[Path], namespace: Namespace) -> list[str]:
    """The texts of the files and of those they include, as far as they can be read."""
    from harness.ruleset.files import reader
    from harness.ruleset.texts import includes

    mains = [path.absolute() for path in paths]
    _, texts = reader(namespace, find(mains))
    for full in mains:
        with suppress(Unreadable):  # what loads it says so
            for _ in includes(full, texts, str):
                pass
    return list(texts.texts.values())


def _make(host: Host, names: list[str]) -> None:
    """Make interfaces of these names on ``host``."""
    from harness.lab.lab import ask
    from harness.lab.requests import WireEnd, wire

    for number, name in enumerate(names):
        one, other = (
            WireEnd("device", end, index, f"02:00:00:00:00:{index & 0xFF:02x}", host.namespace.fd)
            for end, index in ((name, 100 + 2 * number), (f"peer-{number}", 101 + 2 * number))
        )
        ask(host, [wire(one, other)])


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(msgspec.json.encode(load(*map(Path, sys.argv[1:]))))
    except HarnessError as error:
        sys.exit(str(error))
