"""The output of the script is a stranger's."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.twin import machine, project
from harness.twin.anonymize import Anonymizer
from harness.untrusted import boundary

LINKS = json.dumps([{"ifname": "lo"}, {"ifname": "eth0", "flags": ["UP"]}])
WHOLE = f"{machine.FORMAT}\n[host]\n|fw1 6.1\n|=0\n[links]\n|{LINKS}\n|=0\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it has no line 'nft-harness twin 1'"),
        (f"{machine.FORMAT}\n[links]\n|[]\n", "its section links has no end"),
        (f"{machine.FORMAT}\n[links]\n|[]\n|=0\n", "no interface is in it"),
        (f"{machine.FORMAT}\n[links]\n|[{{\n|=0\n", "its section links is not what iproute2 prints"),
        (f'{machine.FORMAT}\n[links]\n|{{"ifname": 7}}\n|=0\n', "its section links is not what iproute2 prints"),
        (WHOLE + '[routes4]\n|[{"dst": 7}]\n|=0\n', "its section routes4 is not what iproute2 prints"),
        (WHOLE + "[addresses]\n|" + "[" * 5000 + "\n|=0\n", "its section addresses is not what iproute2 prints"),
    ],
)
def test_what_is_no_output(text: str, sentence: str) -> None:
    with pytest.raises(HarnessError) as error:
        machine.read(text)
    assert error.value.sentence.startswith(sentence)


def test_names_that_no_interface_and_no_file_has() -> None:
    links = json.dumps([{"ifname": one, "flags": ["UP"]} for one in ("eth0", "../x", "a b", "a\u0000b", "x" * 16, ".")])
    found = machine.read(f"{machine.FORMAT}\n[host]\n|../../etc/passwd 6.1\x1b[2J\n|=0\n[links]\n|{links}\n|=0\n")
    assert list(found.links) == ["eth0"]
    assert found.name == "twin"
    assert found.kernel.isprintable()


def test_a_line_of_a_ruleset_begins_no_section() -> None:
    found = machine.read(WHOLE + "[nft]\n|[host]\n|=7\n|table ip t {\n|}\n|\n|=0\n")
    assert found.name == "fw1"
    assert found.nft == "[host]\ntable ip t {\n}\n"


def test_any_output_ends_in_a_sentence_or_a_twin(soak: Any) -> None:
    from hypothesis import strategies as st

    word = st.sampled_from(
        [
            "eth0",
            "br0",
            "lo",
            "default",
            "10.0.0.0/8",
            "10.0.0.1",
            "fe80::1",
            "::/0",
            "7",
            "1",
            "254",
            "",
            "\x1b",
            "all",
        ]
    )
    value = st.recursive(word | st.integers(-5, 5000) | st.none(), lambda of: st.lists(of, max_size=3), max_leaves=4)
    keys = [
        *(
            "ifname",
            "flags",
            "mtu",
            "master",
            "link",
            "dst",
            "gateway",
            "dev",
            "table",
            "type",
            "metric",
            "local",
            "prefixlen",
        ),
        *(
            "addr_info",
            "src",
            "srclen",
            "fwmark",
            "priority",
            "iif",
            "action",
            "tos",
            "vlans",
            "mac",
            "nexthops",
            "family",
        ),
    ]
    entry = st.dictionaries(st.sampled_from(keys), value, max_size=6)
    info = st.fixed_dictionaries(
        {
            "info_kind": st.sampled_from(["bridge", "vlan", "vrf", "gre", "vxlan", "macvlan", "wireguard", "bond", ""]),
            "info_data": st.dictionaries(
                st.sampled_from(["id", "table", "local", "remote", "ikey", "okey", "mode", "port"]),
                word | st.integers(),
                max_size=4,
            ),
        }
    )
    link = st.fixed_dictionaries(
        {"ifname": word, "flags": st.just(["UP"]), "linkinfo": info, "master": word, "link": word}
    )
    sections = st.dictionaries(
        st.sampled_from(["addresses", "routes4", "routes6", "rules4", "rules6", "neighbours", "vlans", "stations"]),
        st.lists(entry, max_size=4),
        max_size=4,
    )

    def holds(given: tuple[list[Any], dict[str, Any], str]) -> None:
        links, of, text = given
        lines = [machine.FORMAT, "[links]", f"|{json.dumps(links)}", "|=0", "[nft]", f"|{text}", "|=0"]
        for name, content in of.items():
            lines += [f"[{name}]", f"|{json.dumps(content)}", "|=0"]
        with soak.example(), suppress(HarnessError), boundary("could not be understood"):
            list(project.lab_lines(project.of(machine.read(Anonymizer("\n".join(lines)).text()))))

    soak.holds(st.tuples(st.lists(link, min_size=1, max_size=4), sections, st.text(max_size=40)), holds, 60)
