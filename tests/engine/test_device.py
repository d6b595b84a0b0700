"""Devices are chosen as asked or refused with the reason; settings are given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vggnet.engine import device as module
from vggnet.engine.device import (
    check_precision,
    choose_device,
    computing,
    usable_cores,
    why_unavailable,
)
from vggnet.errors import DeviceError, OutOfMemoryError

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


@NO_CUDA
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu", "xpu:3"])
def test_a_missing_device_is_an_error_that_says_why(name: str) -> None:
    """Nothing falls back to the CPU in silence."""
    kind = name.partition(":")[0]
    reason = why_unavailable(kind)
    assert reason
    with pytest.raises(DeviceError, match=f"--device {name}: ") as caught:
        choose_device(name)
    assert reason in str(caught.value)
    assert "--device cpu" in str(caught.value)


@NO_CUDA
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    """And "cpu" is always there."""
    if all(why_unavailable(kind) for kind in ("mps", "xpu")):
        assert choose_device("auto") == torch.device("cpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_prefers_cuda_then_mps_then_xpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that torch reports is taken; an index is checked against the count."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("xpu", 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="there are 2"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((6, 1), False), ((7, 5), True), ((8, 6), True), ((9, 0), True), ((12, 1), True)],
)
def test_a_gpu_that_torch_has_no_code_for_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    """It is there, but too old for this build: said with the reason, and `auto` passes it by."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    built = ["sm_75", "sm_80", "sm_90a", "sm_100", "compute_120"]
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce")
    assert (choose_device("auto").type == "cuda") == runs
    if not runs:
        with pytest.raises(DeviceError, match=r"no code for GeForce \(compute capability 6\.1\)"):
            choose_device("cuda")


def test_out_of_memory_is_a_sentence() -> None:
    """Torch's ways of saying so become one error, which names the way out; others stay."""
    way_out = r"can't allocate memory.* use a smaller --batch-size"
    with pytest.raises(OutOfMemoryError, match=way_out), computing("fp32", 1):
        torch.empty(1 << 50)
    said = "CUDA out of memory. Tried to allocate 2.00 GiB."
    with pytest.raises(OutOfMemoryError, match=f"^out of memory: {said}"), computing("fp32", 1):
        raise torch.OutOfMemoryError(said)
    with pytest.raises(RuntimeError, match="mat1"), computing("fp32", 1):
        torch.mm(torch.zeros(1, 2), torch.zeros(1, 2))


def test_precision_is_checked_against_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has no tf32, and a GPU before Ampere no bf16."""
    check_precision("bf16", torch.device("cpu"))
    with pytest.raises(DeviceError, match="use fp32 or bf16"):
        check_precision("tf32", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    check_precision("fp16", torch.device("cuda", 0))
    with pytest.raises(DeviceError, match=r"capability 8\.0"):
        check_precision("bf16", torch.device("cuda", 0))


def test_settings_are_given_back() -> None:
    """Threads, denormals and TF32 are as they were, also after an error."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tiny = torch.tensor([1e-40])
    with pytest.raises(KeyError), computing("tf32", 1):  # noqa: PT012
        assert torch.get_num_threads() == 1
        assert torch.get_float32_matmul_precision() == "high"
        assert (tiny * 1.0).item() == 0.0
        raise KeyError
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    assert (tiny * 1.0).item() != 0.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity here")
def test_affinity_limits_the_threads() -> None:
    """A process bound to one CPU uses one core."""
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, everything)
    assert 1 <= usable_cores() <= len(everything)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    """Both versions of cgroups are read, and anything else is no limit."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert module._cgroup_quota(tmp_path) == expected
