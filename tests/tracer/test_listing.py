"""The list of functions that can be traced."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from harness.cli import main
from harness.errors import HarnessError
from harness.tracer import listing
from harness.tracer.discover import Function
from harness.tracer.listing import most_informative
from harness.tracer.survey import Survey
from tests.tracer.builders import function, functions


def test_selection_and_table() -> None:
    known = functions("ip_rcv", "ipv6_rcv", "ip_forward", "nft_do_chain", "skb_push")
    chosen = listing.select(known, layer="IPv4", priority=0, match="ip_*")
    assert list(listing.to_lines(chosen)) == [
        "LAYER       PRIORITY  ARGUMENT          MODULE            FUNCTION",
        "IPv4        0         1: sk_buff        vmlinux           ip_forward",
        "IPv4        0         1: sk_buff        vmlinux           ip_rcv",
        "2 functions can be traced, 0 can't",
    ]
    less = functions("ip_rcv", "ip_send_check", "ip_rcv_finish")
    numbers = [len(listing.select(less, layer=None, priority=number, match=None)) for number in (0, 1, 2)]
    assert numbers[0] < numbers[1] <= numbers[2] == len(less)
    everything = list(listing.to_lines(listing.select(known, layer=None, priority=None, match=None)))
    assert everything[-2:] == ["not traceable: dst_output: it is inlined", "5 functions can be traced, 1 can't"]
    assert b'"kernel_name": "nft_do_chain"' in listing.to_json(known)


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"layer": "netfiltr"}, "there is no layer 'netfiltr'; use Netfilter"),
        ({"match": "ip_rvc*"}, "no function that takes a packet matches 'ip_rvc*'; did you mean ip_rcv"),
        (
            {"layer": "SCTP"},
            "no function that takes a packet is of this layer and priority; nft-harness discover lists all",
        ),
    ],
)
def test_an_empty_selection_is_said(selection: dict[str, str], sentence: str) -> None:
    wanted = {"layer": None, "priority": None, "match": None} | selection
    with pytest.raises(HarnessError) as caught:
        listing.select(functions("ip_rcv", "ip_forward"), **wanted)  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)


def test_a_file_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Survey, "functions", lambda _: functions("ip_rcv"))
    (tmp_path / "a file").touch()
    assert main(["discover", "--output", str(tmp_path / "a file" / "functions.json")]) == 2
    assert "functions.json can't be written: Not a directory" in capsys.readouterr().err
    assert main(["discover", "--output", str(tmp_path / "functions.json")]) == 0
    assert b"ip_rcv" in (tmp_path / "functions.json").read_bytes()


def test_of_the_most_informative_functions_netfilter_and_every_layer_has_some() -> None:
    def of(layer: str, *names: str) -> list[Function]:
        return [msgspec.structs.replace(function(name, 0), layer=layer) for name in names]

    ip = of("IPv4", "__ip_local_out", "ip_protocol_deliver_rcu", "ip_rcv", "ip_forward")
    others = [*of("TCP", "tcp_v4_rcv", "tcp_v4_do_rcv"), *of("Netfilter", "nft_do_chain", "nf_hook_slow")]
    chosen = [one.name for one in most_informative([*ip, *others], 5)]
    assert chosen == ["nft_do_chain", "nf_hook_slow", "ip_rcv", "tcp_v4_rcv", "ip_forward"]
