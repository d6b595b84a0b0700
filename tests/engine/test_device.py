"""Devices are available or refused with a reason; settings are restored."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vggnet.engine.device import check_precision, choose_device, computing, place, why_unavailable
from vggnet.errors import DeviceError, OutOfMemoryError

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


@NO_CUDA
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu", "xpu:3"])
def test_a_missing_device_is_an_error_that_says_why(name: str) -> None:
    """Nothing falls back to the CPU silently."""
    kind = name.partition(":")[0]
    reason = why_unavailable(kind)
    assert reason
    with pytest.raises(DeviceError, match=f"--device {name}: ") as caught:
        choose_device(name)
    assert reason in str(caught.value)
    assert "--device cpu" in str(caught.value)


@NO_CUDA
def test_auto_takes_the_cpu_if_there_is_nothing_else() -> None:
    """The CPU is always available."""
    if all(why_unavailable(kind) for kind in ("mps", "xpu")):
        assert choose_device("auto") == torch.device("cpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_prefers_cuda_then_mps_then_xpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first available one is taken; an index is checked against the count."""
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
def test_a_gpu_without_code_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    """A GPU too old for this build of torch is refused with the reason, and `auto` skips it."""
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


def test_each_gpu_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs, only the one that this build of torch supports is accepted."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(8, 0), (6, 1)][index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ["A100", "GTX"][index])
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    for name, rank in (("cuda:1", 0), ("cuda", 1)):
        with pytest.raises(DeviceError, match="no code for GTX"):
            choose_device(name, rank)


def test_out_of_memory_is_one_error() -> None:
    """Torch's errors about full memory become one, which says what to do; others stay."""
    way_out = r"can't allocate memory.* use a smaller --batch-size"
    with pytest.raises(OutOfMemoryError, match=way_out), computing("fp32", 1):
        torch.empty(1 << 50)
    said = "CUDA out of memory. Tried to allocate 2.00 GiB."
    with pytest.raises(OutOfMemoryError, match=f"^out of memory: {said}"), computing("fp32", 1):
        raise torch.OutOfMemoryError(said)
    for words in (
        "MPS backend out of memory (MPS allocated: 18 GB)",
        "[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: not enough memory: you tried",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
    ):
        with pytest.raises(OutOfMemoryError, match="use a smaller"), computing("fp32", 1):
            raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="mat1"), computing("fp32", 1):
        torch.mm(torch.zeros(1, 2), torch.zeros(1, 2))


def test_precision_is_checked_against_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU does not support tf32, and a GPU before Ampere not bf16."""
    check_precision("bf16", torch.device("cpu"))
    with pytest.raises(DeviceError, match="use fp32 or bf16"):
        check_precision("tf32", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    check_precision("fp16", torch.device("cuda", 0))
    with pytest.raises(DeviceError, match=r"capability 8\.0"):
        check_precision("bf16", torch.device("cuda", 0))


def test_settings_are_restored() -> None:
    """Threads, denormals, TF32 and cuDNN's determinism are as before, also after an error."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    older = cudnn.allow_tf32, cudnn.deterministic
    tiny = torch.tensor([1e-40])
    with pytest.raises(KeyError), computing("tf32", 1):  # noqa: PT012
        assert torch.get_num_threads() == 1
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert cudnn.deterministic
        assert (tiny * 1.0).item() == 0.0
        raise KeyError
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    assert (cudnn.allow_tf32, cudnn.deterministic) == older
    assert (tiny * 1.0).item() != 0.0


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_older_getters_still_work(precision: str) -> None:
    """`torch.export` reads TF32 through the older interface, so both must agree meanwhile."""
    with computing(precision, 1):
        expected = precision == "tf32"
        assert torch.backends.cudnn.allow_tf32 is expected
        assert torch.backends.cuda.matmul.allow_tf32 is expected


def test_a_caller_may_use_the_new_tf32_settings() -> None:
    """With any of them set, the older getters fail; we neither fail nor change them."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with pytest.raises(RuntimeError):
            torch.get_float32_matmul_precision()
        with computing("fp32", 1):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


class Placed(torch.nn.Module):
    """Records how it is moved."""

    def to(self, *arguments: Any, **options: Any) -> Placed:
        self.moved = arguments, options
        return self


@pytest.mark.parametrize(("kind", "channels_last"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_channels_last_except_on_mps(kind: str, channels_last: bool) -> None:
    """A convolution's backward pass on MPS is 30 times slower with channels last."""
    network = Placed()
    place(network, torch.device(kind))
    assert network.moved[1] == ({"memory_format": torch.channels_last} if channels_last else {})
