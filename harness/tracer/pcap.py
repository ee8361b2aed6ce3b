"""Packet filters in the language of pcap-filter(7), as C for bpf/trace.c.

libpcap compiles an expression for the classic BPF machine of the kernel's packet sockets. That has two
registers, sixteen words of memory and no jump backwards, so each instruction is one line of C.
Source: Linux Documentation/networking/filter.rst, include/uapi/linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

from harness.errors import HarnessError, Unsupported

LIBRARY = "libpcap.so.0.8"
ETHERNET = 1
"""DLT_EN10MB; bpf/trace.c shows a packet without an Ethernet header as if it had one."""
WHOLE = 262144
"""Bytes that libpcap may look at; the tracer looks at the linear data."""
NO_MASK = 0xFFFFFFFF
"""PCAP_NETMASK_UNKNOWN: an expression can't ask for the network's broadcast address."""

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
IMM, ABS, IND, MEM, LEN, MSH = range(0, 0xC0, 0x20)
BYTES = {0x00: 4, 0x08: 2, 0x10: 1}
OPERATORS = {0x00: "+", 0x10: "-", 0x20: "*", 0x40: "|", 0x50: "&", 0x60: "<<", 0x70: ">>", 0xA0: "^"}
DIVISIONS = {0x30: "/", 0x90: "%"}
TESTS = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}


class Instruction(NamedTuple):
    """``struct sock_filter``: what, jumps if true and if false, and a constant."""

    code: int
    jt: int
    jf: int
    k: int


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction))]


def in_c(expression: str) -> str:
    """``expression`` as the body of ``wanted()`` in bpf/trace.c.

    Raises :class:`HarnessError` when it is none, :class:`Unsupported` without libpcap.
    """
    return translate(assemble(expression))


def assemble(expression: str) -> list[Instruction]:
    """``expression`` as libpcap compiles it; raises as :func:`in_c`."""
    try:
        pcap = ctypes.CDLL(LIBRARY)
    except OSError:
        raise Unsupported(
            "filters need libpcap, which is not here", remedy="run apt-get install libpcap0.8, or leave out the filter"
        ) from None
    pcap.pcap_open_dead.restype = ctypes.c_void_p
    pcap.pcap_geterr.restype = ctypes.c_char_p
    handle = ctypes.c_void_p(pcap.pcap_open_dead(ETHERNET, WHOLE))
    program = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, ctypes.c_uint(NO_MASK)):
            why = pcap.pcap_geterr(handle).decode(errors="replace")
            raise HarnessError(f"{expression!r} is no packet filter: {why}", remedy="see pcap-filter(7)")
        try:
            return [Instruction(one.code, one.jt, one.jf, one.k) for one in program.instructions[: program.length]]
        finally:
            pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)


def translate(program: list[Instruction]) -> str:
    """The instructions in C, on one line; they load by ``LOAD(variable, bytes, offset)``, from ``view``."""
    targets = {target for number, one in enumerate(program) for target in _targets(number, one)}
    memory = sorted({one.k for one in program if one.code & 7 in (ST, STX)})
    words = "".join(f" u32 M{word} = 0;" for word in memory)
    lines = (
        (f"l{number}: " if number in targets else "") + _line(number, instruction)
        for number, instruction in enumerate(program)
    )
    return f"u32 A = 0, X = 0;{words} " + " ".join(lines)


def _targets(number: int, one: Instruction) -> Iterator[int]:
    if one.code & 7 == JMP:
        if one.code & 0xF0 == 0:
            yield number + 1 + one.k
        else:
            yield number + 1 + one.jt
            yield number + 1 + one.jf


def _line(number: int, one: Instruction) -> str:
    kind, operation = one.code & 7, one.code & 0xF0
    operand = "X" if one.code & 8 else f"{one.k}U"
    if kind in (LD, LDX):
        return _load("A" if kind == LD else "X", one)
    if kind in (ST, STX):
        return f"M{one.k} = {'A' if kind == ST else 'X'};"
    if kind == ALU:
        if operation == 0x80:
            return "A = -A;"
        if operation in DIVISIONS:  # by zero makes an expression false
            return f"if (!{operand}) return 0; A {DIVISIONS[operation]}= {operand};"
        if operation in (0x60, 0x70):
            return f"A = {operand} < 32 ? A {OPERATORS[operation]} ({operand} & 31) : 0;"
        return f"A {OPERATORS[operation]}= {operand};"
    if kind == JMP:
        if operation == 0:
            return f"goto l{number + 1 + one.k};"
        return f"if (A {TESTS[operation]} {operand}) goto l{number + 1 + one.jt}; goto l{number + 1 + one.jf};"
    if kind == RET:
        return "return A;" if one.code & 0x18 == 0x10 else f"return {int(one.k > 0)};"
    return "A = X;" if one.code & 0x80 else "X = A;"


def _load(register: str, one: Instruction) -> str:
    mode, size = one.code & 0xE0, BYTES[one.code & 0x18]
    if mode == IMM:
        return f"{register} = {one.k}U;"
    if mode == MEM:
        return f"{register} = M{one.k};"
    if mode == LEN:
        return f"{register} = view.length;"
    if mode == MSH:  # the length of an IPv4 header, from its first byte
        return f"LOAD(X, 1, {one.k}U); X = (X & 15) * 4;"
    if one.k >= 0xFFFFF000:
        raise HarnessError("the filter asks for what only a capture knows, such as inbound or the VLAN tag taken off")
    return f"LOAD({register}, {size}, {'X + ' if mode == IND else ''}{one.k}U);"
