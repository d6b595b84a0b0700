"""Energy counters are read correctly, and devices are described."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from vggnet.compare.hardware import (
    Meter,
    Rapl,
    describe_accelerator,
    find_meter,
    measure_interval,
    read_clock,
)


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


@pytest.mark.parametrize("interval", [0.02, 0.1])
def test_the_resolution_of_a_meter(interval: float) -> None:
    """The time between changes is found to a tenth; ten of them are enough for an energy."""
    ticks = itertools.count()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now = next(ticks) / 1000
        return now

    found = measure_interval(lambda: 7.0 * (now // interval), clock)
    assert found == pytest.approx(interval, rel=0.1)
    meter = Meter(lambda: 0.0, interval)
    assert meter.resolves(11 * interval)
    assert not meter.resolves(9 * interval)


def test_a_counter_that_stands_still_is_no_meter() -> None:
    """A counter that does not change within a second has no resolution."""
    ticks = itertools.count()
    assert measure_interval(lambda: 1.0, lambda: next(ticks) / 100) is None


def test_the_clock_rate_of_a_cpu(tmp_path: Path) -> None:
    """The fastest core counts; without files the rate is unknown."""
    assert read_clock(torch.device("cpu"), tmp_path) is None
    for cpu, kilohertz in (("cpu0", 800_000), ("cpu11", 4_200_000)):
        folder = tmp_path / cpu / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{kilohertz}\n")
    assert read_clock(torch.device("cpu"), tmp_path) == 4200


def test_a_device_without_nvml() -> None:
    """A device unknown to NVML has a name, but no meter and no power limit."""
    assert find_meter(torch.device("mps")) is None
    assert describe_accelerator(torch.device("mps")).power_limit_watts is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_described() -> None:
    """A CUDA device has a name and memory, and with NVML a clock and an energy counter."""
    device = torch.device("cuda", 0)
    found = describe_accelerator(device)
    assert found.name == torch.cuda.get_device_name(0)
    assert found.memory_gib
    if meter := find_meter(device):
        assert meter.read() > 0
        assert 0 < meter.interval < 1
