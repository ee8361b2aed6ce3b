from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.linux.btf import FOLDER, Argument, Btf, Parameter, TypeKind


class Blob:
    """BTF written by hand, as Documentation/bpf/btf.rst says."""

    def __init__(self, base: Blob | None = None) -> None:
        self.known = dict(base.known) if base else {"": 0}
        self.next_string = base.next_string if base else 1
        self.next_id = base.next_id if base else 1
        self.types = b""
        self.strings = b"" if base else b"\0"

    def string(self, text: str) -> int:
        if text not in self.known:
            self.known[text] = self.next_string
            self.strings += text.encode() + b"\0"
            self.next_string += len(text) + 1
        return self.known[text]

    def add(self, kind: int, name: str = "", size: int = 0, *rest: int, vlen: int = 0, flag: bool = False) -> int:
        """A type with ``size``, which is the id of another type for some kinds; ``rest`` are the words after it."""
        info = vlen | kind << 24 | flag << 31
        self.types += struct.pack(f"={3 + len(rest)}I", self.string(name), info, size, *(w % (1 << 32) for w in rest))
        self.next_id += 1
        return self.next_id - 1

    def compound(self, kind: TypeKind, name: str, size: int, *members: tuple[str, int, int], flag: bool = False) -> int:
        rest = [word for text, type_id, bit in members for word in (self.string(text), type_id, bit)]
        return self.add(kind, name, size, *rest, vlen=len(members), flag=flag)

    def function(self, name: str, result: int, *parameters: tuple[str, int]) -> int:
        rest = [word for text, type_id in parameters for word in (self.string(text), type_id)]
        proto = self.add(TypeKind.FUNC_PROTO, "", result, *rest, vlen=len(parameters))
        return self.add(TypeKind.FUNC, name, proto, vlen=1)

    def bytes(self, layout: bytes = b"") -> bytes:
        size = len(self.types)
        header = struct.pack("=HBBI", 0xEB9F, 1, 0, 32 if layout else 24)
        header += struct.pack("=IIII", 0, size, size, len(self.strings))
        if layout:
            header += struct.pack("=II", size + len(self.strings), len(layout))
        return header + self.types + self.strings + layout


def kernel() -> Blob:
    blob = Blob()
    number = blob.add(TypeKind.INT, "int", 4, 32)
    word = blob.add(TypeKind.INT, "unsigned int", 4, 32)
    byte = blob.add(TypeKind.INT, "u8", 1, 8)
    blob.add(TypeKind.FLOAT, "double", 8)
    name = blob.add(TypeKind.ARRAY, "", 0, byte, word, 16)
    net = blob.compound(TypeKind.STRUCT, "net", 64)
    net_pointer = blob.add(TypeKind.PTR, "", net)
    possible = blob.compound(TypeKind.STRUCT, "", 8, ("net", net_pointer, 0))
    possible_net_t = blob.add(TypeKind.TYPEDEF, "possible_net_t", possible)
    device = blob.compound(TypeKind.STRUCT, "net_device", 32, ("name", name, 0), ("nd_net", possible_net_t, 128))
    device_pointer = blob.add(TypeKind.PTR, "", device)
    inner = blob.compound(TypeKind.STRUCT, "", 16, ("next", device_pointer, 0), ("dev", device_pointer, 64))
    union = blob.compound(TypeKind.UNION, "", 16, ("", inner, 0), ("rbnode", word, 0))
    flags = blob.compound(TypeKind.STRUCT, "", 1, ("cloned", byte, 1 << 24), ("nohdr", byte, 1 << 24 | 1), flag=True)
    packet = blob.compound(TypeKind.STRUCT, "sk_buff", 32, ("", union, 64), ("len", word, 192), ("", flags, 224))
    const_packet = blob.add(TypeKind.CONST, "", packet)
    tagged = blob.add(TypeKind.TYPE_TAG, "rcu", packet)
    pointer = blob.add(TypeKind.PTR, "", packet)
    const_pointer = blob.add(TypeKind.PTR, "", const_packet)
    blob.add(TypeKind.PTR, "", blob.add(TypeKind.VOLATILE, "", tagged))
    pointer_to_pointer = blob.add(TypeKind.PTR, "", pointer)
    fixed_pointer = blob.add(TypeKind.RESTRICT, "", pointer)
    unseen = blob.add(TypeKind.PTR, "", blob.add(TypeKind.FWD, "sock"))
    anything = blob.add(TypeKind.PTR)
    blob.add(TypeKind.ENUM, "skb_drop_reason", 4, blob.string("NOT_DROPPED"), 0, blob.string("NO_SOCKET"), 3, vlen=2)
    blob.add(TypeKind.ENUM, "verdict", 4, blob.string("CONTINUE"), -1, blob.string("BREAK"), -2, vlen=2, flag=True)
    blob.add(TypeKind.ENUM64, "wide", 8, blob.string("TOP"), 0, 1 << 31, vlen=1)
    received = blob.function("ip_rcv", number, ("skb", pointer), ("dev", device_pointer))
    blob.add(TypeKind.DECL_TAG, "kfunc", received, -1)
    blob.function("ip_fragment", number, ("net", net_pointer), ("sk", unseen), ("skb", fixed_pointer))
    blob.function("core", number, ("pskb", pointer_to_pointer), ("skb", const_pointer))
    blob.function("printk", number, ("format", anything), ("", 0))
    blob.function("nothing", 0)
    variable = blob.add(TypeKind.VAR, "jiffies", word, 1)
    blob.add(TypeKind.DATASEC, ".data", 4, variable, 0, 4, vlen=1)
    return blob


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(kernel().bytes())


def test_offsets_reach_through_anonymous_members_and_dots(btf: Btf) -> None:
    assert btf.offset("sk_buff", "next") == 8
    assert btf.offset("sk_buff", "dev") == 16
    assert btf.offset("sk_buff", "rbnode") == 8
    assert btf.offset("sk_buff", "len") == 24
    assert btf.offset("net_device", "nd_net.net") == 16
    assert btf.offset("possible_net_t", "net") == 0


def test_sizes(btf: Btf) -> None:
    assert btf.size("sk_buff") == 32
    assert btf.member_size("net_device", "name") == 16
    assert btf.member_size("net_device", "nd_net") == 8
    assert btf.member_size("sk_buff", "len") == 4


def test_bitfields_have_a_bit_and_a_width_but_no_offset(btf: Btf) -> None:
    assert btf.bitfield("sk_buff", "cloned") == (224, 1)
    assert btf.bitfield("sk_buff", "nohdr") == (225, 1)
    assert btf.bitfield("sk_buff", "len") == (192, 32)
    with pytest.raises(Unsupported, match="nohdr is a bitfield"):
        btf.offset("sk_buff", "nohdr")


def test_what_is_absent_is_said_in_a_sentence(btf: Btf) -> None:
    assert btf.has("sk_buff")
    assert btf.has("sk_buff", "dev")
    assert not btf.has("sk_buff", "de")
    assert not btf.has("sk_buff", "dev.name")  # a pointer is not followed
    assert not btf.has("int")
    for ask, sentence in [
        (lambda: btf.offset("sk_buff", "mark"), "struct sk_buff has no member 'mark' in this kernel"),
        (lambda: btf.size("nft_pktinfo"), "the BTF of vmlinux has no struct nft_pktinfo"),
        (lambda: btf.enum("colour"), "this kernel has no enum colour"),
        (lambda: btf.parameters("ip_vrc"), "the BTF of vmlinux has no function ip_vrc"),
    ]:
        with pytest.raises(Unsupported) as caught:
            ask()
        assert caught.value.sentence == sentence


def test_enums_of_all_sizes(btf: Btf) -> None:
    assert btf.enum("skb_drop_reason") == {0: "NOT_DROPPED", 3: "NO_SOCKET"}
    assert btf.enum("verdict") == {-1: "CONTINUE", -2: "BREAK"}
    assert btf.enum("wide") == {1 << 63: "TOP"}


def test_parameters_are_spelled_as_in_c(btf: Btf) -> None:
    assert btf.parameters("ip_rcv") == (
        Parameter("skb", "struct sk_buff *"),
        Parameter("dev", "struct net_device *"),
    )
    assert btf.parameters("ip_fragment")[1:] == (
        Parameter("sk", "struct sock *"),
        Parameter("skb", "struct sk_buff * restrict"),
    )
    assert btf.parameters("core") == (
        Parameter("pskb", "struct sk_buff **"),
        Parameter("skb", "const struct sk_buff *"),
    )
    assert btf.parameters("printk") == (Parameter("format", "void *"), Parameter("", "..."))
    assert btf.parameters("nothing") == ()


def test_arguments_see_through_qualifiers_and_tags(btf: Btf) -> None:
    assert list(btf.arguments(["sk_buff", "nft_pktinfo"])) == [
        Argument("ip_rcv", 0, "sk_buff *"),
        Argument("ip_fragment", 2, "sk_buff *"),
        Argument("core", 0, "sk_buff **"),
        Argument("core", 1, "sk_buff *"),
    ]


def test_a_module_builds_on_the_kernel() -> None:
    base = kernel()
    blob = Blob(base)
    pointer = next(n for n in range(1, base.next_id) if Btf(base.bytes())._spell(n) == "struct sk_buff *")
    info = blob.compound(TypeKind.STRUCT, "nft_pktinfo", 16, ("skb", pointer, 0), ("len", 1, 64))
    info_pointer = blob.add(TypeKind.PTR, "", info)
    blob.function("nft_do_chain", 1, ("pkt", info_pointer))
    blob.function("nft_log", 0, ("skb", pointer), ("dev", 0))
    blob.compound(TypeKind.STRUCT, "net", 1)  # another struct of this name: the kernel's goes first
    module = Btf(blob.bytes(), Btf(base.bytes()), "nf_tables")

    assert module.offset("nft_pktinfo", "len") == 8
    assert module.offset("sk_buff", "dev") == 16
    assert module.size("net") == 64
    assert module.parameters("nft_do_chain") == (Parameter("pkt", "struct nft_pktinfo *"),)
    assert module.parameters("ip_rcv")[0].name == "skb"
    assert list(module.arguments(["sk_buff", "nft_pktinfo"])) == [
        Argument("nft_do_chain", 0, "nft_pktinfo *"),
        Argument("nft_log", 0, "sk_buff *"),
    ]


def test_kinds_of_the_future_are_stepped_over_with_the_layout_that_btf_brings() -> None:
    blob = Blob()
    blob.add(25, "novelty", 0, 7, 7, 7, vlen=1)  # one word of its own, two for its element
    blob.compound(TypeKind.STRUCT, "sk_buff", 232)
    layout = bytes(4 * 25) + struct.pack("=BBH", 4, 8, 0)
    assert Btf(blob.bytes(layout)).size("sk_buff") == 232


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:10], "cut short"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: b"\x9f\xeb" + data[2:] if data[0] != 0x9F else b"\xeb\x9f" + data[2:], "unknown kind"),
        (lambda data: data[:28] + b"\xff\xff\x00\x04" + data[32:], "damaged"),
    ],
)
def test_damage_is_noticed(damage, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unsupported, match=sentence):
        Btf(damage(kernel().bytes()))


def test_no_btf_is_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="CONFIG_DEBUG_INFO_BTF=y"):
        Btf.vmlinux(tmp_path)
    (tmp_path / "vmlinux").write_bytes(kernel().bytes())
    with pytest.raises(Unsupported, match="run modprobe nf_tables"):
        Btf.module("nf_tables", Btf.vmlinux(tmp_path), tmp_path)


@pytest.mark.skipif(not (FOLDER / "vmlinux").exists(), reason="this kernel has no BTF")
def test_the_kernel_we_stand_on() -> None:
    btf = Btf.vmlinux()
    assert 0 < btf.offset("sk_buff", "dev") < btf.offset("sk_buff", "len") < btf.size("sk_buff") < 400
    assert btf.offset("sock", "__sk_common.skc_cookie") + 8 <= btf.size("sock")
    assert btf.member_size("net_device", "name") == 16  # IFNAMSIZ
    assert btf.bitfield("sk_buff", "cloned")[1] == 1
    assert btf.parameters("ip_rcv")[0] == Parameter("skb", "struct sk_buff *")
    assert "SKB_DROP_REASON_NO_SOCKET" in btf.enum("skb_drop_reason").values()
    assert Argument("ip_rcv", 0, "sk_buff *") in list(btf.arguments(["sk_buff"]))
