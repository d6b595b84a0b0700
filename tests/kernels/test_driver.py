"""The kernels' source in a C++ program: with sanitizers, and on an emulated Arm processor."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vggnet.kernels.build import FLAGS, SOURCE, find_compiler
from vggnet.kernels.loading import find_processor

DRIVER = Path(__file__).with_name("driver.cpp")


def compile_driver(compiler: tuple[str, ...], lanes: int, program: Path, *flags: str) -> str:
    """Compile the driver for vectors of `lanes` floats; return what the linker lacks, if any."""
    kept = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC", "-O2")]
    command = [*compiler, *kept, *flags, f"-DVGGNET_LANES={lanes}", f"-I{SOURCE}", str(DRIVER)]
    done = subprocess.run(
        [*command, "-o", str(program)], capture_output=True, text=True, check=False
    )
    if "cannot find" in done.stderr:
        return done.stderr
    assert done.returncode == 0, done.stderr
    return ""


def run_driver(*command: str | Path) -> None:
    """Run the driver, possibly in an emulator."""
    # Detecting leaks would report OpenMP's threads, which live until the process ends; threads
    # that wait passively take less time from each other on a busy machine.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[:3000]
    assert "0 failures" in done.stdout


@pytest.mark.parametrize("lanes", [8, 16])
def test_no_memory_error_and_no_undefined_behavior(tmp_path: Path, lanes: int) -> None:
    """All functions access only their own memory, with odd and empty shapes too."""
    processor = find_processor()
    if lanes not in processor.widths:
        pytest.skip(f"this processor has no vectors of {lanes} floats")
    program = tmp_path / "driver"
    # Without optimization, which takes longer than it saves.
    missing = compile_driver(
        find_compiler().command, lanes, program, "-O0", processor.flag,
        "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    )  # fmt: skip
    if missing:
        pytest.skip(f"the compiler has no sanitizers: {missing}")
    run_driver(program)


def test_arm_computes_the_same(tmp_path: Path) -> None:
    """With NEON the results are right, and the same bits when repeated and with every cache."""
    compiler, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    for tool, package in ((compiler, "g++-aarch64-linux-gnu"), (emulator, "qemu-user")):
        if not shutil.which(tool):
            pytest.skip(f"no {tool}; Debian's package {package} has it")
    program = tmp_path / "driver"
    missing = compile_driver(
        (compiler,), 4, program, "-O1", "-static", "-fsanitize=undefined",
        "-fsanitize-undefined-trap-on-error",
    )  # fmt: skip
    assert not missing
    run_driver(emulator, program)


DISPATCH = """
#pragma once
#include <cstddef>
#include <thread>
#include <vector>
constexpr int DISPATCH_APPLY_AUTO = 0;
inline void dispatch_apply_f(std::size_t count, int, void* context,
                             void (*work)(void*, std::size_t)) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back(work, context, i);
  for (std::thread& thread : threads) thread.join();
}
"""
"""What the kernels use of macOS's header, so that their code for macOS runs here too."""


def test_macos_computes_the_same(tmp_path: Path) -> None:
    """With threads of libdispatch the results are right; a stand-in starts one thread for each."""
    (tmp_path / "dispatch").mkdir()
    (tmp_path / "dispatch/dispatch.h").write_text(DISPATCH)
    processor, program = find_processor(), tmp_path / "driver"
    missing = compile_driver(
        find_compiler().command, processor.widths[-1], program, "-O1", processor.flag,
        "-D__APPLE__", f"-I{tmp_path}", "-pthread",
    )  # fmt: skip
    assert not missing
    run_driver(program)
