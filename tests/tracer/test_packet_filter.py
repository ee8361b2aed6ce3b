"""Packet filters: what libpcap says, and what becomes of it."""

from __future__ import annotations

import struct

import pytest

from harness.errors import HarnessError
from harness.linux.bpf import INSTRUCTION
from harness.tracer import packet_filter

MASK = 0xFFFFFFFF


def run(expression: str, frame: bytes, *, ethernet: bool = True) -> bool:
    """What the compiled expression says of a frame: an interpreter of as much of eBPF as it uses."""
    code = list(INSTRUCTION.iter_unpack(packet_filter.compiled(expression)))
    network = 1 << 32
    view = bytearray(120)
    struct.pack_into(
        "<QIIHH", view, 0, network, len(frame) - 14, len(frame), *struct.unpack("!H", frame[12:14]), ethernet
    )
    registers = dict.fromkeys(range(11), 0)
    at = 0
    while at < len(code):
        opcode, sides, offset, constant = code[at]
        at += 1
        to, source, kind, operation = sides & 15, sides >> 4, opcode & 7, opcode & 0xF0
        other = registers[source] if opcode & 8 else constant & MASK
        if kind == 1:
            size = {0: 4, 8: 2, 0x10: 1, 0x18: 8}[opcode & 0x18]
            registers[to] = int.from_bytes(view[offset : offset + size], "little")
        elif kind == 3:
            size = 8 if opcode & 0x18 else 4
            view[offset : offset + size] = (registers[source] & (1 << size * 8) - 1).to_bytes(size, "little")
        elif operation == 0x80 and kind == 5:
            assert constant == 113
            start, size = registers[3] - network + 14, registers[2]
            view[20 : 20 + size] = frame[start : start + size]
            registers[0] = 0
        elif kind in (5, 6):
            left = registers[to] & MASK
            other &= MASK
            tests = {0: True, 0x10: left == other, 0x20: left > other, 0x30: left >= other, 0x40: bool(left & other)}
            tests |= {0x50: left != other, 0xA0: left < other}
            at += offset if tests[operation] else 0
        elif operation == 0xD0:
            size = constant // 8
            registers[to] = int.from_bytes(registers[to].to_bytes(8, "little")[:size], "big")
        elif kind == 7:
            signed = constant if not opcode & 8 else other
            registers[to] = {0: registers[to] + signed, 0xB0: signed}[operation]
        else:
            left, other = registers[to] & MASK, other & MASK
            results = {
                0: lambda a, b: a + b,
                0x10: lambda a, b: a - b,
                0x20: lambda a, b: a * b,
                0x30: lambda a, b: a // b,
                0x40: lambda a, b: a | b,
                0x50: lambda a, b: a & b,
                0x60: lambda a, b: a << b,
                0x70: lambda a, b: a >> b,
                0x90: lambda a, b: a % b,
                0xA0: lambda a, b: a ^ b,
                0xB0: lambda _, b: b,
            }
            registers[to] = results[operation](left, other) & MASK
    return bool(registers[0])


def packet(protocol: int = 6, ports: tuple[int, int] = (4000, 80), flags: int = 2, length: int = 60) -> bytes:
    head = struct.pack("!6s6sH", b"\2" * 6, b"\4" * 6, 0x800)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 1, 0, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return (head + ip + struct.pack("!HHIIBB", *ports, 0, 0, 0x50, flags)).ljust(length, b"x")


@pytest.mark.parametrize(
    ("expression", "true"),
    [
        ("", True),
        ("tcp", True),
        ("udp", False),
        ("tcp port 80", True),
        ("tcp src port 80", False),
        ("ip6", False),
        ("arp or tcp dst port 80", True),
        ("host 10.0.0.2 and src net 10.0.0.0/8", True),
        ("src host 10.0.0.2", False),
        ("tcp[tcpflags] & tcp-syn != 0 and tcp[tcpflags] & tcp-ack == 0", True),
        ("tcp[tcpflags] & tcp-ack != 0", False),
        ("ip[8] * 2 = 128 and ip[8] - 1 = 63 and ip[8] / 2 = 32 and ip[8] % 10 = 4 and ip[8] << 2 = 256", True),
        ("ip[ip[0] & 15] = 1", True),
        ("10 / tcp[4:4] = 1", False),
        ("len > 50", True),
        ("less 50", False),
        ("ether host 02:02:02:02:02:02", True),
        ("tcp[100] = 1", False),
    ],
)
def test_an_expression_is_true_of_a_packet_or_not(expression: str, *, true: bool) -> None:
    assert run(expression, packet()) is true


def test_what_is_not_there_makes_an_expression_false() -> None:
    assert not run("ether host 02:02:02:02:02:02", packet(), ethernet=False)
    assert run("tcp", packet(), ethernet=False)


def test_a_wrong_expression_is_refused_in_words() -> None:
    with pytest.raises(HarnessError, match=r"'foo bar' is not a valid packet filter: .*syntax error; see pcap-filter"):
        packet_filter.compiled("foo bar")
    with pytest.raises(HarnessError, match="metadata of a packet socket"):
        packet_filter.compiled("inbound")


def test_jumps_over_a_hole_reach_what_they_reached() -> None:
    move, leave = INSTRUCTION.pack(0xB7, 0, 0, 7), INSTRUCTION.pack(0x95, 0, 0, 0)
    over, back = INSTRUCTION.pack(0x15, 0, 2, 0), INSTRUCTION.pack(0x05, 0, -3, 0)
    expression = move * 3
    filled, moved = packet_filter.insert(over + packet_filter.HOLE + move + back + leave, expression)
    assert filled == INSTRUCTION.pack(0x15, 0, 4, 0) + expression + move + INSTRUCTION.pack(0x05, 0, -5, 0) + leave
    assert [moved(number) for number in range(5)] == [0, 1, 4, 5, 6]
