"""Joules are counted right where a counter can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vggnet.compare.energy import Rapl, describe_accelerator, find_meter


def _lay_out(root: Path, name: str, microjoules: int) -> Path:
    zone = root / name
    zone.mkdir(exist_ok=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text("9999999\n")
    return zone


def test_packages_are_added_up_and_unwrapped(tmp_path: Path) -> None:
    """Two packages count, the parts within them do not, and a counter may wrap around."""
    _lay_out(tmp_path, "intel-rapl:0", 1_000_000)
    _lay_out(tmp_path, "intel-rapl:1", 9_500_000)
    _lay_out(tmp_path, "intel-rapl:0:0", 0)
    meter = Rapl(tmp_path)
    assert meter() == 0
    _lay_out(tmp_path, "intel-rapl:0", 3_000_000)
    _lay_out(tmp_path, "intel-rapl:1", 500_000)
    _lay_out(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert meter() == pytest.approx(3.0)
    assert meter() == pytest.approx(3.0)


def test_no_counter_is_no_error(tmp_path: Path) -> None:
    """A machine without RAPL says so."""
    with pytest.raises(OSError, match="no RAPL"):
        Rapl(tmp_path)


def test_a_device_without_nvml_is_still_named() -> None:
    """Nothing but a name is known of a device that NVML does not know."""
    assert find_meter(torch.device("mps")) is None
    assert describe_accelerator(torch.device("mps")).power_limit_watts is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_described() -> None:
    """A CUDA device has a name and memory; with NVML, joules that grow."""
    device = torch.device("cuda", 0)
    found = describe_accelerator(device)
    assert found.name == torch.cuda.get_device_name(0)
    assert found.memory_gib
    if meter := find_meter(device):
        assert meter() > 0
