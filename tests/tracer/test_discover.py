from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import HarnessError, Unsupported
from harness.linux.btf import Argument, Btf
from harness.tracer import listing
from harness.tracer.discover import KERNEL, Function, Functions, Stops, Untraceable, sort_out
from harness.tracer.survey import Survey

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


def test_an_sk_buff_goes_before_a_pktinfo_and_the_first_before_the_second() -> None:
    traceable, _ = found(("ip_rcv", 0, "nft_pktinfo *"), ("ip_rcv", 3, "sk_buff *"), ("ip_rcv", 2, "sk_buff *"))
    assert (traceable["ip_rcv"].position, traceable["ip_rcv"].carries) == (2, "sk_buff")


@pytest.mark.parametrize(
    ("argument", "module", "reason"),
    [
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


def functions(*names: str) -> Functions:
    traceable, _ = sort_out(
        KERNEL, [Argument(name, 0, "sk_buff *") for name in names], Stops("\n".join(names).encode())
    )
    return Functions(traceable, (Untraceable(name="dst_output", reason="it is inlined"),))


def test_names_are_explained() -> None:
    known = functions("ip_rcv", "ipv6_rcv", "ip_forward", "nft_do_chain")
    assert known.why_not("ip_rcv") == ""
    assert known.why_not("dst_output") == "it is inlined"
    assert known.why_not("ip_rvc") == "the kernel has no such function that takes a packet"
    assert known.why_not("ip_list_rcv").startswith("it takes a list of packets")
    assert known.near("ip_rvc")[0] == "ip_rcv"
    assert known.near("zzz") == []
    assert [f.name for f in known.named(["ip_forward", "absent"])] == ["ip_forward"]


# -- the survey ---------------------------------------------------------------------------------


@pytest.fixture
def sys_folder(tmp_path: Path) -> Path:
    """A made-up /sys around this machine's BTF, in which ip_rcv alone can be traced."""
    vmlinux = Path("/sys/kernel/btf/vmlinux")
    if not vmlinux.exists():
        pytest.skip("this kernel has no BTF")
    for folder in ("btf", "tracing"):
        (tmp_path / "kernel" / folder).mkdir(parents=True)
    (tmp_path / "kernel/btf/vmlinux").symlink_to(vmlinux)
    (tmp_path / "kernel/notes").write_bytes(b"build 1")
    (tmp_path / "kernel/tracing/available_filter_functions").write_bytes(b"ip_rcv\n")
    return tmp_path


def test_a_survey_is_remembered_by_another_process(sys_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = Survey(sys=sys_folder)
    known = survey.functions()
    layout = survey.layout()
    asked = (layout.offset("sk_buff", "dev"), layout.size("sk_buff"), layout.bitfield("sk_buff", "cloned"))
    reasons = layout.enum("skb_drop_reason")
    assert not layout.has("sk_buff", "nothing")
    assert survey.learned
    assert [f.name for f in known] == ["ip_rcv"]

    def no_btf(*_: object) -> None:
        raise AssertionError("BTF was read again")

    monkeypatch.setattr(Btf, "vmlinux", no_btf)
    again = Survey(survey.to_bytes(), sys_folder)
    layout = again.layout()
    assert again.functions() == known
    assert (layout.offset("sk_buff", "dev"), layout.size("sk_buff"), layout.bitfield("sk_buff", "cloned")) == asked
    assert layout.enum("skb_drop_reason") == reasons
    assert not layout.has("sk_buff", "nothing")
    assert not again.learned


def test_layout_answers_like_btf(sys_folder: Path) -> None:
    layout, btf = Survey(sys=sys_folder).layout(), Btf.vmlinux()
    for _ in range(2):
        assert layout.offset("sk_buff", "len") == btf.offset("sk_buff", "len")
        assert layout.member_size("net_device", "name") == 16
        with pytest.raises(Unsupported, match="is a bitfield"):
            layout.offset("sk_buff", "cloned")
        with pytest.raises(Unsupported, match="no member 'nothing'"):
            layout.offset("sk_buff", "nothing")
        with pytest.raises(Unsupported, match="no struct nothing"):
            layout.size("nothing")


@pytest.mark.parametrize("memory", [b"", b"{", b"[]", b'{"identity": "6.12 0 0"}'])
def test_what_was_stored_of_another_kernel_is_not_used(sys_folder: Path, memory: bytes) -> None:
    assert len(Survey(memory, sys_folder).functions()) == 1


def test_another_build_of_the_same_release_is_another_kernel(sys_folder: Path) -> None:
    survey = Survey(sys=sys_folder)
    survey.functions()
    memory = survey.to_bytes()
    (sys_folder / "kernel/notes").write_bytes(b"build 2")
    (sys_folder / "kernel/tracing/available_filter_functions").write_bytes(b"ip_rcv\nip_forward\n")
    assert len(Survey(memory, sys_folder).functions()) == 2


def test_a_module_loaded_later_is_seen_and_one_unloaded_is_gone(sys_folder: Path) -> None:
    survey = Survey(sys=sys_folder)
    assert survey.functions().names == {"ip_rcv"}
    module = sys_folder / "kernel/btf/empty"
    module.write_bytes(struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 0))  # no types of its own
    (sys_folder / "module/empty/notes").mkdir(parents=True)
    (sys_folder / "module/empty/notes/.note.gnu.build-id").write_bytes(b"id")
    survey.functions()
    assert set(survey._memory.parts) == {KERNEL, "empty"}
    module.unlink()
    assert survey.functions().names == {"ip_rcv"}


def test_without_a_list_of_traceable_functions_a_remedy_is_named(sys_folder: Path) -> None:
    (sys_folder / "kernel/tracing/available_filter_functions").unlink()
    with pytest.raises(Unsupported, match=r"available_filter_functions: No such file.*mount -t tracefs"):
        Survey(sys=sys_folder).functions()


# -- the command --------------------------------------------------------------------------------


def test_selection_and_table() -> None:
    known = functions("ip_rcv", "ipv6_rcv", "ip_forward", "nft_do_chain", "skb_push")
    chosen = listing.select(known, layer="IPv4", priority=0, match="ip_*")
    assert list(listing.to_lines(chosen)) == [
        "LAYER       PRIORITY  ARGUMENT          MODULE            FUNCTION",
        "IPv4        0         1: sk_buff        vmlinux           ip_forward",
        "IPv4        0         1: sk_buff        vmlinux           ip_rcv",
        "2 functions can be traced, 0 can't",
    ]
    everything = list(listing.to_lines(listing.select(known, layer=None, priority=None, match=None)))
    assert everything[-2:] == ["not traceable: dst_output: it is inlined", "5 functions can be traced, 1 can't"]
    assert b'"kernel_name": "nft_do_chain"' in listing.to_json(known)


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"layer": "netfiltr"}, "there is no layer 'netfiltr'; use Netfilter"),
        ({"match": "ip_rvc*"}, "no function that takes a packet is like 'ip_rvc*'; did you mean ip_rcv"),
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
    sys_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Survey, "functions", lambda _: functions("ip_rcv"))
    assert main(["discover", "--output", str(sys_folder / "absent" / "functions.json")]) == 2
    assert "functions.json can't be written: No such file or directory" in capsys.readouterr().err
    assert main(["discover", "--output", str(sys_folder / "functions.json")]) == 0
    assert b"ip_rcv" in (sys_folder / "functions.json").read_bytes()


@pytest.mark.kernel
def test_the_kernel_we_stand_on(capsys: pytest.CaptureFixture[str]) -> None:
    survey = Survey()
    known = survey.functions()
    assert len(known) > 1000
    assert {"ip_rcv", "nf_hook_slow", "__dev_queue_xmit"} <= known.names
    unknown = [function.name for function in known if function.layer == "Unknown"]
    assert len(unknown) < len(known) / 100, unknown
    assert Survey(survey.to_bytes()).functions() == known
    assert main(["discover", "--layer", "IPv4", "--priority", "0"]) == 0
    assert "1: sk_buff        vmlinux           ip_rcv\n" in capsys.readouterr().out
