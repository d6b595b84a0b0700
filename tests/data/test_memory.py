"""Concurrent decodes share one budget of memory."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from vggnet.data.decode import decode_image
from vggnet.data.memory import MemoryBudget
from vggnet.errors import ImageError


def test_a_budget_is_never_exceeded() -> None:
    """Many threads reserve at once: some wait, and all get their turn."""
    budget, lock = MemoryBudget(100), threading.Lock()
    used, highest = 0, 0

    def work(number: int) -> None:
        nonlocal used, highest
        size = 10 + 7 * (number % 9)
        with budget.reserve(size):
            with lock:
                used += size
                highest = max(highest, used)
            time.sleep(0.0005)  # others run meanwhile
            with lock:
                used -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(500)))
    assert 0 < highest <= 100
    with budget.reserve(100):  # everything was given back
        pass


def test_an_image_larger_than_the_budget_is_refused() -> None:
    """The message has both sizes, and names no option: not every command has one."""
    file = io.BytesIO()
    Image.new("RGB", (2_000, 2_000)).save(file, "PNG")
    with pytest.raises(ImageError, match=r"decoding .*MiB") as caught:
        decode_image(file.getvalue(), budget=MemoryBudget(1 << 20))
    assert "--" not in str(caught.value)


MOST = """
import resource, sys, vggnet
from pathlib import Path
def most():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
vggnet.load_dataset(sys.argv[2])
before = most()
vggnet.load_dataset(sys.argv[1], image_size=16)
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory is read from /proc")
def test_what_decoding_takes_is_counted(tmp_path: Path) -> None:
    """A transparent image is composed in strips: the peak stays within the budget's estimate.

    Version 0.1 took 56 bytes for each pixel of such an image, and decoded eight at once.
    """
    side = 2_500
    for folder, size in (("large", side), ("small", 16)):
        for name in ("a", "b"):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(2):
                image = Image.new("RGBA", (size, size), (9, 9, 9, 100 + number))
                image.save(tmp_path / folder / name / f"{number}.png", compress_level=1)
    command = [sys.executable, "-c", MOST, tmp_path / "large", tmp_path / "small"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    threads = 8
    assert int(done.stdout) * 1024 < min(threads, 4) * 16 * side * side
