"""The program that reads a machine: it only reads, loads nothing and collects no secret."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.lab.namespace import Namespace
from harness.twin import collect, machine

KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$(basename "$0") $*" in
*"link show") echo '[{"ifname":"br0","flags":["UP"],"linkinfo":{"info_kind": "bridge"}},
	{"ifname":"wg0","flags":["UP"],"linkinfo":{"info_kind": "wireguard"}}]' ;;
"wg show all allowed-ips") printf 'wg0\\t%s\\t10.8.0.2/32 10.9.0.0/16\\n' "$KEY" ;;
"wg show all endpoints") printf 'wg0\\t%s\\t198.51.100.1:51820\\n' "$KEY" ;;
"wg show all listen-port") printf 'wg0\\t51821\\n' ;;
"wg show all fwmark") printf 'wg0\\t0xca6c\\n' ;;
*-save*) [ "$*" != -V ] || echo "iptables-save v1.8.9 (legacy)" ;;
ip*|bridge*) echo '[]' ;;
esac
"""
LEGACY = ("-V", "-t filter", "-t nat", "-t mangle", "-t raw", "-t security")
READING = {
    "ip": (
        *("-N -j -d link show", "-j -d link show", "-j addr show", "-j neigh show", "xfrm policy"),
        *("-N -j -d -4 route show table all", "-N -j -d -6 route show table all"),
        *("-N -j -4 rule show", "-N -j -6 rule show"),
    ),
    "bridge": ("-j vlan show", "-j fdb show"),
    "nft": ("-a list ruleset", "list ruleset"),
    "wg": ("show all allowed-ips", "show all endpoints", "show all listen-port", "show all fwmark"),
    "ipset": ("save",),
    "iptables-nft-save": ("",),
    "ip6tables-nft-save": ("",),
    "iptables-legacy-save": LEGACY,
    "ip6tables-legacy-save": LEGACY,
}
"""What may be called, with which arguments."""


@pytest.mark.parametrize("shell", ["sh", "dash", "busybox", "bash"])
def test_any_shell_reads_it(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "collect.sh").write_text(collect.script())
    command = [shell, *(["sh"] if shell == "busybox" else ["--posix"] if shell == "bash" else []), "-n"]
    subprocess.run([*command, str(tmp_path / "collect.sh")], check=True)


def test_only_what_reads_is_called_and_no_key_is_printed(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in READING:
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    for name in ("sh", "sed", "awk", "grep", "cat", "cut", "id", "uname", "basename"):
        (folder / name).symlink_to(shutil.which(name) or "")
    text = collect.script()
    (path,) = (line for line in text.splitlines() if line.startswith("PATH="))
    log = tmp_path / "log"
    ran = subprocess.run(
        ["/bin/sh", "-s"],
        input=text.replace(path, f"PATH={folder}"),
        env={"LOG": str(log), "KEY": KEY},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    for called in log.read_text().splitlines():
        program, _, arguments = called.partition(" ")
        assert arguments in READING[program], called
    assert KEY not in ran.stdout
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bin", "log"]
    found = machine.read(ran.stdout)
    assert found.peers == [machine.Peer("wg0", ("10.8.0.2/32", "10.9.0.0/16"), "198.51.100.1", 51820)]
    assert found.listening == {"wg0": (51821, 0xCA6C)}


def test_by_ssh_the_script_is_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\ncat > {tmp_path}/script\necho printed\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert collect.by_ssh("admin@fw1") == "printed\n"
    assert (tmp_path / "script").read_text() == collect.script()
    assert (tmp_path / "arguments").read_text().splitlines()[:3] == ["-T", "--", "admin@fw1"]
    with pytest.raises(HarnessError, match="'-oProxyCommand=x' is no destination"):
        collect.by_ssh("-oProxyCommand=x")
    ssh.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    with pytest.raises(HarnessError, match=r"admin@fw1 could not be read: sudo: a password is required; .*sudo -n"):
        collect.by_ssh("admin@fw1")
    ssh.write_text("#!/bin/sh\necho 'admin@fw1: Permission denied (publickey).' >&2\nexit 255\n")
    with pytest.raises(HarnessError, match=r"denied \(publickey\); make ssh admin@fw1 true work first"):
        collect.by_ssh("admin@fw1")


@pytest.mark.kernel
def test_nothing_is_loaded_or_changed() -> None:
    """In a namespace with nothing but lo and an interface."""

    def modules() -> set[str]:
        return {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()} if has else set()

    has = Path("/proc/modules").exists()
    with Namespace("twin") as namespace:
        namespace.call(subprocess.run, ["ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0"], check=True)
        before = modules()
        texts = [namespace.call(collect.here) for _ in range(2)]
        assert modules() == before
    assert texts[0] == texts[1]
    assert set(machine.read(texts[0]).links) >= {"a0", "b0"}
