"""Energy counters are read correctly, and devices are described."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vggnet.compare.hardware import Rapl, describe_accelerator, find_meter


def _write_zone(root: Path, name: str, microjoules: int) -> Path:
    zone = root / name
    zone.mkdir(exist_ok=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text("9999999\n")
    return zone


def test_rapl_adds_packages_and_corrects_wraps(tmp_path: Path) -> None:
    """Both packages count, their parts do not, and a counter that wraps is corrected."""
    _write_zone(tmp_path, "intel-rapl:0", 1_000_000)
    _write_zone(tmp_path, "intel-rapl:1", 9_500_000)
    _write_zone(tmp_path, "intel-rapl:0:0", 0)
    meter = Rapl(tmp_path)
    assert meter() == 0
    _write_zone(tmp_path, "intel-rapl:0", 3_000_000)
    _write_zone(tmp_path, "intel-rapl:1", 500_000)
    _write_zone(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert meter() == pytest.approx(3.0)
    assert meter() == pytest.approx(3.0)


def test_a_machine_without_rapl(tmp_path: Path) -> None:
    """Without RAPL, the meter raises an OSError that says so."""
    with pytest.raises(OSError, match="no RAPL"):
        Rapl(tmp_path)


def test_a_device_without_nvml() -> None:
    """A device unknown to NVML has a name, but no meter and no power limit."""
    assert find_meter(torch.device("mps")) is None
    assert describe_accelerator(torch.device("mps")).power_limit_watts is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_described() -> None:
    """A CUDA device has a name and memory, and with NVML an energy counter."""
    device = torch.device("cuda", 0)
    found = describe_accelerator(device)
    assert found.name == torch.cuda.get_device_name(0)
    assert found.memory_gib
    if meter := find_meter(device):
        assert meter() > 0
