from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Unsupported
from harness.linux import bpf, features

QUESTIONS = (features.kprobe_multi, features.kprobe, features.function_probes)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test determines the answers anew."""
    for question in QUESTIONS:
        question.cache_clear()
    yield
    for question in QUESTIONS:
        question.cache_clear()


def refuse(number: int) -> object:
    def refused(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refused


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_this_kernel_answers_and_leaves_no_descriptor() -> None:
    before = descriptors()
    for question in QUESTIONS:
        able, reason = question()
        assert able or reason
    assert descriptors() == before


def test_a_kernel_without_kprobes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "load_nothing", lambda attach_type=0, kind=0: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(bpf, "link_function", refuse(errno.ENOENT))
    monkeypatch.setattr(bpf, "link_functions", refuse(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert features.kprobe() == (False, "the kernel has no kprobes")
    assert not features.kprobe_multi().able
    assert "Operation not supported" in features.kprobe_multi().reason
    assert features.function_probes() == (False, "the host's kernel has no function probes")


def test_for_an_ordinary_user_the_reason_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "load_nothing", refuse(errno.EPERM))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(features, "effective", lambda: 1 << features.CAP_SYS_ADMIN - 1)
    assert features.kprobe() == (False, "BPF programs cannot be loaded (Operation not permitted)")
    assert features.function_probes() == (False, "tracing the host's kernel needs root")


def test_one_way_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "kprobe_multi", lambda: features.Support(False, "too old"))
    monkeypatch.setattr(features, "kprobe", lambda: features.Support(True))
    assert features.function_probes().able


def test_what_is_required_and_not_there_is_unsupported() -> None:
    features.Support(True).require("not read")
    with pytest.raises(Unsupported, match="no kprobes; boot another"):
        features.Support(False, "no kprobes").require("boot another")


@pytest.mark.kernel
def test_a_tracing_kernel_has_function_probes() -> None:
    assert features.function_probes().able
