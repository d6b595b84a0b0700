"""Decoded images on disk: the same training as from memory, and nothing half-written is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

import vggnet as package
from conftest import Outcome, Start
from vggnet.artifacts.model_file import load_model
from vggnet.data.batches import Batches
from vggnet.data.cache import evict, list_entries
from vggnet.data.dataset import LabeledImages, SelectedImages, hold_out
from vggnet.data.matching import TrainedOn, load_to_evaluate
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError

Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("VGGNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of 60 colour images in two classes."""
    generator = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return tmp_path / "pets"


def test_mapped_images_are_those_in_memory(pets: Path, cache: Path) -> None:
    """Pixels, labels, hash and warnings are equal, when built and when mapped again."""
    (pets / "notes").write_text("no image")
    (pets / "cat" / "000.png").write_bytes((pets / "dog" / "01.png").read_bytes())
    memory = load_dataset(pets, cache=False)
    assert not cache.exists()
    for _ in range(2):
        mapped = load_dataset(pets, cache=True)
        assert isinstance(mapped.train.images, np.memmap)
        for one, other in ((mapped.train, memory.train), (mapped.test, memory.test)):
            assert (one.images == other.images).all()
            assert (one.labels == other.labels).all()
        assert (mapped.sha256, mapped.warnings) == (memory.sha256, memory.warnings)
    assert memory.warnings


def test_the_second_time_nothing_is_decoded(pets: Path) -> None:
    """The files are not even opened: their names, sizes and times are enough."""
    expected = load_dataset(pets, cache=True).sha256
    for path in pets.rglob("*.png"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_dataset(pets, cache=True).sha256 == expected
    assert load_dataset(pets).sha256 == expected  # a built entry is used without being asked for
    with pytest.raises(DataError, match="60 of 60 files"):
        load_dataset(pets, cache=False)


@pytest.mark.parametrize("change", ["time", "size", "new", "gone", "moved", "asked"])
def test_a_change_is_noticed(pets: Path, cache: Path, change: str) -> None:
    """Another file, time, size, class or request is another entry."""
    load_dataset(pets, cache=True)
    asked: dict[str, int] = {}
    path = pets / "cat" / "00.png"
    if change == "time":
        os.utime(path, (1, 1))
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"\0")
    elif change == "new":
        Image.new("RGB", (16, 16)).save(pets / "cat" / "new.png")
    elif change == "gone":
        path.unlink()
    elif change == "moved":
        path.rename(pets / "dog" / "00.png")
    else:
        asked = {"image_size": 8}
    load_dataset(pets, cache=True, **asked)
    assert len(list(cache.glob("*/entry.json"))) == 2


def test_bad_images_are_left_out_of_the_file(pets: Path, cache: Path) -> None:
    """They are refused first, which leaves nothing behind, and skipped if that is asked for."""
    whole = (pets / "cat" / "00.png").read_bytes()
    (pets / "cat" / "00.png").write_bytes(whole[:-300])
    with pytest.raises(DataError, match="1 of 60 files"):
        load_dataset(pets, cache=True)
    assert not list(cache.glob("*/*"))
    for _ in range(2):
        found = load_dataset(pets, cache=True, skip_bad=True)
        assert len(found.train) + len(found.test) == 59
        assert found.sha256 == load_dataset(pets, cache=False, skip_bad=True).sha256


@pytest.mark.parametrize("harm", ["cut", "description", "rows", "nothing"])
def test_a_damaged_entry_is_built_again(pets: Path, cache: Path, harm: str) -> None:
    """Whatever is missing or cut."""
    expected = load_dataset(pets, cache=True).sha256
    (folder,) = (path.parent for path in cache.glob("*/entry.json"))
    if harm == "cut":
        os.truncate(folder / "images.u8", 1_000)
    elif harm == "description":
        (folder / "entry.json").write_text("{")
    elif harm == "rows":
        (folder / "rows.npz").write_bytes(b"PK")
    else:
        (folder / "images.u8").unlink()
    found = load_dataset(pets, cache=True)
    assert isinstance(found.train.images, np.memmap)
    assert found.sha256 == expected


def test_a_disk_without_room_is_named(pets: Path, tmp_path: Path) -> None:
    """If a cache is demanded; otherwise images that fit stay in memory."""
    (tmp_path / "cache").write_text("a file where a folder must be")
    with pytest.raises(DataError, match="set VGGNET_CACHE_DIR to a folder with room"):
        load_dataset(pets, cache=True)
    assert not isinstance(load_dataset(pets).train.images, np.memmap)


BUILD = "import sys, vggnet; vggnet.load_dataset(sys.argv[1], cache=True); print('built')"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_build_starts_over(start: Start, pets: Path, cache: Path) -> None:
    """What it left is no entry, and the next build replaces it."""
    for number in range(100):
        source = pets / ("cat", "dog")[number % 2] / f"{number % 60:02}.png"
        with Image.open(source) as image:
            image.resize((400, 400)).save(source.with_name(f"large{number}.png"), compress_level=1)
    builder = start(sys.executable, "-c", BUILD, pets, stderr=None)
    while not list(cache.glob("*/images.u8")) and builder.poll() is None:
        time.sleep(0.01)
    builder.send_signal(signal.SIGKILL)
    out, _ = builder.communicate()
    assert out == ""
    assert not list_entries()
    found = load_dataset(pets, cache=True)
    assert found.sha256 == load_dataset(pets, cache=False).sha256
    assert len(list_entries()) == 1


FULL = """
import resource, signal, sys
import vggnet
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
print(type(vggnet.load_dataset(sys.argv[1]).train.images).__name__)
vggnet.load_dataset(sys.argv[1], cache=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited")
def test_a_disk_that_fills_up_loses_nothing(pets: Path, cache: Path) -> None:
    """The images stay in memory, or the error says so; a whole entry stays, of half one nothing."""
    expected = load_dataset(pets, cache=True, image_size=8).sha256
    done = subprocess.run(
        [sys.executable, "-c", FULL, pets], capture_output=True, text=True, check=False
    )
    assert done.stdout == "ndarray\n"
    assert "cannot keep the decoded images in" in done.stderr
    assert "File too large; set VGGNET_CACHE_DIR to a folder with room" in done.stderr
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    assert load_dataset(pets, cache=True, image_size=8).sha256 == expected


def test_two_builds_at_a_time_do_no_harm(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be locked, each builds an entry of its own."""
    expected = load_dataset(pets, cache=False).sha256
    monkeypatch.setattr("vggnet.data.lock._try_lock", no_locks)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_dataset(pets, cache=True), range(4)))
    assert {one.sha256 for one in found} == {expected}
    assert 1 <= len(list_entries()) <= 4
    assert load_dataset(pets, cache=True).sha256 == expected


def no_locks(file: object) -> bool:
    """Stand for a file system without locks."""
    raise OSError(errno.ENOTSUP, "Operation not supported")


def test_what_killed_builds_leave_is_deleted_after_a_day(pets: Path, cache: Path) -> None:
    """It is in no list, and would take room for ever; what is being written stays."""
    for name, hours in (("killed.1", 25), ("running.2", 1)):
        (cache / name).mkdir(parents=True)
        (cache / name / "images.u8").write_bytes(b"half")
        written = time.time() - 3600 * hours
        os.utime(cache / name / "images.u8", (written, written))
    load_dataset(pets, cache=True)
    assert not (cache / "killed.1").exists()
    assert (cache / "running.2" / "images.u8").exists()


def test_old_entries_are_deleted_above_a_size(pets: Path, cache: Path) -> None:
    """The one that was unused for longest goes first; the one in use stays."""
    for number, side in enumerate((8, 16, 32)):
        load_dataset(pets, cache=True, image_size=side)
        newest = max(cache.glob("*/entry.json"), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (number + 1, number + 1))
    sizes = [entry.size for entry in list_entries()]
    assert sizes == sorted(sizes, reverse=True)
    oldest = list_entries()[-1].folder
    evict(oldest, limit=sizes[0] + 1)
    assert [entry.size for entry in list_entries()] == [sizes[0], sizes[2]]


def test_evaluation_uses_what_training_cached(pets: Path, cache: Path) -> None:
    """It asks for the size and the channels that training found by itself."""
    trained = load_dataset(pets, cache=True)
    trained_on = TrainedOn(trained.classes, trained.shape, str(pets), trained.sha256)
    found, _ = load_to_evaluate(str(pets), trained_on)
    assert isinstance(found.images, np.memmap)
    assert (found.images == trained.test.images).all()
    smaller = TrainedOn(trained.classes, (1, 8, 8), str(pets), trained.sha256)
    assert load_to_evaluate(str(pets), smaller)[0].images.shape[1:] == (1, 8, 8)


@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_are_the_same_from_a_file(pets: Path, world_size: int) -> None:
    """Read ahead by a thread, in every order, after a hold-out of a hold-out, for every rank."""
    prepared = Preprocessing((0.5,) * 3, (0.5,) * 3, 16)
    given = []
    for keep in (False, True):
        train, held = hold_out(load_dataset(pets, cache=keep).train, 9, seed=1)
        train, _ = hold_out(train, 5, seed=2)
        assert held is not None
        batches = [
            Batches(
                part, torch.device("cpu"), prepared,
                batch_size=7, rank=world_size - 1, world_size=world_size,
            )
            for part in (train, held)
        ]  # fmt: skip
        runs = [part.shuffled(3, 1) for part in batches] + [part.in_order() for part in batches]
        given.append([*(batch for run in runs for batch in run), *batches[0].shuffled(0, 0, 4)])
    for one, other in zip(*given, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.global_size == other.global_size


def test_an_epoch_that_is_left_early_ends_its_thread(pets: Path) -> None:
    """Nothing is read any more, and an error while reading reaches the loop."""
    mapped = load_dataset(pets, cache=True).train
    prepared = Preprocessing((0.5,) * 3, (0.5,) * 3, 16)
    batches = Batches(mapped, torch.device("cpu"), prepared, batch_size=4)
    epoch = batches.shuffled(0, 0)
    assert len(next(epoch).images) == 4
    epoch.close()  # type: ignore[attr-defined]
    beyond = cast("np.ndarray", SelectedImages(mapped.images, np.array([0, 999])))
    wrong = LabeledImages(beyond, mapped.labels[:2], 2, "wrong")
    with pytest.raises(IndexError):
        list(Batches(wrong, torch.device("cpu"), prepared, batch_size=2).in_order())


def test_training_from_a_file_gives_the_same_weights(vggnet: Command, pets: Path) -> None:
    """Bit for bit, with augmentation and a validation part, and when it is resumed."""
    small = (
        *("--dataset", pets, "--stages", "8/8", "--hidden", "8", "--threads", "1"),
        *("-b", "8", "--rotation", "5", "--validation-size", "10", "--sched", "constant"),
    )
    for name, *how in (("memory", "--no-cache"), ("file", "--cache")):
        done = vggnet("train", *small, *how, "--epochs", 2, "-o", f"{name}.pth", "--name", name)
        assert done.code == 0, done.err
    done = vggnet("train", *small, "--epochs", 1, "--name", "part", "-o", "part.pth", "--no-cache")
    assert done.code == 0, done.err
    done = vggnet("train", "--resume", "runs/part", "--epochs", 2, "--cache")
    assert done.code == 0, done.err
    one, *others = (
        load_model(Path(f"{name}.pth")).network.state_dict() for name in ("memory", "file", "part")
    )
    for other in others:
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_cache_is_listed_and_cleared(vggnet: Command, pets: Path, cache: Path) -> None:
    """`vggnet data cache` shows each entry, and --clear deletes all."""
    assert "empty" in vggnet("data", "cache").out
    package.load_dataset(pets, cache=True)
    shown = vggnet("data", "cache").out
    assert f"{pets}" in shown
    assert "60 images" in shown
    assert vggnet("data", "cache", "--clear").code == 0
    assert "empty" in vggnet("data", "cache").out
    assert not cache.exists()
