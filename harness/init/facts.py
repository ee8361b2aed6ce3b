"""What a ruleset consists of, as the kernel and nft have it: it is loaded once in a namespace of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness import ending
from harness.errors import HarnessError
from harness.model.observation import Rule
from harness.project import find
from harness.ruleset.listing import Chain
from harness.untrusted import Unreadable

if TYPE_CHECKING:
    from harness.lab.lab import Host
    from harness.lab.namespace import Namespace

INTERFACES_AT_MOST = 64

_TOKEN = re.compile(r'#[^\n]*|"[^"]*"|[\w.@*-]+|[^\s\w]')
_NAME = re.compile(r"[A-Za-z][\w.-]{0,14}")
_BEFORE_NAMES = frozenset({"iif", "oif", "iifname", "oifname", "device", "devices", "to"})


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A ruleset."""

    objects: list[dict[str, Any]]
    """What ``nft -j list ruleset`` shows; see libnftables-json(5)."""
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    defines: dict[str, str]
    """The names that the file has for interfaces: ``{"enp1s0": "wan"}``."""


def look(path: Path, kernel: str) -> Facts:
    """Load ``path`` and look at it: here if that can be done, else in a microVM with ``kernel``.

    Raises :class:`~harness.errors.HarnessError`, with the place in the file where nft refuses it.
    """
    if os.geteuid() == 0:
        with suppress(HarnessError):  # this kernel may lack what the ruleset needs: then the guest's word counts
            return load(path)
    from harness.vm.microvm import wrapper

    command = [*wrapper(), "--kernel", kernel, "-m", __name__, str(path)]
    ending.check()
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        return msgspec.json.decode(ran.stdout, type=Facts)
    except msgspec.MsgspecError:
        raise HarnessError(ran.stderr.decode(errors="replace").strip() or f"{path} could not be loaded") from None


def load(path: Path) -> Facts:
    """Load ``path`` in a new network namespace of this kernel; nothing of it is left."""
    from harness.lab.lab import Host
    from harness.lab.namespace import Namespace
    from harness.linux import modules
    from harness.ruleset import required_modules
    from harness.ruleset.load import Ruleset
    from harness.topology import parts

    modules.refuse(required_modules.of_files([path]))
    with modules.watched(), Namespace("ruleset") as namespace:
        defines = dict(_interfaces(_texts(path, namespace)))
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
        loaded = Ruleset.load(host, path)
        objects = loaded.nft.ask({"list": {"ruleset": None}})
    return Facts(objects=objects, chains=loaded.chains, rules=loaded.rules, defines=defines)


def _interfaces(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every word of a ruleset's files that may be an interface; with the variable that has it.

    nft refuses a device that is not there, and takes an interface by index (``iif``) only if it is.
    One too many does no harm.
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
                if _NAME.fullmatch(name):
                    found[name] = found.get(name) or variable
    yield from list(found.items())[:INTERFACES_AT_MOST]


def _list(words: list[str]) -> list[str]:
    """The word, or those in braces, that ``words`` begin with; signs before them aside."""
    while words and words[0] in ("!", "="):
        words = words[1:]
    if words[:1] != ["{"]:
        return words[:1]
    return words[1 : words.index("}")] if "}" in words else []


def _texts(path: Path, namespace: Namespace) -> list[str]:
    """The texts of the file and of those it includes, as far as they can be read."""
    from harness.ruleset.files import reader
    from harness.ruleset.texts import includes

    full = path.absolute()
    _, texts, _ = reader(namespace, find([full]))
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
        sys.stdout.buffer.write(msgspec.json.encode(load(Path(sys.argv[1]))))
    except HarnessError as error:
        sys.exit(str(error))
