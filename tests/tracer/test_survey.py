"""What is remembered of a kernel: its functions, and the layout of its structs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import Unsupported
from harness.linux.btf import Btf
from harness.tracer.discover import KERNEL
from harness.tracer.survey import Survey


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


def test_a_module_loaded_again_may_be_of_another_build_and_one_that_stayed_is_not_looked_at_again(
    sys_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = sys_folder / "kernel/btf"
    for name in ("changed", "stayed", "added"):
        (sys_folder / "module" / name / "notes").mkdir(parents=True)
        (sys_folder / "module" / name / "notes/.note.gnu.build-id").write_bytes(b"1")
        (modules / name).write_bytes(struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 0))
    (modules / "added").rename(sys_folder / "added")
    survey = Survey(sys=sys_folder)
    survey.functions()
    asked = []
    identity = survey._module_identity
    monkeypatch.setattr(survey, "_module_identity", lambda name: asked.append(name) or identity(name))
    (sys_folder / "module/changed/notes/.note.gnu.build-id").write_bytes(b"2")
    again = sys_folder / "again"
    again.write_bytes((modules / "changed").read_bytes())
    again.rename(modules / "changed")
    (sys_folder / "added").rename(modules / "added")
    survey.functions()
    assert asked == ["added", "changed"]
    identities = {name: part.identity for name, part in survey._memory.parts.items()}
    assert identities == {KERNEL: "", "changed": b"2".hex(), "stayed": b"1".hex(), "added": b"1".hex()}


def test_without_a_list_of_traceable_functions_a_remedy_is_named(sys_folder: Path) -> None:
    (sys_folder / "kernel/tracing/available_filter_functions").unlink()
    with pytest.raises(Unsupported, match=r"available_filter_functions: No such file.*mount -t tracefs"):
        Survey(sys=sys_folder).functions()


@pytest.mark.kernel
def test_the_running_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    survey = Survey()
    known = survey.functions()
    assert len(known) > 1000
    assert {"ip_rcv", "nf_hook_slow", "__dev_queue_xmit"} <= known.names
    unknown = [function.name for function in known if function.layer == "Unknown"]
    assert len(unknown) < len(known) / 100, unknown
    assert Survey(survey.to_bytes()).functions() == known
    assert main(["discover", "--layer", "IPv4", "--priority", "0"]) == 0
    assert "1: sk_buff        vmlinux           ip_rcv\n" in capsys.readouterr().out
