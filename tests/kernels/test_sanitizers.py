"""The kernels' source runs clean under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vggnet.kernels.build import FLAGS, SOURCE, find_compiler
from vggnet.kernels.machine import widest_vector

DRIVER = Path(__file__).with_name("driver.cpp")


@pytest.mark.parametrize("lanes", [8, 16])
def test_no_memory_error_and_no_undefined_behaviour(tmp_path: Path, lanes: int) -> None:
    """All entries, on odd and empty shapes, read and write only what is theirs."""
    if lanes > widest_vector():
        pytest.skip("this CPU has no AVX-512")
    compiler = find_compiler().command
    program = tmp_path / "driver"
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC", "-O2")]
    built = subprocess.run(
        [
            *compiler, *flags, "-O1", "-g", f"-DVGGNET_LANES={lanes}",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
            f"-I{SOURCE}", str(DRIVER), "-o", str(program),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "cannot find -lasan" in built.stderr or "libasan" in built.stderr:
        pytest.skip("the compiler comes without AddressSanitizer")
    assert built.returncode == 0, built.stderr
    # Teams of threads are kept until the process ends, which is no leak of the kernels.
    done = subprocess.run(
        [program], env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[:3000]
    assert "0 failures" in done.stdout
