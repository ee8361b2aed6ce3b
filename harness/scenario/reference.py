"""The reference of the language in Markdown, made from the models: ``docs/scenarios.md``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.packets import icmp
from harness.scenario.examples import in_flow_style
from harness.scenario.schema import Schema, models
from harness.topology.builtin import LABS
from harness.topology.network import Network

EXAMPLE = """\
# yaml-language-server: $schema=../harness/scenario.schema.json
lab: router                       # client — device — server
ruleset: rulesets/edge.nft        # loaded in the device, as `nft -f` would
scenarios:
  - name: HTTPS from the client reaches the web server
    send: {from: client, to: server, tcp: {dport: 443, flags: S}}
    expect:
      verdict: accept
      rule: tcp dport 443 accept
      delivered: server
      layers: [Device, IPv4, Netfilter, Routing, Xmit]
      path:
        - ip_rcv
        - nft_do_chain: {chain: inet filter forward}
        - ip_forward
        - dev_queue_xmit | __dev_queue_xmit
      never: [kfree_skb_reason | sk_skb_reason_drop]

  - name: An answer comes back through the flow that the client began
    steps:
      - send: {from: client, to: server, tcp: {dport: 443}}
      - send: {from: server, to: client, tcp: {sport: 443, dport: 40000, flags: SA}}
        expect: {verdict: accept, delivered: client}
"""

HEAD = f"""\
# The scenario language

<!-- Made from harness/scenario/models/ by `nft-harness schema --markdown`; a test compares. -->

This page lists all keys of scenario files. A scenario says which packet starts where and what the ruleset must do
with it. Scenario files are written in YAML 1.2; pytest collects each scenario as a test.

```yaml
{EXAMPLE}```

The first line makes editors complete and check keys; `nft-harness schema` prints the schema.
`nft-harness check FILES` checks files, and the rulesets that they name, [without root and without running
anything](check.md). What only a kernel knows is checked when the scenarios run.

General rules:

- A key that is not in this reference is an error; so is a key without a value, a duplicate key,
  and a tag. Anchors and aliases may be used; the merge key `<<` may not.
- Only `true` and `false` are booleans: `on`, `yes`, `12:30` and `02:00:00:00:00:01` are text.
- Each key of `expect` is optional, and each that is given must hold. A scenario that expects nothing
  is an error.
- `$name` stands for a value of `each` or `matrix`, whole or within a text. A name that is not a parameter
  is left unchanged: in `rule: ip daddr $web accept`, `$web` may be a variable of the ruleset.
- Scenario files are YAML files below a folder `scenarios`, or
  [those that the pytest setting `nft_files` names](running.md#which-files-are-scenarios); a file named on the
  command line may be anywhere.
- A ruleset must lie in [the project](running.md#what-scenarios-may-reach) of its scenario file. So must the files that
  it includes; a relative name is resolved in the folder of the main file, and not in `/etc`.
- A file of `ipset save` is recognised by its first line (`create NAME hash:ip …`) and loaded by `ipset restore`. Name
  it before the iptables-save file whose rules match on its sets: `ruleset: [rulesets/sets.ipset, rulesets/rules.v4]`.
- A file of `iptables-save` is recognised by its first line (`*filter`) and loaded by `iptables-nft-restore`. IPv6 is
  recognised by the header, else by the name (`rules.v6`) or the rules. Rules can be named by their `-A` line.
- A rule of another host is named with the host in front: `rules: ["edge: tcp dport 25 accept", policy]`.
"""


def reference() -> str:
    """The text of ``docs/scenarios.md``."""
    whole = models()
    definitions = list(_definitions(whole))
    links = {name: f"[`{path}`](#{_anchor(path)})" for path, name in definitions}
    parts = [HEAD, "## The file\n", f"{whole['description']}\n", _table(whole, links)]
    for path, name in definitions:
        definition = whole["definitions"][name]
        parts += [f"## `{path}`\n", f"{definition['description']}\n", _table(definition, links)]
    parts += [
        "## Built-in labs\n",
        *_labs(),
        "## Names of ICMP types\n",
        _types(),
        "## What a reject answers\n",
        _rejects(),
    ]
    return "\n".join(parts)


# --- keys ---------------------------------------------------------------------------------------


def _definitions(whole: Schema) -> Iterator[tuple[str, str]]:
    """The keys that lead to each definition, and its name; each once, in the order of first use."""
    seen: set[str] = set()

    def visit(path: str, definition: Schema) -> Iterator[tuple[str, str]]:
        for key, value in definition["properties"].items():
            for name in _references(value):
                if name not in seen:
                    seen.add(name)
                    inner = f"{path}.{key}".removeprefix(".")
                    yield inner, name
                    yield from visit(inner.removeprefix("scenarios"), whole["definitions"][name])

    yield from visit("", whole)


def _references(node: Any) -> Iterator[str]:
    """The names of the definitions that ``node`` uses."""
    if isinstance(node, list):
        for value in node:
            yield from _references(value)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield _name(node)
        for key, value in node.items():
            if key not in ("examples", "default"):
                yield from _references(value)


def _name(node: Schema) -> str:
    name: str = node["$ref"].rpartition("/")[2]
    return name


def _table(definition: Schema, links: Mapping[str, str]) -> str:
    rows = ["| key | value | if left out | meaning | example |", "|---|---|---|---|---|"]
    for key, node in definition["properties"].items():
        if key in definition.get("required", ()):
            otherwise = "an error"
        else:
            otherwise = f"`{in_flow_style(node['default'])}`" if node.get("default") not in (None, "", [], {}) else ""
        cells = [
            f"`{key}`",
            _kind(node, links),
            otherwise,
            node["description"],
            f"`{key}: {in_flow_style(node['examples'][0])}`",
        ]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _kind(node: Schema, links: Mapping[str, str]) -> str:
    """What may stand as the value, in words."""
    match node:
        case {"allOf": [{"$ref": _} as inner]} | ({"$ref": _} as inner):
            return links[_name(inner)]
        case {"anyOf": kinds}:
            return " or ".join(_kind(kind, links) for kind in kinds)
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f"{low}…{high}"
        case {"type": "array", "items": items}:
            return f"list of {_kind(items, links)}"
        case {"type": "object", "additionalProperties": values}:
            return f"mapping to {_kind(values, links)}"
        case {"type": ("array" | "object") as kind}:
            return {"array": "list", "object": "mapping"}[kind]
        case {"type": kind}:
            return {"string": "text", "integer": "number", "number": "number", "boolean": "`true` or `false`"}[kind]
    raise ValueError(f"the reference has no words for {node}")


# Text that needs no quotes.


def _anchor(path: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w-]", "", path.lower())


# --- names --------------------------------------------------------------------------------------


def _labs() -> Iterator[str]:
    for name, spec in LABS.items():
        network = Network.of(spec)
        links = ", ".join(f"{one.end} ── {other.end}" for one, other in network.links)
        yield f"`{name}`: {links}\n"
        rows = ["| host | interface | addresses | Ethernet | |", "|---|---|---|---|---|"]
        for one in network.interfaces:
            host = network.hosts[one.host]
            notes = [
                "under test" if one.host == network.device else "",
                "forwards" if host.forwarding else "",
                "answers nothing" if host.silent else "",
                f"gateway {spec.hosts[one.host].gateway}" if spec.hosts[one.host].gateway else "",
            ]
            cells = [one.host, one.name, ", ".join(map(str, one.addresses)), one.mac, ", ".join(filter(None, notes))]
            rows.append(f"| {' | '.join(cells)} |")
        yield "\n".join(rows) + "\n"


def _types() -> str:
    rows = [f"- `{key}.type`: " + ", ".join(f"`{name}`" for name in types) for key, types in _TYPES.items()]
    return "\n".join(rows) + "\n"


_TYPES = {"icmp": icmp.TYPES, "icmpv6": icmp.TYPES_V6}
_CODES = {"icmp": icmp.CODES, "icmpv6": icmp.CODES_V6, "icmpx": icmp.CODES_X}


def _rejects() -> str:
    rows = [
        "`expect.with` is `tcp reset`, or one of these words and one of its codes, as in `icmp port-unreachable`:\n"
    ]
    rows += [f"- `{kind}`: " + ", ".join(f"`{name}`" for name in codes) for kind, codes in _CODES.items()]
    return "\n".join(rows) + "\n"
