"""Packet filters in the language of pcap-filter(7), as instructions for the BPF program.

libpcap compiles an expression for the classic BPF machine of the kernel's packet sockets: two registers,
sixteen words of memory, no backward jumps. Here it is translated to eBPF, as the kernel does for its sockets, except
that a packet is read by address. The result is inserted into the compiled program, because compiling it again takes
10 s in an emulated guest.
Source: Linux Documentation/networking/filter.rst, include/uapi/linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from harness.errors import HarnessError, Unsupported
from harness.linux.bpf import INSTRUCTION
from harness.tracer.contract import FILTER_CALL, VIEW_OFFSETS

LIBRARY = "libpcap.so.0.8"
ETHERNET = 1
"""DLT_EN10MB; view_packet() in bpf/live.c shows a packet without an Ethernet header as if it had one."""
WHOLE = 262144
"""Bytes that libpcap may look at; the tracer looks at the linear data."""
NO_MASK = 0xFFFFFFFF
"""PCAP_NETMASK_UNKNOWN: an expression can't ask for the network's broadcast address."""

# include/uapi/linux/bpf_common.h and bpf.h: classes of instructions, and what the code of each is made of.
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
JMP32, ALU64 = RET, MISC
"""In eBPF, which returns by a jump and has no other."""
IMM, ABS, IND, MEM, LEN, MSH = range(0, 0xC0, 0x20)
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
DIV, NEG, MOD, MOV, END = 0x30, 0x80, 0x90, 0xB0, 0xD0
JA, JEQ, JGT, JNE, CALL, EXIT, JLT = 0x00, 0x10, 0x20, 0x50, 0x80, 0x90, 0xA0
X = 0x08
PROBE_READ_KERNEL = 113

ANSWER, ARGUMENT, SIZE, SOURCE, VIEW, ACCUMULATOR, INDEX, AT = 0, 1, 2, 3, 6, 7, 8, 9
"""Registers: those of calls, and four that a call must leave as they were."""
NETWORK, LINEAR, LENGTH, PROTOCOL, HAS_ETHERNET, WORD, MEMORY, SAVED = VIEW_OFFSETS.values()
"""Offsets in ``struct packet_view``."""
HEADER = 14
"""Bytes of an Ethernet header, from which on the packet itself can be read."""
FURTHEST = 0xFFFF


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


def compiled(expression: str) -> bytes:
    """``expression`` as the instructions that replace a call of ``run_filter()``; "" is always true.

    Raises :class:`HarnessError` when it is not a valid expression, :class:`Unsupported` without libpcap.
    """
    return translate(assemble(expression) if expression else [Instruction(RET, 0, 0, 1)])


def _libpcap() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        raise Unsupported(
            "filters need libpcap, which is not installed",
            remedy="install libpcap0.8, or leave out the filter",
        ) from None


def offline(expression: str) -> Callable[[bytes], bool]:
    """A function that returns whether a whole Ethernet frame matches ``expression``; raises as :func:`compiled`."""
    instructions = assemble(expression)
    array = (_Instruction * len(instructions))(*(_Instruction(*one) for one in instructions))
    run = _libpcap().bpf_filter
    run.restype = ctypes.c_uint

    def matches(frame: bytes) -> bool:
        return bool(run(array, frame, ctypes.c_uint(len(frame)), ctypes.c_uint(len(frame))))

    return matches


def assemble(expression: str) -> list[Instruction]:
    """``expression`` as libpcap compiles it; raises as :func:`compiled`."""
    pcap = _libpcap()
    pcap.pcap_open_dead.restype = ctypes.c_void_p
    pcap.pcap_geterr.restype = ctypes.c_char_p
    handle = ctypes.c_void_p(pcap.pcap_open_dead(ETHERNET, WHOLE))
    program = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, ctypes.c_uint(NO_MASK)):
            why = pcap.pcap_geterr(handle).decode(errors="replace")
            raise HarnessError(f"{expression!r} is not a valid packet filter: {why}", remedy="see pcap-filter(7)")
        try:
            return [Instruction(one.code, one.jt, one.jf, one.k) for one in program.instructions[: program.length]]
        finally:
            pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)


def translate(program: list[Instruction]) -> bytes:
    """The instructions in eBPF; a load beyond the packet makes the expression false."""
    code = _Code()
    for number, register in enumerate((INDEX, ACCUMULATOR, AT, VIEW)):
        code.add(STX | MEM | 0x18, ARGUMENT, register, at=SAVED + 8 * number)
    code.add(ALU64 | MOV | X, VIEW, ARGUMENT)
    code.move(ACCUMULATOR, 0)
    code.move(INDEX, 0)
    for number, one in enumerate(program):
        code.label(number)
        _add(code, number, one)
    if code.wants(_FALSE):  # the verifier rejects unreachable instructions
        code.label(_FALSE)
        code.move(ANSWER, 0)
    code.label(_END)
    for number, register in enumerate((INDEX, ACCUMULATOR, AT, VIEW)):
        code.read(register, SAVED + 8 * number, 8)
    return code.resolved()


_FALSE, _END = -1, -2
"""Labels, where other labels are the numbers of instructions."""


class _Code:
    """eBPF instructions whose jumps name labels."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, int, int, int | None]] = []
        self._labels: dict[int, int] = {}

    def label(self, name: int) -> None:
        self._labels[name] = len(self._lines)

    def add(self, code: int, to: int = 0, source: int = 0, *, at: int = 0, k: int = 0, goto: int | None = None) -> None:
        self._lines.append((code, to | source << 4, at, k - (1 << 32) if k >> 31 else k, goto))

    def move(self, register: int, constant: int) -> None:
        self.add(ALU | MOV, register, k=constant)

    def copy(self, register: int, source: int) -> None:
        self.add(ALU | MOV | X, register, source)

    def read(self, register: int, offset: int, size: int) -> None:
        """Read ``size`` bytes of the view."""
        code = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}[size]
        self.add(LDX | MEM | code, register, VIEW, at=offset)

    def wants(self, label: int) -> bool:
        return any(goto == label for *_, goto in self._lines)

    def goto(self, target: int) -> None:
        self.add(JMP | JA, goto=target)

    def resolved(self) -> bytes:
        return b"".join(
            INSTRUCTION.pack(code, registers, at if goto is None else self._labels[goto] - number - 1, k)
            for number, (code, registers, at, k, goto) in enumerate(self._lines)
        )


def _add(code: _Code, number: int, one: Instruction) -> None:
    kind, operation, by_index = one.code & 7, one.code & 0xF0, one.code & X
    if kind in (LD, LDX):
        _load(code, ACCUMULATOR if kind == LD else INDEX, one)
    elif kind in (ST, STX):
        code.add(STX | MEM, VIEW, ACCUMULATOR if kind == ST else INDEX, at=MEMORY + 4 * one.k)
    elif kind == ALU:
        if operation in (DIV, MOD) and by_index:
            code.add(JMP32 | JEQ, INDEX, goto=_FALSE)
        if operation == NEG:
            code.add(ALU | NEG, ACCUMULATOR)
        else:
            code.add(one.code, ACCUMULATOR, INDEX if by_index else 0, k=0 if by_index else one.k)
    elif kind == JMP:
        if operation == JA:
            code.goto(number + 1 + one.k)
            return
        condition = JMP32 | operation | by_index
        code.add(condition, ACCUMULATOR, INDEX if by_index else 0, k=0 if by_index else one.k, goto=number + 1 + one.jt)
        code.goto(number + 1 + one.jf)
    elif kind == RET:
        if one.code & 0x18 == 0x10:
            code.copy(ANSWER, ACCUMULATOR)
        else:
            code.move(ANSWER, int(one.k > 0))
        code.goto(_END)
    elif one.code & 0x80:
        code.copy(ACCUMULATOR, INDEX)
    else:
        code.copy(INDEX, ACCUMULATOR)


def _load(code: _Code, register: int, one: Instruction) -> None:
    mode, size = one.code & 0xE0, 1 if one.code & 0xE0 == MSH else SIZES[one.code & 0x18]
    if mode == IMM:
        code.move(register, one.k)
    elif mode == MEM:
        code.read(register, MEMORY + 4 * one.k, 4)
    elif mode == LEN:
        code.read(register, LENGTH, 4)
    elif mode == ABS and (one.k, size) == (HEADER - 2, 2):
        code.read(register, PROTOCOL, 2)
    else:
        _load_packet(code, register, one.k, size, by_index=mode == IND)
    if mode == MSH:  # the length of an IPv4 header, from its first byte
        code.add(ALU | 0x50, register, k=15)
        code.add(ALU | 0x20, register, k=4)


def _load_packet(code: _Code, register: int, at: int, size: int, *, by_index: bool) -> None:
    if at >= 0xFFFFF000:
        raise HarnessError("the filter needs metadata of a packet socket, such as inbound or an offloaded VLAN tag")
    code.move(AT, at)
    if by_index:
        code.add(ALU | X, AT, INDEX)  # the sum
    if by_index or at >= HEADER:
        code.add(JMP32 | JLT, AT, k=HEADER, goto=_FALSE)
        code.add(JMP32 | JGT, AT, k=FURTHEST, goto=_FALSE)
        code.copy(ARGUMENT, AT)
        code.add(ALU, ARGUMENT, k=size - HEADER & 0xFFFFFFFF)
        code.read(SIZE, LINEAR, 4)
        code.add(JMP32 | JGT | X, ARGUMENT, SIZE, goto=_FALSE)
    else:
        code.read(ARGUMENT, HAS_ETHERNET, 2)
        code.add(JMP32 | JEQ, ARGUMENT, goto=_FALSE)
    code.read(SOURCE, NETWORK, 8)
    code.add(ALU64 | X, SOURCE, AT)
    code.add(ALU64, SOURCE, k=-HEADER & 0xFFFFFFFF)
    code.add(ALU64 | MOV | X, ARGUMENT, VIEW)
    code.add(ALU64, ARGUMENT, k=WORD)
    code.move(SIZE, size)
    code.add(JMP | CALL, k=PROBE_READ_KERNEL)
    code.add(JMP32 | JNE, ANSWER, goto=_FALSE)
    code.read(register, WORD, size)
    if size > 1:
        code.add(ALU | END | X, register, k=size * 8)  # to host byte order


HOLE = INSTRUCTION.pack(JMP | CALL, 0, 0, FILTER_CALL)
"""The instruction that an expression replaces: a call of run_filter(), with the view as argument."""


def insert(instructions: bytes, expression: bytes) -> tuple[bytes, Callable[[int], int]]:
    """Replace each :data:`HOLE` of a program by ``expression``.

    Returns the new instructions, and a function from the number of an old instruction to that of the new one.
    """
    lines = [instructions[at : at + INSTRUCTION.size] for at in range(0, len(instructions), INSTRUCTION.size)]
    holes = [number for number, line in enumerate(lines) if line == HOLE]
    growth = len(expression) // INSTRUCTION.size - 1

    def moved(number: int) -> int:
        return number + growth * bisect_left(holes, number)

    filled = []
    for number, line in enumerate(lines):
        code, registers, offset, constant = INSTRUCTION.unpack(line)
        if number in holes:
            filled.append(expression)
            continue
        if code & 7 in (JMP, JMP32) and code & 0xF0 not in (CALL, EXIT):
            offset = moved(number + 1 + offset) - moved(number) - 1
        filled.append(INSTRUCTION.pack(code, registers, offset, constant))
    return b"".join(filled), moved
