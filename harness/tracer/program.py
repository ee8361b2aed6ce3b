"""The BPF program: the sources in bpf/, compiled by BCC for one kernel, and loaded into it.

No kernel headers are needed: the few stub headers in bpf/shim satisfy BCC's own, and every offset into a kernel
struct is a constant taken from BTF.

Compiling takes 0.4 s natively but 6 s under emulation, and 150 MiB. So the result, an :class:`Object`, is plain data:
it can be stored and loaded into the same kernel again.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from harness.errors import KILLED, MORE_MEMORY, BrokenMeasurement, Unsupported, shortage, shortage_in
from harness.linux import bpf
from harness.text import last_sentence
from harness.tracer import contract, events, packet_filter
from harness.tracer.survey import Layout
from harness.vm.machine import die_with

if TYPE_CHECKING:
    from harness.linux.addresses import Addresses

SOURCES = next(
    folder for folder in (Path(__file__).parents[1] / "bpf", Path(__file__).parents[2] / "bpf") if folder.is_dir()
)
"""In a wheel the sources are inside the package, in a checkout beside it."""

RING = "events"
RING_BYTES = 8 << 20
"""Room for 131,000 events: 0.04 s at three million events a second."""
MAX_FUNCTIONS = 8192
MAX_SEGMENTS = 64
"""Segments that one skb_segment() may return; a GSO packet of 64 KiB has 45 at an MTU of 1,500."""

OFFSETS = {
    "SKB_NEXT": ("sk_buff", "next"),
    "SKB_DEV": ("sk_buff", "dev"),
    "SKB_SK": ("sk_buff", "sk"),
    "SKB_DST": ("sk_buff", "_skb_refdst"),
    "SKB_HEAD": ("sk_buff", "head"),
    "SKB_DATA": ("sk_buff", "data"),
    "SKB_TAIL": ("sk_buff", "tail"),
    "SKB_LEN": ("sk_buff", "len"),
    "SKB_PROTOCOL": ("sk_buff", "protocol"),
    "SKB_MAC": ("sk_buff", "mac_header"),
    "SKB_NETWORK": ("sk_buff", "network_header"),
    "DST_DEV": ("dst_entry", "dev"),
    "DEV_IFINDEX": ("net_device", "ifindex"),
    "DEV_NAME": ("net_device", "name"),
    "DEV_NET": ("net_device", "nd_net.net"),
    "NET_INUM": ("net", "ns.inum"),
    "SOCK_COOKIE": ("sock", "__sk_common.skc_cookie"),
    "SOCK_NET": ("sock", "__sk_common.skc_net.net"),
    "PACKET_TYPE_PRIV": ("packet_type", "af_packet_priv"),
    "PKTINFO_SKB": ("nft_pktinfo", "skb"),
    "PKTINFO_STATE": ("nft_pktinfo", "state"),
    "STATE_HOOK": ("nf_hook_state", "hook"),
    "STATE_PF": ("nf_hook_state", "pf"),
    "CHAIN_TABLE": ("nft_chain", "table"),
    "CHAIN_NAME": ("nft_chain", "name"),
    "CHAIN_HANDLE": ("nft_chain", "handle"),
    "CHAIN_LIST": ("nft_chain", "list"),
    "CHAIN_BLOB_0": ("nft_chain", "blob_gen_0"),
    "CHAIN_BLOB_1": ("nft_chain", "blob_gen_1"),
    "TABLE_CHAINS": ("nft_table", "chains"),
    "VERDICT_CHAIN": ("nft_verdict", "chain"),
    "RT_GATEWAY": ("rtable", "rt_gw4"),
    "RT_TYPE": ("rtable", "rt_type"),
    "TABLE_NAME": ("nft_table", "name"),
}
OPTIONAL = {
    # Until v6.4 struct nft_traceinfo had everything that nft_trace_notify() reports.
    "TRACEINFO_PKT": ("nft_traceinfo", "pkt"),
    "TRACEINFO_RULE": ("nft_traceinfo", "rule"),
    "TRACEINFO_SKBID": ("nft_traceinfo", "skbid"),
    # A kernel may have IPv6 as a module.
    "RT6_GATEWAY": ("rt6_info", "rt6i_gateway"),
}


def cookie(function: int, position: int, *, pktinfo: bool) -> int:
    """The cookie of a probe: the function's number, which argument (from 0) leads to the packet, and as what.

    ``pktinfo``: the argument is a ``struct nft_pktinfo *`` instead of a ``struct sk_buff *``.
    """
    return function | position << contract.COOKIE_POSITION_SHIFT | (contract.COOKIE_PKTINFO if pktinfo else 0)


def source_files(values: Collection[str]) -> tuple[str, ...]:
    """The files in bpf/ that make up the program with the constants ``values``, in order.

    ``LIVE`` selects the program of ``nft-harness trace``, ``TRACEPOINTS`` that without probes on functions.
    """
    if "TRACEPOINTS" in values:
        return "contract.h", "core.c", "scenario.c", "tracepoints.c"
    if "LIVE" in values:
        return "contract.h", "core.c", "live.c", "probes.c"
    return "contract.h", "core.c", "scenario.c", "lab.c", "probes.c"


def constants(nf_tables: Layout) -> dict[str, int]:
    """The ``-D`` constants of the program for this kernel; ``nf_tables`` is the layout of that module's structs."""
    values = {name: nf_tables.offset(*member) for name, member in OFFSETS.items()}
    values |= {
        name: nf_tables.offset(*member) if nf_tables.has(*member) else contract.NO_MEMBER
        for name, member in OPTIONAL.items()
    }
    family, bits = nf_tables.bitfield("nft_table", "family")
    values |= {"TABLE_FAMILY": family // 8, "TABLE_FAMILY_MASK": (1 << bits) - 1}
    shift, bits = nf_tables.bitfield("nft_rule_dp", "handle")
    dlen, dlen_bits = nf_tables.bitfield("nft_rule_dp", "dlen")
    values |= {"RULE_DLEN_SHIFT": dlen, "RULE_DLEN_BITS": dlen_bits}
    # A base chain is a chain inside a struct that knows its hook.
    priority, chain = (nf_tables.offset("nft_base_chain", member) for member in ("ops.priority", "chain"))
    values["PRIORITY_BEFORE_CHAIN"] = chain - priority
    return values | {"RULE_HANDLE_SHIFT": shift, "RULE_HANDLE_BITS": bits}


def ring_bytes(kib: int | None) -> int:
    """Size in bytes of a ring buffer of ``kib`` KiB, rounded up to a power of two of at least a page.

    None stands for the default, :data:`RING_BYTES`; :data:`harness.numbers.MOST_BUFFER_KIB` is the most.
    """
    if kib is None:
        return RING_BYTES
    return max(1 << (kib * 1024 - 1).bit_length(), os.sysconf("SC_PAGESIZE"))


class MapSpec(msgspec.Struct, frozen=True):
    """A map that the programs use; sizes in bytes."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


class Code(msgspec.Struct, frozen=True):
    """A program's instructions, with the map that each of those numbered in ``maps`` loads."""

    instructions: bytes
    maps: dict[int, str]


class Object(msgspec.Struct, frozen=True):
    """The program compiled for one kernel."""

    maps: tuple[MapSpec, ...]
    programs: dict[str, Code]


def with_filter(source: Object, expression: str) -> Object:
    """``source`` with a pcap expression in place: only packets that it matches are followed."""
    code = packet_filter.compiled(expression)
    programs = {}
    for name, program in source.programs.items():
        instructions, moved = packet_filter.insert(program.instructions, code)
        programs[name] = Code(instructions, {moved(index): used for index, used in program.maps.items()})
    return msgspec.structs.replace(source, programs=programs)


def compile_object(values: Mapping[str, int | str]) -> Object:
    """Compile the program with BCC; ``values`` are its :func:`constants` and what an engine adds.

    It runs in a process of its own: the compiler's 150 MiB are freed, and BCC 0.26 may crash when it compiles a
    second time. Raises :class:`Unsupported` with the compiler's last line, and :class:`BrokenMeasurement` where memory
    was short.
    """
    command = [sys.executable, "-m", "harness.tracer.program"]
    done = subprocess.run(
        command,
        input=msgspec.json.encode(values),
        capture_output=True,
        check=False,
        preexec_fn=functools.partial(die_with, os.getpid()),  # it may be busy for a while under emulation
    )
    if done.returncode == -signal.SIGKILL:
        raise BrokenMeasurement(f"the compiler of the BPF program was killed, {KILLED}", remedy=MORE_MEMORY)
    if done.returncode:
        printed = done.stderr.decode(errors="replace")
        if short := shortage_in(printed):
            raise BrokenMeasurement(f"the BPF program can't be compiled: {short.sentence}", remedy=short.remedy)
        of_clang = re.search(r".*: (?:fatal )?error: .*", printed)  # behind it BCC says no more than that it failed
        said = of_clang[0] if of_clang else last_sentence(printed, f"status {done.returncode}")
        raise Unsupported(f"the BPF program can't be compiled: {said}", remedy="run apt-get install python3-bpfcc")
    return msgspec.msgpack.decode(done.stdout, type=Object)


def _compile(values: Mapping[str, int | str]) -> Object:
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCES / "shim")
    from bcc import BPF, lib

    # One text: BCC translates the use of maps only in the main file, not in what that includes.
    text = "\n".join(f'#line 1 "{name}"\n{(SOURCES / name).read_text()}' for name in source_files(values))

    lib.bpf_table_name.restype = ctypes.c_char_p
    macros = {
        **values,
        "EVENT_PAGES": RING_BYTES // os.sysconf("SC_PAGESIZE"),
        "FUNCTIONS": MAX_FUNCTIONS,
        "SEGMENTS": MAX_SEGMENTS,
        "COUNTERS": len(contract.Counter),
        "LIVES": len(contract.Lives),
        "STACK_DEPTH": events.DEPTH,
    }
    flags = [f"-D{name}={value}" for name, value in macros.items()]
    compiled = BPF(text=text.encode(), cflags=flags)
    try:
        names, maps = {}, []
        for number in range(lib.bpf_num_tables(compiled.module)):
            name = lib.bpf_table_name(compiled.module, number).decode()
            names[lib.bpf_table_fd_id(compiled.module, number)] = name
            about = (
                getattr(lib, f"bpf_table_{what}_id")(compiled.module, number)
                for what in ("type", "key_size", "leaf_size", "max_entries", "flags")
            )
            maps.append(MapSpec(name, *about))
        programs = {}
        for number in range(lib.bpf_num_functions(compiled.module)):
            name = lib.bpf_function_name(compiled.module, number)
            code = compiled.dump_func(name)
            loads = {index: names[descriptor] for index, descriptor in bpf.map_loads(code).items()}
            programs[name.decode()] = Code(code, loads)
        return Object(tuple(maps), programs)
    finally:
        compiled.cleanup()


class LoadedProgram:
    """An :class:`Object` in the kernel: its maps, and its programs, loaded on first use."""

    def __init__(self, source: Object, *, ring_bytes: int = RING_BYTES) -> None:
        self._source = source
        self.maps: dict[str, bpf.Map] = {}
        self.programs: dict[str, int] = {}
        """Descriptors of the programs that are loaded once, by name."""
        self._used: dict[str, bytes] = {}
        self._addresses: Addresses | None = None
        with ExitStack() as undo:
            for spec in source.maps:
                entries = ring_bytes if spec.name == RING else spec.max_entries
                sizes = spec.key_size, spec.value_size, entries
                self.maps[spec.name] = bpf.Map(spec.kind, *sizes, spec.name, flags=spec.flags)
                undo.callback(self.maps[spec.name].close)
            self._undo = undo.pop_all()

    def program(self, name: str, kind: int, attach_type: int = 0) -> int:
        """The descriptor of a program that is loaded once, on first use."""
        if name not in self.programs:
            self.programs[name] = self.load(name, kind, attach_type)
            self._undo.callback(os.close, self.programs[name])
        return self.programs[name]

    def load(self, name: str, kind: int, attach_type: int = 0, *, function: int = 0, btf: int = 0) -> int:
        """The descriptor of a program loaded again, for the caller to close; see :func:`bpf.load_program`."""
        code = self._source.programs[name]
        self._used[name] = code.instructions
        descriptors = {index: self.maps[used].descriptor for index, used in code.maps.items()}
        instructions = bpf.relocate(code.instructions, descriptors)
        return bpf.load_program(kind, instructions, attach_type=attach_type, name=name, function=function, btf=btf)

    def addresses(self, names: Sequence[str]) -> list[int]:
        """See :meth:`Addresses.find`; nothing is found where the kernel lacks what that needs, or keeps it secret."""
        if self._addresses is None:
            from harness.linux.addresses import Addresses  # the controller has no use for it

            try:
                self._addresses = Addresses()
            except OSError as error:
                if shortage(error):
                    raise
                return [0] * len(names)
            self._undo.callback(self._addresses.close)
        return self._addresses.find(names)

    def instructions(self) -> Mapping[str, bytes]:
        """Instructions of the loaded programs by name, maps not relocated."""
        return self._used

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close programs and maps; attached ones live on until they are detached."""
        self._undo.close()


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.msgpack.encode(_compile(msgspec.json.decode(sys.stdin.buffer.read()))))
