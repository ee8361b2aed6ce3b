"""What is beyond a bound is a sentence, within a second or two."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness import bounds, project
from harness.errors import HarnessError, Unsupported
from harness.linux.btf import Btf
from harness.model import stored_results
from harness.model.problem import Problem
from harness.packets.long import packets
from harness.packets.replay import _chosen as chosen
from harness.packets.replay import packets as captured
from harness.packets.spec import Pcap
from harness.scenario.load import load_lab
from harness.scenario.problems import problems
from harness.vm.kernel_image import Image, release_of
from harness.vm.vmlinux import vmlinux

REPOSITORY = Path(__file__).parents[1]


def test_the_documentation_has_every_bound() -> None:
    text = (REPOSITORY / "docs/limitations.md").read_text()
    for name, value in vars(bounds).items():
        if name.isupper():
            said = f"{value >> 20} MiB" if name.endswith("_BYTES") and not value % (1 << 20) else f"{value:,}"
            assert any(f"`{name}`" in line and f"| {said} |" in line for line in text.splitlines()), (name, said)


@pytest.mark.parametrize(
    "text",
    [
        "IP()/" + "/".join(['("A"*65535)'] * 30),
        "IP(ttl=(1,200))/UDP(dport=(1,5))/" + "/".join(['("A"*65535)'] * 15),
        "IP()/Raw(load=[" + ",".join(["b'A'*65535"] * 40) + "])",
        "IP(ttl=(1,200))/UDP(dport=(1,5))/('A'*65535)",
    ],
)
def test_an_expression_has_a_budget(text: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Problem, match=r"is the limit|bytes together"):
        packets(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize("text", ["1-600000000", ",".join(["1-600"] * 3000), "1-" + "9" * 5000, "1" * 5000])
def test_packets_of_a_capture_are_counted_before_they_are_chosen(text: str) -> None:
    with pytest.raises(Problem):
        chosen(text, 1000)


def _lab(folder: Path, count: int) -> Path:
    device = ", ".join(f"e{n}: [10.{n // 250}.{n % 250}.1/24]" for n in range(count))
    hosts = "".join(
        f"  h{n}: {{interfaces: {{eth0: [10.{n // 250}.{n % 250}.2/24]}}, gateway: device}}\n" for n in range(count)
    )
    links = "".join(f"  - [device:e{n}, h{n}:eth0]\n" for n in range(count))
    (file := folder / "lab.yaml").write_text(f"hosts:\n  device: {{interfaces: {{{device}}}}}\n{hosts}links:\n{links}")
    return file


def test_a_lab_of_many_hosts_works_or_is_refused(tmp_path: Path) -> None:
    network = load_lab(_lab(tmp_path, bounds.HOSTS - 1))
    addresses = {one.mac for one in network.interfaces}
    assert len(addresses) == 2 * (bounds.HOSTS - 1)
    assert all(len(bytes.fromhex(one.replace(":", ""))) == 6 for one in addresses)
    with pytest.raises(HarnessError, match=f"hosts: has {bounds.HOSTS + 1} hosts, and {bounds.HOSTS} is the limit"):
        load_lab(_lab(tmp_path, bounds.HOSTS))


def test_a_lab_of_many_interfaces_is_refused(tmp_path: Path) -> None:
    interfaces = ", ".join(f"e{n}: []" for n in range(bounds.INTERFACES + 1))
    (file := tmp_path / "lab.yaml").write_text(f"hosts:\n  device: {{interfaces: {{{interfaces}}}}}\nlinks: []\n")
    with pytest.raises(HarnessError, match="hosts: has 2,049 interfaces, and 2,048 is the limit"):
        load_lab(file)


READERS: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "results": ("a.nft.json", bounds.RESULT_BYTES, lambda file: stored_results.load([file])),
    "settings": ("pytest.ini", bounds.SETTINGS_BYTES, lambda file: project.find([file], file.parent)),
    "kernel": ("vmlinuz", bounds.KERNEL_BYTES, release_of),
    "kernel-to-unpack": (
        "vmlinuz",
        bounds.KERNEL_BYTES,
        lambda file: vmlinux(Image(release="6.1", vmlinuz=file, modules=file.parent, config=None)),
    ),
}


@pytest.mark.parametrize(("name", "limit", "read"), READERS.values(), ids=READERS)
def test_a_file_that_is_too_large_is_a_sentence(
    tmp_path: Path, name: str, limit: int, read: Callable[[Path], object]
) -> None:
    with (file := tmp_path / name).open("wb") as written:
        written.truncate(limit + 1)
    with pytest.raises(HarnessError, match=rf"{name}.* [Ii]s larger than {limit >> 20} MiB"):
        read(file)


@pytest.mark.parametrize("place", ["the scenario file", "a lab", "a ruleset", "a capture", "a payload"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge", "link", "nul"])
def test_what_is_no_file_of_the_project_is_a_sentence(tmp_path: Path, place: str, kind: str) -> None:
    (root := tmp_path / "project").mkdir()
    (root / "pytest.ini").touch()
    (root / "labs").mkdir()
    (root / "ok.nft").touch()
    (tmp_path / "secret").write_text("secret: TOPSECRET\n")
    suffix = {"a ruleset": "nft", "a capture": "pcap", "a payload": "bin"}.get(place, "yaml")
    odd = root / "labs" / f"odd.{suffix}"
    name = f"labs/odd.{suffix}"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    elif kind == "folder":
        odd.mkdir()
    elif kind == "huge":
        with odd.open("wb") as file:
            file.truncate(1 << 34)
        if place == "a ruleset":
            pytest.skip("nft is given rulesets when scenarios run, see tests/ruleset")
    elif kind == "link":
        odd.symlink_to(tmp_path / "secret")
    else:
        name = "a\\0b.yaml"
    if place == "the scenario file":
        if kind == "nul":
            pytest.skip("no file has such a name")
        (root / "edge.yaml").symlink_to(odd)
    else:
        lab = f'"{name}"' if place == "a lab" else "router"
        more = {"a capture": f', pcap: "{name}"', "a payload": f', udp: {{dport: 5}}, payload: {{file: "{name}"}}'}
        send = f"{{from: client, to: server{more.get(place, ', udp: {dport: 5}')}}}"
        if place == "a capture":
            send = send.replace(", to: server", "")
        ruleset = f'"{name}"' if place == "a ruleset" else "ok.nft"
        text = f"lab: {lab}\nruleset: {ruleset}\nscenarios:\n  - {{name: a, send: {send}, expect: {{verdict: drop}}}}\n"
        (root / "edge.yaml").write_text(text)
    found = problems(root / "edge.yaml")
    assert found
    assert not any("TOPSECRET" in str(one) for one in found)


def test_a_kernel_image_that_was_cut_off_or_changed_is_a_sentence(tmp_path: Path) -> None:
    whole = bytearray(0x8000)
    whole[0x1FE:0x200], whole[0x202:0x206] = b"\x55\xaa", b"HdrS"
    struct.pack_into("<II", whole, 0x248, 0, 64)
    whole[5 * 512 : 5 * 512 + 4] = b"\x28\xb5\x2f\xfd"
    whole[5 * 512 + 60 : 5 * 512 + 64] = b"\xff\xff\xff\xff"
    for number, data in enumerate((bytes(whole), b"", bytes(whole[:0x1F0]), bytes(whole[:0x250]), b"\0" * 0x200)):
        (file := tmp_path / f"vmlinuz{number}").write_bytes(data)
        image = Image(release="6.1", vmlinuz=file, modules=tmp_path, config=None)
        with pytest.raises(HarnessError, match="is not a complete kernel image; fetch it again"):
            vmlinux(image)
        with pytest.raises(Unsupported, match="is not a kernel image"):
            release_of(file)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unsupported, match="Is a FIFO"):
        release_of(tmp_path / "fifo")


def test_a_release_is_no_path(tmp_path: Path) -> None:
    whole = bytearray(0x1000)
    whole[0x1FE:0x200], whole[0x202:0x206] = b"\x55\xaa", b"HdrS"
    whole[0x20E:0x210] = b"\x00\x01"
    whole[0x300:0x310] = b"../../etc x\0\0\0\0\0"
    (tmp_path / "vmlinuz").write_bytes(whole)
    with pytest.raises(Unsupported, match="names no release"):
        release_of(tmp_path / "vmlinuz")


def test_changed_captures_are_a_sentence_or_packets(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    ipv6 = bytes(12) + b"\x86\xdd" + b"\x60" + bytes(3) + b"\0\x08\0\x40" + bytes(32)  # an extension header is cut off
    for frame in (ipv6, ipv6[:20], bytes(14), bytes(12) + b"\x08\0E", b""):
        file.write_bytes(head + struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
        with suppress(Problem):
            assert captured(Pcap(file=str(file)))


def _asks(btf: Btf) -> None:
    list(btf.arguments(["sk_buff"]))
    btf.has("sk_buff", "len")
    for name in ("", "x"):
        for ask in (btf.size, btf.enum, btf.parameters, btf.function):
            with suppress(Unsupported):
                ask(name)


def test_what_is_no_btf_is_a_sentence() -> None:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 4)
    for data in (b"", header, header[:9], b"\x9f\xeb" + b"\xff" * 40):
        with pytest.raises(HarnessError):
            Btf(data)


def test_changed_btf_is_a_sentence_or_answers() -> None:
    strings = b"\0sk_buff\0x\0"
    types = struct.pack(
        "<3I3I 3I 3I2I 3I 3I 3I2I",
        *(1, 4 << 24 | 1, 8, 9, 3, 0),  # struct sk_buff { x }
        *(0, 2 << 24, 1),  # a pointer to it
        *(0, 13 << 24 | 1, 0, 9, 2),  # a prototype that takes one
        *(9, 12 << 24, 3),  # a function
        *(9, 8 << 24, 6),  # a typedef of the next
        *(9, 6 << 24 | 1, 4, 9, 0),  # an enum
    )
    whole = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    _asks(Btf(whole))
    for at in range(24, len(whole)):
        for byte in (0, 1, 5, 8, 0x7F, 0xFF):
            with suppress(HarnessError):
                _asks(Btf(whole[:at] + bytes([byte]) + whole[at + 1 :]))
