"""How many cores a training uses: affinity, quotas, hyper-threads and cores of several kinds."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from vggnet.engine.processor import count_fast_cores, cpu_name, usable_cores

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's files")


@pytest.fixture
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process run on sixteen logical CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files as Linux shows them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def per_cpu(name: str, texts: list[str]) -> dict[str, str]:
    """Return a file of each logical CPU."""
    return {f"devices/system/cpu/cpu{cpu}/{name}": text for cpu, text in enumerate(texts)}


def pairs(count: int) -> list[str]:
    """Return the hyper-threads of `count` cores, two each."""
    return [f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" for cpu in range(2 * count)]


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


@linux
@pytest.mark.usefixtures("sixteen_cpus")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu.max": "nonsense"}, 16),
        ({}, 16),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    """Both versions of cgroups are read; anything else means no limit."""
    root = write(tmp_path, {f"fs/cgroup/{name}": text for name, text in files.items()})
    assert usable_cores(root) == expected


@linux
@pytest.mark.usefixtures("sixteen_cpus")
def test_hyper_threads_count_once(tmp_path: Path) -> None:
    """Eight cores with two threads each are eight."""
    files = per_cpu("topology/thread_siblings_list", pairs(8))
    assert usable_cores(write(tmp_path, files)) == 8


@linux
@pytest.mark.usefixtures("sixteen_cpus")
def test_intels_efficiency_cores_do_not_count(tmp_path: Path) -> None:
    """Of four performance cores with two threads each, and eight others, four count."""
    siblings = [*pairs(4), *map(str, range(8, 16))]
    files = per_cpu("topology/thread_siblings_list", siblings)
    root = write(tmp_path, {**files, "devices/cpu_core/cpus": "0-7\n"})
    assert usable_cores(root) == 4


@linux
def test_without_a_performance_core_all_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process bound to efficiency cores uses those."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {8, 9, 10})
    assert usable_cores(write(tmp_path, {"devices/cpu_core/cpus": "0-7\n"})) == 3


@linux
@pytest.mark.usefixtures("sixteen_cpus")
@pytest.mark.parametrize(
    ("capacities", "expected"),
    [([1024] * 4 + [250] * 12, 4), ([1024] * 4 + [900] * 4 + [250] * 8, 8), ([1024] * 16, 16)],
)
def test_arms_slow_cores_do_not_count(tmp_path: Path, capacities: list[int], expected: int) -> None:
    """As many of the fastest cores as finish equal shares of the work first."""
    files = per_cpu("cpu_capacity", list(map(str, capacities)))
    assert usable_cores(write(tmp_path, files)) == expected


def test_windows_records_are_counted() -> None:
    """Of six cores with hyper-threads and eight without, whose class is lower, six count."""
    records = [(72, 1, 1)] * 6 + [(48, 0, 0)] * 8
    data = b"".join(
        struct.pack("<IIBB", 0, size, flags, efficiency).ljust(size, b"\0")
        for size, flags, efficiency in records
    )
    assert count_fast_cores(data) == 6
    assert count_fast_cores(b"") == 0


@linux
def test_the_processor_has_a_name(tmp_path: Path) -> None:
    """The name is the system's; without one there is still the architecture."""
    text = "processor\t: 0\nmodel name\t: INVENTED CPU @ 1 GHz\n"
    write(tmp_path, {"cpuinfo": text})
    assert cpu_name(tmp_path / "cpuinfo") == "INVENTED CPU @ 1 GHz"
    assert cpu_name(tmp_path / "missing")
