from __future__ import annotations

import pytest

from harness.linux.btf import Argument
from harness.tracer.discover import KERNEL, Function, Stops, sort_out, takes_packet
from tests.tracer.builders import functions

AVAILABLE = b"""\
ip_rcv
ip_fragment.constprop.0
skb_push.part.0
nft_do_chain [nf_tables]
nft_meta_get_eval.isra.0 [nf_tables]
help [nf_nat_irc]
help [nf_nat_tftp]
reg_vif_xmit
reg_vif_xmit
__copy_skb_header
native_save_fl
"""
BLACKLIST = b"0xffffffff81001000-0xffffffff81001010\tnative_save_fl\n"


def found(*arguments: tuple[str, int, str], module: str = KERNEL) -> tuple[dict[str, Function], dict[str, str]]:
    traceable, untraceable = sort_out(module, [Argument(*a) for a in arguments], Stops(AVAILABLE, BLACKLIST))
    return {f.kernel_name: f for f in traceable}, {f.name: f.reason for f in untraceable}


def test_a_function_comes_with_all_that_a_probe_needs() -> None:
    traceable, untraceable = found(("ip_rcv", 0, "sk_buff *"))
    assert traceable["ip_rcv"] == Function(
        name="ip_rcv", kernel_name="ip_rcv", position=0, carries="sk_buff", layer="IPv4", priority=0
    )
    assert not untraceable


def test_clones_are_the_function_pieces_of_it_are_not() -> None:
    traceable, untraceable = found(("ip_fragment", 2, "sk_buff *"), ("skb_push", 0, "sk_buff *"))
    assert list(traceable) == ["ip_fragment.constprop.0"]
    assert traceable["ip_fragment.constprop.0"].name == "ip_fragment"
    assert untraceable["skb_push"].startswith("it is inlined")


def test_a_module_s_functions_are_looked_for_in_the_module() -> None:
    arguments = [("nft_do_chain", 0, "nft_pktinfo *"), ("nft_meta_get_eval", 2, "nft_pktinfo *")]
    traceable, _ = found(*arguments, module="nf_tables")
    assert [(f.name, f.module, f.carries) for f in traceable.values()] == [
        ("nft_do_chain", "nf_tables", "nft_pktinfo"),
        ("nft_meta_get_eval", "nf_tables", "nft_pktinfo"),
    ]
    assert found(*arguments)[0] == {}


@pytest.mark.parametrize("name", ["__traceiter_kfree_skb", "__probestub_kfree_skb", "__bpf_trace_kfree_skb"])
def test_what_stands_between_a_function_and_its_tracepoint_is_no_function_of_a_path(name: str) -> None:
    arguments = (name, 1, "sk_buff *"), ("ip_rcv", 0, "sk_buff *")
    traceable, untraceable = found(*arguments)
    assert ([*traceable], untraceable) == (["ip_rcv"], {})
    assert [one.name for one in takes_packet(KERNEL, [Argument(*one) for one in arguments])] == ["ip_rcv"]


def test_an_sk_buff_goes_before_a_pktinfo_and_the_first_before_the_second() -> None:
    traceable, _ = found(("ip_rcv", 0, "nft_pktinfo *"), ("ip_rcv", 3, "sk_buff *"), ("ip_rcv", 2, "sk_buff *"))
    assert (traceable["ip_rcv"].position, traceable["ip_rcv"].carries) == (2, "sk_buff")


@pytest.mark.parametrize(
    ("argument", "module", "reason"),
    [
        (("__copy_skb_header", 0, "sk_buff *"), KERNEL, "its packet is a new one, which it fills in"),
        (("ip_rvc", 0, "sk_buff *"), KERNEL, "it is inlined, or marked notrace: not in available_filter_functions"),
        (("ip_rcv", 5, "sk_buff *"), KERNEL, "its packet is argument 6, which is not passed in a register"),
        (("ip_rcv", 0, "sk_buff **"), KERNEL, "it has no packet, only a struct sk_buff **"),
        (("ip_rcv", 1, "nf_hook_state *"), KERNEL, "it has no packet, only a struct nf_hook_state *"),
        (("native_save_fl", 0, "sk_buff *"), KERNEL, "it is on the kprobe blacklist"),
        (("reg_vif_xmit", 0, "sk_buff *"), KERNEL, "2 functions have this name, probes cannot distinguish them"),
        (("help", 0, "sk_buff *"), "nf_nat_irc", "2 functions have this name, probes cannot distinguish them"),
    ],
)
def test_what_cannot_be_traced_says_why(argument: tuple[str, int, str], module: str, reason: str) -> None:
    traceable, untraceable = found(argument, module=module)
    assert not traceable
    assert untraceable == {argument[0]: reason}


def test_names_are_explained() -> None:
    known = functions("ip_rcv", "ipv6_rcv", "ip_forward", "nft_do_chain")
    assert known.why_not("ip_rcv") == ""
    assert known.why_not("dst_output") == "it is inlined"
    assert known.why_not("ip_rvc") == "the kernel has no such function that takes a packet"
    assert known.why_not("ip_list_rcv").startswith("it takes a list of packets")
    assert known.near("ip_rvc")[0] == "ip_rcv"
    assert known.near("zzz") == []
    assert [f.name for f in known.named(["ip_forward", "absent"])] == ["ip_forward"]


# -- the list -----------------------------------------------------------------------------------
