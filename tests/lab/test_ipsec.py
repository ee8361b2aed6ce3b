"""What ip(8) is given for IPsec, and what is said where it refuses; real packets are in scenarios/ipsec.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HarnessError, Unsupported
from harness.lab.ipsec import protect
from harness.topology.parts import Ipsec

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
NEAR, FAR = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
TUNNEL = "proto esp reqid 7 mode tunnel"
Answering = Callable[[str], Path]


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Have an ``ip`` that keeps what it was given and then runs a script; the file that has it."""

    def make(script: str) -> Path:
        program = tmp_path / "ip"
        program.write_text(f"#!/bin/sh\ncat >>{tmp_path}/given\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "given"

    return make


def host(name: str, *of: Ipsec) -> Any:
    namespace = SimpleNamespace(call=lambda function, *arguments: function(*arguments))
    return SimpleNamespace(name=name, plan=SimpleNamespace(ipsec=of), namespace=namespace)


def ends(mode: str) -> dict[str, Any]:
    there, back = (NEAR, FAR), (FAR, NEAR)
    return {
        "left": host("left", Ipsec(ONE, TWO, 0x101, 0x102, 7, mode, (there,))),
        "right": host("right", Ipsec(TWO, ONE, 0x102, 0x101, 7, mode, (back,))),
        "other": host("other"),
    }


def test_both_ends_have_the_same_keys_and_each_direction_one_of_its_own(answering: Answering) -> None:
    given = answering("exit 0")
    protect(ends("tunnel"))
    states = re.findall(r"state add src (\S+) dst (\S+) proto esp spi (\S+) .* 0x([0-9a-f]{40}) 128", given.read_text())
    assert len(states) == 4
    assert len(set(states)) == 2  # both hosts have the same two
    assert len({key for *_, key in states}) == 2
    before = set(states)
    given.unlink()
    protect(ends("tunnel"))
    assert not before & set(
        re.findall(r"state add src (\S+) dst (\S+) proto esp spi (\S+) .* 0x([0-9a-f]{40}) 128", given.read_text())
    )


@pytest.mark.parametrize(
    ("mode", "policies"),
    [
        (
            "tunnel",
            [
                "src 10.1.0.0/16 dst 10.2.0.0/16 dir out tmpl src 192.0.2.1 dst 192.0.2.2 " + TUNNEL,
                "src 10.2.0.0/16 dst 10.1.0.0/16 dir in tmpl src 192.0.2.2 dst 192.0.2.1 " + TUNNEL,
                "src 10.2.0.0/16 dst 10.1.0.0/16 dir fwd tmpl src 192.0.2.2 dst 192.0.2.1 " + TUNNEL,
            ],
        ),
        (
            "transport",
            [
                "src 10.1.0.0/16 dst 10.2.0.0/16 dir out tmpl proto esp reqid 7 mode transport",
                "src 10.2.0.0/16 dst 10.1.0.0/16 dir in tmpl proto esp reqid 7 mode transport",
            ],
        ),
    ],
)
def test_policies(answering: Answering, mode: str, policies: list[str]) -> None:
    given = answering("exit 0")
    protect({"left": ends(mode)["left"]})
    assert re.findall(r"^xfrm policy add (.*)$", given.read_text(), re.M) == policies


@pytest.mark.parametrize(
    ("stderr", "kind", "sentence"),
    [
        ("RTNETLINK answers: Protocol not supported", Unsupported, "this kernel can't do IPsec of left: Protocol not"),
        ("Error: Requested COMP algorithm not found.", Unsupported, "it needs the modules esp4 or esp6, xfrm_user"),
        ("RTNETLINK answers: File exists", HarnessError, "the kernel refused the IPsec of left: File exists"),
        ("", HarnessError, "the kernel refused the IPsec of left: it failed"),
    ],
)
def test_what_is_refused_is_named_without_a_key(
    answering: Answering, stderr: str, kind: type[HarnessError], sentence: str
) -> None:
    given = answering(f"echo '{stderr}' >&2; exit 2")
    with pytest.raises(kind, match=sentence) as refused:
        protect({"left": ends("tunnel")["left"]})
    assert isinstance(refused.value, Unsupported) is (kind is Unsupported)
    keys = re.findall(r"0x([0-9a-f]{40})", given.read_text())
    assert keys
    assert not [key for key in keys if key in str(refused.value)]


def test_without_the_program_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="install iproute2"):
        protect({"left": ends("tunnel")["left"]})
