"""``nft-harness trace`` as a user calls it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cache import cache_dir
from harness.cli import main
from harness.linux import bpf, features
from harness.tracer import live
from harness.tracer.kernel_cache import KernelCache
from harness.vm import images
from harness.wait import wait_until

PATIENCE = 300.0
"""Seconds: what takes ten here may share its CPU with a full test run."""
TRACE = [sys.executable, "-m", "harness.cli", "trace"]

# --- what is wrong with a command line -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--filter", "tcp prot 80"], "'tcp prot 80' is not a valid packet filter: .*; see pcap-filter"),
        (["--proto", "tpc"], "'tpc' is not a valid packet filter"),
        (["--config", "nowhere.json"], "nowhere.json can't be read: No such file"),
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("nothing is started for that")

    monkeypatch.setattr("harness.trace.command._trace", started)
    monkeypatch.setattr("harness.trace.command._in_a_guest", started)
    assert main_with("trace", *arguments) == 2
    out, err = capsys.readouterr()
    assert re.search(f"^nft-harness: error: {sentence}", err)
    assert (out, err.count("\n")) == ("", 1)


def main_with(*arguments: str) -> int:
    before, sys.argv = sys.argv, ["nft-harness", *arguments]
    try:
        return main(list(arguments))
    finally:
        sys.argv = before


def test_without_root_and_without_a_command_there_is_nothing_to_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "kprobe_multi", lambda: features.Support(False))
    monkeypatch.setattr(features, "kprobe", lambda: features.Support(False))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(features, "effective", lambda: 0)
    features.function_probes.cache_clear()
    try:
        assert main_with("trace") == 2
    finally:
        features.function_probes.cache_clear()
    assert capsys.readouterr().err == (
        "nft-harness: error: tracing the host's kernel needs root, and a microVM has no traffic of its own; "
        "give a command to run in it: nft-harness trace -- COMMAND\n"
    )


# --- on a kernel that can trace ------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[str]:
    """A named network namespace, with its loopback up."""
    name = f"trace-{os.getpid()}"
    for command in (["netns", "add", name], ["-n", name, "link", "set", "lo", "up"]):
        subprocess.run(["ip", *command], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


SEND = "import socket; s = socket.socket(type=2); [s.sendto(b'x', ('127.0.0.1', {port})) for _ in range({count})]"


def sending(lab: str, port: int = 9, count: int = 3) -> list[str]:
    """A command that sends datagrams to itself."""
    return ["--", "ip", "netns", "exec", lab, sys.executable, "-S", "-c", SEND.format(port=port, count=count)]


@pytest.mark.kernel
def test_lines_and_statistics_are_json(lab: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    kept = str(tmp_path / "trace.jsonl")
    options = ["--netns", lab, "--proto", "udp", "--json", "--ready-file", str(ready), "--out", kept]
    assert main_with("trace", *options, "--functions", "ip_rcv", "udp_*", *sending(lab)) == 0
    out, err = capfd.readouterr()
    *lines, last = map(json.loads, out.splitlines())
    assert {line["destination"] for line in lines} == {"127.0.0.1:9"}
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["device"] for line in lines} >= {"lo"}
    assert sum(line["function"] == "ip_rcv" for line in lines) == 3
    assert last["statistics"]["packets"] == 3
    assert last["statistics"]["events"] == len(lines)
    assert last["statistics"]["loss"]["refused"] == 0
    assert int(ready.read_text()) == os.getpid()
    assert "functions traced by" in err
    assert main_with("trace", "--read", kept, "--json") == 0
    assert list(map(json.loads, capfd.readouterr().out.splitlines())) == lines
    assert (
        main_with("trace", "--read", kept, "--functions", "ip_*", "--filter", "udp dst port 9 and host 127.0.0.1") == 0
    )
    assert capfd.readouterr().out.count(" ip_rcv ") == 3


@pytest.mark.kernel
def test_rules_and_policies_are_shown(lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    rules = (
        "table inet t { chain other { udp dport 9 return; }; "
        "chain out { type filter hook output priority -150; policy drop; jump other; udp dport 7 accept; }; }"
    )
    subprocess.run(["ip", "netns", "exec", lab, "nft", rules], check=True)
    handles = subprocess.run(
        ["ip", "netns", "exec", lab, "nft", "-a", "list", "ruleset"], check=True, capture_output=True, text=True
    ).stdout
    jump, back = (
        re.search(rf"{text} # handle (\d+)", handles)[1]  # type: ignore[index]
        for text in ("jump other", "udp dport 9 return")
    )
    refused = main_with("trace", "--proto", "udp", "--functions", "nft_do_chain", *sending(lab, count=1))
    assert refused == 1, "the sender's status, for sendto() fails where the output hook drops"
    shown = [line[34:].split(" → 127.0.0.1:9 ")[1] for line in capfd.readouterr().out.splitlines() if "NFT_" in line]
    assert shown == [
        "inet t out, hook output, priority -150 (mangle)",
        f"[JUMP] inet t out handle {jump} → inet t other",
        f"[RETURN] inet t other handle {back}",
        "[DROP] inet t out, policy",
    ]


@pytest.mark.kernel
def test_a_capture_has_the_bytes_of_the_moment(lab: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from scapy.utils import RawPcapNgReader

    file = tmp_path / "trace.pcapng"
    options = ["--proto", "udp", "--functions", "ip_rcv", "udp_rcv", "--pcapng", str(file)]
    assert main_with("trace", *options, *sending(lab, port=4242, count=1)) == 0
    records = [(data, about) for data, about in RawPcapNgReader(str(file))]
    shown = [about.comments[0].split(b": ")[1].split(b"\n")[0] for _, about in records]
    assert shown[:2] == [b"FUNC ip_rcv", b"FUNC udp_rcv"]
    assert all(word.startswith(b"DROP") for word in shown[2:]), "no socket listens there"
    assert {about.ifname for _, about in records} == {b"lo"}
    for data, _ in records:
        assert struct.unpack_from("!HH", data, 12 + 2 + 20)[1] == 4242


@pytest.mark.kernel
def test_what_is_lost_is_reported_and_is_3(lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main_with("trace", "--netns", lab, "--buffer", "4", *sending(lab, count=200)) == 3
    out, err = capfd.readouterr()
    assert re.search(r"Lost: +[1-9]\d* \(refused [1-9]", out)
    assert re.search(
        r"^nft-harness: lost .*: the trace is incomplete; use a larger buffer \(--buffer ", err.splitlines()[-1]
    )


@pytest.mark.kernel
def test_what_the_kernel_is_given_can_be_looked_at(lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--functions", "ip_rcv", "--dump-program", "--dump-metadata", "--dump-events"]
    assert main_with("trace", *options, *sending(lab, count=1)) == 0
    out, _ = capfd.readouterr()
    assert re.search(r"^on_entry_plain:\n     0 [0-9a-f]{2} ", out, re.MULTILINE)
    start = out.index("\n{\n") + 1
    metadata, _ = json.JSONDecoder().raw_decode(out[start:])
    assert metadata["0"]["name"] == "ip_rcv"
    assert re.search(r"^\{'time': \d+, 'skb': \d+, .*'kind': 2", out, re.MULTILINE)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--functions", "ip_rvc"], "ip_rvc can't be traced: .*; did you mean ip_rcv"),
        (["--functions", "xyzzy_*"], r"xyzzy_\* can't be traced: no function that takes a packet has such a name"),
        (["--netns", "nowhere"], "there is no network namespace nowhere"),
    ],
)
def test_what_is_not_there_is_a_sentence_and_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_with("trace", "--duration", "1", *arguments) == 2
    assert re.search(f"^nft-harness: error: {sentence}", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.kernel
def test_a_namespace_may_come_with_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    name = f"late-{os.getpid()}"
    there = f"/run/netns/{name}"
    script = (
        f"ip netns add {name}; ip -n {name} link set lo up; usleep() {{ {sys.executable} -S -c "
        f"'import time; time.sleep(0.3)'; }}; usleep; ip netns exec {name} {sys.executable} -S -c "
        f'"{SEND.format(port=9, count=2)}"; ip netns del {name}'
    )
    assert main_with("trace", "--netns", name, "--functions", "ip_rcv", "--proto", "udp", "--", "sh", "-c", script) == 0
    assert "Packets traced:     2" in capfd.readouterr().out
    assert not Path(there).exists()
    assert main_with("trace", "--netns", name, "--functions", "ip_rcv", "--", "true") == 2
    assert f"there is no network namespace {name}" in capfd.readouterr().err


@pytest.mark.kernel
def test_two_tracers_at_once_do_not_disturb_each_other(lab: str) -> None:
    def traced(port: int) -> live.LiveTrace:
        return live.LiveTrace(
            KernelCache(cache_dir()), live.Selection(functions=["ip_rcv"], expression=f"udp port {port}")
        )

    def send(*ports: int) -> None:
        for port in ports:
            subprocess.run(sending(lab, port=port, count=1)[1:], check=True)

    with traced(1111) as one, traced(2222) as other:
        done = []
        of_other = other.events(lambda: bool(done), lambda: send(2222), settle=True)
        seen = {"other": list(next(of_other))}  # armed, and still watching while the next one comes and goes
        seen["one"] = [e for batch in one.events(lambda: True, lambda: send(1111, 2222), settle=True) for e in batch]
        done.append(True)
        seen["other"] += [event for batch in of_other for event in batch]
    hops = {name: sum(event.kind == 2 for event in events) for name, events in seen.items()}
    assert hops == {"one": 1, "other": 2}
    assert (one.loss.total, other.loss.total) == (0, 0)


@pytest.mark.kernel
@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)])
def test_a_commands_status_is_ours(script: str, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert main_with("trace", "--functions", "ip_rcv", "--", "sh", "-c", script) == status
    out, err = capfd.readouterr()
    assert "TRACE STATISTICS" in out
    assert (f"nft-harness: sh -c {shlex.quote(script)} ended with status {status}" in err) == bool(status)


@pytest.mark.kernel
def test_a_failed_command_does_not_hide_a_loss(lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    *words, program = sending(lab, count=200)
    assert main_with("trace", "--netns", lab, "--buffer", "4", *words, f"{program}; raise SystemExit(7)") == 7
    assert " lost" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.kernel
@pytest.mark.parametrize("script", ["while :; do {send}; done", "trap '' TERM; while :; do {send}; done"])
def test_a_command_that_goes_on_sending_is_ended(script: str, lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    send = shlex.join(["ping", "-c", "1", "127.0.0.1"]) if shutil.which("ping") else shlex.join(sending(lab)[1:])
    words = ["--netns", lab, "--functions", "ip_rcv", "--duration", "2", "--", "sh", "-c", script.format(send=send)]
    assert main_with("trace", *words) == 0
    assert "TRACE STATISTICS" in capfd.readouterr().out


def held() -> list[int]:
    """How many programs, maps and links the kernel has."""
    return [sum(1 for _ in numbers(command)) for command in (PROG_GET_NEXT_ID, MAP_GET_NEXT_ID, LINK_GET_NEXT_ID)]


PROG_GET_NEXT_ID, MAP_GET_NEXT_ID, LINK_GET_NEXT_ID = 11, 12, 31


def numbers(command: int) -> Iterator[int]:
    """What bpf(2) counts up, one after the other."""
    attributes = ctypes.create_string_buffer(12)
    number = 0
    while True:
        struct.pack_into("<II", attributes, 0, number, 0)
        try:
            bpf._syscall(bpf.SYS_BPF, ctypes.c_int(command), attributes, ctypes.c_uint(12))
        except OSError:
            return
        number = struct.unpack_from("<I", attributes, 4)[0]
        yield number


@pytest.mark.kernel
def test_a_killed_tracer_leaves_nothing(tmp_path: Path) -> None:
    before, ready = held(), tmp_path / "ready"
    tracer = subprocess.Popen([*TRACE, "--functions", "ip_rcv", "nft_do_chain", "--ready-file", str(ready)])
    try:
        wait_until(ready.exists, PATIENCE, "the tracer to be armed")
        assert all(now > then for now, then in zip(held(), before, strict=True))
    finally:
        tracer.kill()
        tracer.wait()
    # The kernel frees what is no longer referenced after a grace period.
    wait_until(lambda: held() == before, PATIENCE, "programs, maps and links to be gone")


@pytest.mark.kernel
def test_a_reader_that_has_seen_enough_ends_the_trace(lab: str) -> None:
    tracer = subprocess.Popen(
        [*TRACE, "--functions", "ip_rcv", *sending(lab, count=300)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert tracer.stdout
    tracer.stdout.readline()
    tracer.stdout.close()
    _, err = tracer.communicate(timeout=PATIENCE)
    assert tracer.returncode == 0
    assert b"Traceback" not in err


@pytest.mark.kernel
def test_memory_stays_flat_while_packets_come_and_go() -> None:
    from harness.trace.formatter import EventFormatter

    sender = socket.socket(type=socket.SOCK_DGRAM)
    choice = live.Selection(functions=["ip_rcv", "udp_rcv"], expression="udp port 4242")
    with live.LiveTrace(KernelCache(cache_dir()), choice) as trace:
        formatter, sizes, lines = EventFormatter(trace), [], 0

        def over() -> bool:
            enough = lines > 12_000
            for _ in range(0 if enough else 50):
                sender.sendto(b"x", ("127.0.0.1", 4242))
            return enough

        for batch in trace.events(over, lambda: None, settle=True):
            lines += sum(1 for _ in formatter.format_batch(batch))
            formatter.finished.clear()
            sizes.append(resident())
    quarter = len(sizes) // 4
    assert formatter.statistics(armed=2, seconds=1, loss=trace.loss).packets > 3_000
    assert max(sizes[-quarter:]) < max(sizes[quarter : 2 * quarter]) * 1.02


def resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


# --- in the microVM ------------------------------------------------------------------------------


@pytest.fixture
def microvm_needed(program: Callable[[str, str], str]) -> None:
    """Skips where the microVM is not used or not to be had."""
    program("qemu-system-x86_64", "qemu-system-x86")
    if images.find(images.DEFAULT) is None:
        pytest.skip("no kernel image is here; run nft-harness kernels fetch")
    if features.function_probes().able:
        pytest.skip("the host's kernel can be traced, so no microVM is needed")


def test_files_and_interrupts_reach_the_microvm(tmp_path: Path, microvm_needed: None) -> None:
    ready, capture = tmp_path / "ready", tmp_path / "trace.pcapng"
    options = ["--functions", "ip_rcv", "--ready-file", str(ready), "--pcapng", str(capture)]
    ping = "import socket, time\nwhile True: socket.socket(type=2).sendto(b'x', ('127.0.0.1', 9)); time.sleep(0.1)"
    tracer = subprocess.Popen(
        [*TRACE, *options, "--", shutil.which("python3") or sys.executable, "-S", "-c", ping],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: ready.exists() or tracer.poll() is not None, PATIENCE, "the tracer in the microVM")
        assert tracer.stdout
        line = tracer.stdout.readline()
        assert "ip_rcv" in line
        assert int(ready.read_text()) == tracer.pid
        tracer.send_signal(signal.SIGINT)
        out, err = tracer.communicate(timeout=PATIENCE)
    finally:
        tracer.kill()
        tracer.wait()
    assert tracer.returncode == 0, err
    assert "TRACE STATISTICS" in out
    assert capture.read_bytes().startswith(b"\x0a\x0d\x0d\x0a")


def test_a_commands_status_comes_out_of_the_microvm(tmp_path: Path, microvm_needed: None) -> None:
    kept = tmp_path / "trace.jsonl"
    command = [*TRACE, "--out", str(kept), "--functions", "ip_rcv", "--", "sh", "-c", "kill -TERM $$"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "TRACE STATISTICS" in done.stdout
    assert kept.read_text().startswith('{"trace":')
    assert kept.read_text().splitlines()[-1].startswith('{"statistics":')


def test_an_interrupt_before_anything_is_traced_does_not_wait_for_it(microvm_needed: None) -> None:
    tracer = subprocess.Popen([*TRACE, "--", "sleep", "1000"], stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr
        assert "in a microVM" in tracer.stderr.readline()
        tracer.send_signal(signal.SIGTERM)
        tracer.communicate(timeout=PATIENCE)
    finally:
        tracer.kill()
        tracer.wait()
    assert tracer.returncode == 128 + signal.SIGTERM
