"""Compiling: once for all processes, never half a file, and said plainly when it cannot be."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from vggnet.errors import KernelError
from vggnet.kernels.build import FLAGS, build_library, cache_folder, find_compiler, is_intact
from vggnet.kernels.loading import load_library
from vggnet.kernels.machine import describe_cpu, widest_vector

LOAD = """
import sys, torch
from vggnet.kernels import accelerate, status
found = status()
print(found.in_use, found.seconds_to_compile > 0, found.cache_path, found.reason, sep="|")
"""


def environment(cache: Path, **changes: str) -> dict[str, str]:
    """Give a process its own cache."""
    return {**os.environ, "VGGNET_CACHE_DIR": str(cache), **changes}


def load(cache: Path, program: str = LOAD, **changes: str) -> list[str]:
    """Load the kernels in a new process: in use, compiled now, path, reason."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(cache, **changes),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1].split("|")


@pytest.fixture
def counting_compiler(tmp_path: Path) -> tuple[str, Path]:
    """A compiler that also notes each library it is asked for: its command, and its notes."""
    notes = tmp_path / "compiled"
    script = tmp_path / "compiler"
    real = " ".join(find_compiler().command)
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo compiled >> {notes};; esac\nexec {real} "$@"\n'
    )
    script.chmod(0o700)
    return str(script), notes


def build_in_a_fork(cache: Path, command: str, answers: Connection) -> None:
    """Build as a process does that starts with this cache and compiler."""
    os.environ |= {"VGGNET_CACHE_DIR": str(cache), "CXX": command}
    cache_folder.cache_clear()
    find_compiler.cache_clear()
    found = build_library(widest_vector(), describe_cpu(), None)
    answers.send((found.seconds > 0, found.path))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_eight_processes_compile_once(tmp_path: Path, counting_compiler: tuple[str, Path]) -> None:
    """Eight processes at once on an empty cache run the compiler once; a ninth not at all."""
    command, notes = counting_compiler
    cache = tmp_path / "cache"
    fork = multiprocessing.get_context("fork")  # importing torch eight times would take longer
    pipes = [fork.Pipe(duplex=False) for _ in range(8)]
    processes = [
        fork.Process(target=build_in_a_fork, args=(cache, command, pipe[1])) for pipe in pipes
    ]
    for process in processes:
        process.start()
    answers = [pipe[0].recv() for pipe in pipes]
    for process in processes:
        process.join(60)
    assert [compiled for compiled, _ in answers].count(True) == 1
    assert len({path for _, path in answers}) == 1
    assert notes.read_text().split() == ["compiled"]
    # Nothing half written is left, and only this user may write.
    (folder,) = cache.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".so", ".lock"}
    late = fork.Process(target=build_in_a_fork, args=(cache, command, pipes[0][1]))
    late.start()
    assert pipes[0][0].recv() == (False, answers[0][1])
    late.join(60)
    assert notes.read_text().split() == ["compiled"]


@pytest.mark.parametrize("damage", ["cut short", "overwritten", "empty"])
def test_a_damaged_library_is_not_loaded(tmp_path: Path, damage: str) -> None:
    """A cached file that is not what was written is recognised by its hash."""
    whole = load_library(widest_vector()).build.path.read_bytes()
    path = tmp_path / "library.so"
    path.write_bytes(whole)
    assert is_intact(path)
    path.write_bytes({
        "cut short": whole[: len(whole) // 2],
        "overwritten": whole[:5000] + b"\0" * 64 + whole[5064:],
        "empty": b"",
    }[damage])  # fmt: skip
    assert not is_intact(path)


def test_a_damaged_library_is_compiled_again(tmp_path: Path) -> None:
    """A new process that finds the file damaged replaces it, and works."""
    good = load_library(widest_vector()).build.path
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    damaged = folder / good.name
    damaged.write_bytes(good.read_bytes()[:9000])
    in_use, compiled, path, _ = load(tmp_path)
    assert (in_use, compiled, Path(path)) == ("winograd", "True", damaged)
    assert is_intact(damaged)


def test_no_compiler_means_torch(tmp_path: Path) -> None:
    """Without a compiler training goes on with torch, and the status says how to get one."""
    in_use, _, _, reason = load(tmp_path, PATH="/nowhere", CXX="")
    assert in_use == "torch"
    assert "install g++" in reason


@pytest.mark.parametrize(
    ("compiler", "said"),
    [("no-such-compiler", "CXX names 'no-such-compiler'"), ("false", "the compiler false failed")],
)
def test_a_bad_compiler_is_named(tmp_path: Path, compiler: str, said: str) -> None:
    """A compiler that is missing or fails leads to torch, with its name in the reason."""
    in_use, _, _, reason = load(tmp_path, CXX=compiler)
    assert in_use == "torch"
    assert said in reason


def test_a_failure_is_final(tmp_path: Path) -> None:
    """A compiler that failed is not asked again in a process: training and validation agree."""
    notes, script = tmp_path / "asked", tmp_path / "compiler"
    real = " ".join(find_compiler().command)
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo asked >> {notes}; exit 1;; esac\n'
        f'exec {real} "$@"\n'
    )
    script.chmod(0o700)
    program = "from vggnet.kernels import status\nprint(status().in_use, status().in_use, sep='|')"
    assert load(tmp_path, program, CXX=str(script)) == ["torch", "torch"]
    assert notes.read_text().split() == ["asked"]


def test_a_cache_that_a_stranger_can_replace_is_not_used(tmp_path: Path) -> None:
    """In a folder that is open to all, one's own folder could be renamed while it is written."""
    cache = tmp_path / "open"
    (cache / "kernels").mkdir(parents=True, mode=0o700)
    cache.chmod(0o777)
    in_use, _, path, _ = load(cache)
    assert in_use == "winograd"
    assert not Path(path).is_relative_to(cache)
    cache.chmod(0o1777)  # as /tmp: only owners rename
    assert Path(load(cache)[2]).is_relative_to(cache)


def test_insisting_without_a_compiler_is_an_error(tmp_path: Path) -> None:
    """Mode "winograd" raises KernelError where "auto" falls back."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from kernels.conftest import Network
from vggnet.errors import KernelError
from vggnet.kernels import accelerate
network = Network()
assert accelerate(network) is network
try:
    accelerate(network, mode="winograd")
except KernelError as error:
    print(error)
"""
    assert "CXX" in load(tmp_path, program, CXX="no-such-compiler")[0]


def test_a_cache_that_cannot_be_used_costs_only_time(tmp_path: Path) -> None:
    """A folder that others may write to is not used: what is in it would be run."""
    shared = tmp_path / "shared"
    (shared / "kernels").mkdir(parents=True)
    (shared / "kernels").chmod(0o777)
    in_use, _, path, _ = load(shared)
    assert in_use == "winograd"
    assert not Path(path).is_relative_to(shared)
    assert not list((shared / "kernels").iterdir())
    assert not Path(path).exists(), "the temporary folder goes with its process"


def test_a_cache_that_fails_means_torch(tmp_path: Path) -> None:
    """Where a library cannot be locked or written, training goes on by torch, and says why."""
    path = Path(load(tmp_path)[2])
    path.with_suffix(".lock").unlink()
    path.with_suffix(".lock").mkdir()
    path.unlink()
    in_use, _, _, reason = load(tmp_path)
    assert in_use == "torch"
    assert "set VGGNET_CACHE_DIR to a folder with room" in reason


def test_one_openmp_runtime() -> None:
    """The kernels share torch's OpenMP: the process has loaded one, and it is torch's."""
    program = """
import torch
from vggnet.kernels import status
from vggnet.kernels.machine import openmp_runtimes
assert status().in_use == "winograd"
print(*openmp_runtimes(), sep="|")
"""
    (runtime,) = load(Path(os.environ["VGGNET_CACHE_DIR"]), program)
    assert "torch" in Path(runtime).parts


def test_no_fast_math() -> None:
    """Nothing is compiled or linked with -ffast-math, and denormals survive loading."""
    import torch

    assert not any("fast-math" in flag or flag == "-Ofast" for flag in FLAGS)
    load_library(widest_vector())
    tiny = torch.tensor([1e-40])
    assert (tiny * 0.5).item() > 0


def test_the_self_test_is_quick() -> None:
    """The comparison with torch takes one thread less than 50 ms (the best of three)."""
    import torch

    from vggnet.kernels.loading import check_library

    library = load_library(widest_vector())
    torch.set_num_threads(1)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        check_library(library)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05


def test_the_self_test_notices_a_wrong_kernel() -> None:
    """A library whose weights are laid out wrongly does not pass."""
    from vggnet.kernels.library import Library
    from vggnet.kernels.loading import check_library

    class Wrong(Library):
        def forward(self, images, weight, bias, activation):  # type: ignore[no-untyped-def]
            return super().forward(images, weight.flip(2), bias, activation)

    good = load_library(widest_vector())
    with pytest.raises(KernelError, match="something else than torch"):
        check_library(Wrong(good.build, good.lanes))
