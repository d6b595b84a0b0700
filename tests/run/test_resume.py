"""A run that was stopped and resumed is, bit for bit, the run that never was."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import lay_out
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.config import Config
from vggnet.data.catalog import CATALOG, CatalogEntry, idx_pair
from vggnet.data.dataset import Dataset
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import (
    CheckpointError,
    ConfigError,
    InterruptedTrainingError,
    OutputError,
    RunFinishedError,
    TrainingDivergedError,
)
from vggnet.recipes import resolve_config
from vggnet.run import Options, Reporter, TrainResult, resume_run, run

STEPS = 8
"""Steps in an epoch here."""

TINY = {
    "model": {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.5},
    "data": {"dataset": "few", "data_dir": "data", "validation_size": 50},
    "train": {"epochs": 3, "global_batch_size": 32, "threads": 1},
}
"""Trains on 245 images, so the last batch of an epoch is short."""


class StopAt(Reporter):
    """Sends this process a real SIGTERM once a step is taken."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.warnings: list[str] = []

    def stepped(self, step: int, total: int) -> None:
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)

    def warned(self, message: str) -> None:
        self.warnings.append(message)


def settings(recipe: str = "article", **train: Any) -> Config:
    """Return a tiny run's configuration under a recipe."""
    return resolve_config({"recipe": recipe}, TINY, {"train": {**TINY["train"], **train}})


class SharedRuns:
    """Trains every run once, and gives each test a copy of it in the current folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[tuple[str, str, int | None], TrainResult | None] = {}

    def finished(self, config: Config, name: str = "unbroken") -> TrainResult:
        """Return the result of a run that nothing interrupted."""
        result = self._copy(config, name, None)
        assert result is not None
        return result

    def stopped(self, step: int, config: Config, name: str = "stopped") -> Path:
        """Return the folder of a run that a signal stopped after a step."""
        self._copy(config, name, step)
        return Path("runs") / name

    def _copy(self, config: Config, name: str, step: int | None) -> TrainResult | None:
        key = (config.model_dump_json(), name, step)
        place = self.folder / str([*self.made, key].index(key))
        if key not in self.made:
            shutil.copytree(self.folder / "data", place / "data")
            with contextlib.chdir(place):
                self.made[key] = _train(config, name, step)
        for part in ("runs", f"{name}.pth"):
            if (place / part).is_dir():
                shutil.copytree(place / part, part, dirs_exist_ok=True)
            elif (place / part).exists():
                shutil.copy(place / part, part)
        return self.made[key]


def _train(config: Config, name: str, step: int | None) -> TrainResult | None:
    options = Options(name=name, output=Path(f"{name}.pth"))
    if step is None:
        return run(config, options)
    with pytest.raises(InterruptedTrainingError, match=f"--resume runs/{name}"):
        run(config, options, StopAt(step))
    return None


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, mnist: Dataset) -> Iterator[SharedRuns]:
    """Runs on a small dataset, which the catalog knows as "few" and `data` contains."""
    folder = tmp_path_factory.mktemp("shared")
    few = Dataset(
        "few",
        mnist.classes,
        mnist.train.take(np.arange(295), "few"),
        mnist.test.take(np.arange(8), "few"),
        "",
    )
    raw = lay_out(folder / "data", few, zipped=False)
    splits = [
        idx_pair(images, labels, _sha256(raw / images), _sha256(raw / labels))
        for images, labels in (
            (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte") for stem in ("train", "t10k")
        )
    ]
    entry = CatalogEntry("few", "MNIST", mnist.classes, *splits, "as MNIST")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOG, "few", entry)
        yield SharedRuns(folder)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: SharedRuns) -> Path:
    """Run in a folder with nothing but the dataset."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shared.folder / "data", "data")
    return tmp_path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_same(resumed: TrainResult, unbroken: TrainResult) -> None:
    """Weights, optimizer, metrics of every step and epoch: all equal, but for the seconds."""
    assert _same_tensors(resumed.output, unbroken.output)
    one, other = (final_state(result) for result in (resumed, unbroken))
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    for a, b in zip(resumed.epochs, unbroken.epochs, strict=True):
        assert dataclasses.replace(a, seconds=0) == dataclasses.replace(b, seconds=0)
    for table in ("steps.csv", "metrics.csv"):
        assert strip(resumed.folder / table) == strip(unbroken.folder / table)


def _same_tensors(a: Path, b: Path) -> bool:
    # Not a comparison of bytes in an assert: pytest takes a minute to explain how they differ.
    one, other = (torch.load(path, weights_only=True) for path in (a, b))
    return all(torch.equal(one[name], other[name]) for name in one)


def final_state(result: TrainResult) -> Snapshot:
    """Return the last checkpoint of a run."""
    return CheckpointFolder(result.folder / "checkpoints").load_latest()[0]


def strip(table: Path) -> list[list[str]]:
    """Return a table's cells without the two columns that tell of speed."""
    return [line.split(",")[:7] for line in table.read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["article", "fast", "best"])
def test_stopped_anywhere_it_ends_the_same(recipe: str, shared: SharedRuns) -> None:
    """After the first step, mid-epoch, at an epoch's end, before the last step; and twice.

    `fast` has Muon's momentum, and `best` all else that a checkpoint can hold: batch norm,
    augmentation, averaged weights.
    """
    config = settings(recipe)
    unbroken = shared.finished(config)
    for step in (1, STEPS + 3, STEPS, 3 * STEPS - 1):
        folder = shared.stopped(step, config, f"stopped-{step}")
        assert_same(resume_run(folder), unbroken)
    folder = shared.stopped(2, config, "twice")
    with pytest.raises(InterruptedTrainingError, match="after step 13"):
        resume_run(folder, reporter=StopAt(13))
    assert_same(resume_run(folder), unbroken)


def reset(tensors: dict[str, torch.Tensor], *suffixes: str) -> None:
    """Put zeros in the place of the tensors whose names end in a word."""
    for name in tensors:
        if name.endswith(suffixes):
            tensors[name] = torch.zeros_like(tensors[name])


LOSSES: dict[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], None]] = {
    "weights": lambda tensors, values: reset(tensors, "network.features.0.weight"),
    "average of the weights": lambda tensors, values: reset(tensors, "averaged.features.0.weight"),
    "average of the statistics": lambda tensors, values: reset(
        tensors, "averaged.features.1.running_mean"
    ),
    "running statistics": lambda tensors, values: reset(tensors, "network.features.1.running_mean"),
    "first moments": lambda tensors, values: reset(tensors, ".exp_avg"),
    "momentum": lambda tensors, values: reset(tensors, ".momentum"),
    "second moments": lambda tensors, values: reset(tensors, ".exp_avg_sq"),
    "steps of the optimizer": lambda tensors, values: reset(tensors, ".step"),
    "sums of the epoch": lambda tensors, values: reset(tensors, "sums"),
    "history": lambda tensors, values: reset(tensors, "history"),
    "place in the run": lambda tensors, values: values.update(step=values["step"] - 1),
    "epochs": lambda tensors, values: values["epochs"][0].update(loss=0.0),
}


@pytest.mark.parametrize("field", LOSSES)
def test_no_field_is_there_for_nothing(field: str, shared: SharedRuns) -> None:
    """With any one field of the checkpoint at its initial value the comparison fails."""
    config = settings("fast" if field == "momentum" else "best")
    unbroken = shared.finished(config)
    folder = shared.stopped(STEPS + 3, config)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    snapshot, _ = checkpoints.load_latest()
    LOSSES[field](snapshot.tensors, snapshot.values)
    shutil.rmtree(checkpoints.path)
    CheckpointFolder(checkpoints.path).save(snapshot)
    with pytest.raises(AssertionError):
        assert_same(resume_run(folder), unbroken)


@pytest.mark.parametrize("value", ["config", "dataset_sha256", "circumstances", "epochs", "scaler"])
def test_a_value_that_is_missing_is_named(value: str, shared: SharedRuns) -> None:
    """A whole checkpoint that does not say what training it is of is refused in one sentence."""
    folder = shared.stopped(3, settings())
    _tamper(folder, lambda values: values.pop(value))
    with pytest.raises(CheckpointError, match=f"lacks {value}"):
        resume_run(folder)


@pytest.mark.parametrize("field", ["sums", "history", "network.", "averaged.", "optimizer."])
def test_a_field_that_is_missing_is_no_default(field: str, shared: SharedRuns) -> None:
    """A checkpoint without tensors that it must have is refused."""
    folder = shared.stopped(3, settings("best"))
    checkpoints = CheckpointFolder(folder / "checkpoints")
    snapshot, _ = checkpoints.load_latest()
    name = next(name for name in snapshot.tensors if name.startswith(field))
    del snapshot.tensors[name]
    shutil.rmtree(checkpoints.path)
    CheckpointFolder(checkpoints.path).save(snapshot)
    with pytest.raises(CheckpointError, match="lacks"):
        resume_run(folder)


def test_more_epochs_of_a_constant_rate_are_the_longer_run(shared: SharedRuns) -> None:
    """`--epochs` is the total: one epoch, resumed for three, is three; the rest is refused."""
    longer = shared.finished(settings())
    for epochs in (1, 1.5):
        folder = shared.finished(settings(epochs=epochs), f"first-{epochs}").folder
        resumed = resume_run(folder, [{"train": {"epochs": 3}}])
        assert _same_tensors(resumed.output, longer.output)
        assert [one.step for one in resumed.epochs][-2:] == [2 * STEPS, 3 * STEPS]
        with pytest.raises(ConfigError, match="more than the"):
            resume_run(folder, [{"train": {"epochs": 2}}])
    folder = shared.stopped(3, settings("fast"), "linear")
    with pytest.raises(ConfigError, match=r"train.epochs was 3.* and is now 4"):
        resume_run(folder, [{"train": {"epochs": 4}}])


def test_a_finished_run_is_left_alone(shared: SharedRuns) -> None:
    """Resuming it says so, and not a byte in its folder or its model file changes."""
    result = shared.finished(settings(epochs=1), "done")

    def contents() -> dict[Path, bytes]:
        files = [path for path in result.folder.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in [*files, result.output]}

    before = contents()
    with pytest.raises(RunFinishedError, match="done is finished: all 8 steps"):
        resume_run(result.folder)
    assert contents() == before


def test_a_run_killed_while_it_saves_its_model_saves_it_when_resumed(shared: SharedRuns) -> None:
    """With all steps taken and no figures of the test set only the end is done again."""
    result = shared.finished(settings(epochs=1), "done")
    expected = result.output.read_bytes()
    (result.folder / "test.json").unlink()
    result.output.unlink()
    again = resume_run(result.folder)
    assert again.output.read_bytes() == expected
    assert again.accuracy == result.accuracy


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train": {"seed": 5}}, "train.seed was 0 and is now 5"),
        ({"train": {"peak_lr": 0.5}}, "train.peak_lr was 0.001 and is now 0.5"),
        ({"model": {"dropout": 0.1}}, "model.dropout was 0.5 and is now 0.1"),
        ({"data": {"validation_size": 0}}, "data.validation_size"),
        ({"recipe": "fast"}, "recipe was article and is now fast"),
        ({"train": {"precision": "bf16"}}, "train.precision"),
    ],
)
def test_another_training_is_refused(
    changed: dict[str, Any], words: str, shared: SharedRuns
) -> None:
    """A setting that makes it another training is named."""
    folder = shared.stopped(3, settings())
    with pytest.raises(ConfigError, match=words):
        resume_run(folder, [changed])


def test_a_repeated_setting_is_accepted(shared: SharedRuns) -> None:
    """Settings that equal those of the run do not prevent resuming."""
    folder = shared.stopped(3, settings())
    resume_run(folder, [{"train": {"peak_lr": 0.001}, "recipe": "article"}])


def test_another_dataset_is_refused(shared: SharedRuns) -> None:
    """The images are compared by their hash."""
    folder = shared.stopped(3, settings())
    _tamper(folder, lambda values: values.update(dataset_sha256="0" * 64))
    with pytest.raises(ConfigError, match="the dataset has changed"):
        resume_run(folder)


def test_the_same_images_may_lie_elsewhere(shared: SharedRuns) -> None:
    """`--data-dir` is free, for it is the hash that says which images they are."""
    shutil.copytree("data", "elsewhere")
    unbroken = shared.finished(settings())
    folder = shared.stopped(3, settings())
    assert_same(resume_run(folder, [{"data": {"data_dir": "elsewhere"}}]), unbroken)


def test_what_changes_bits_only_is_a_warning(shared: SharedRuns) -> None:
    """Threads, versions and the machine are named, and the run goes on."""
    folder = shared.stopped(3, settings())
    keys = {"threads", "torch", "processor", "kernels", "vggnet"}
    _tamper(folder, lambda values: values["circumstances"].update(dict.fromkeys(keys, "other")))
    reporter = StopAt(0)
    resume_run(folder, reporter=reporter)
    assert len(reporter.warnings) == len(keys)
    named = {warning.partition(" was other and is now ")[0] for warning in reporter.warnings}
    assert named == keys


def test_a_process_count_is_fixed_where_batch_norm_sees_it(shared: SharedRuns) -> None:
    """Batch norm over other shares is another training; without it a warning is enough."""
    for batch_norm in (False, True):
        config = settings()
        model = config.model.model_copy(update={"batch_norm": batch_norm})
        config = config.model_copy(update={"model": model})
        folder = shared.stopped(3, config, f"norm-{batch_norm}")
        _tamper(folder, lambda values: values["circumstances"].update(processes=2))
        if batch_norm:
            with pytest.raises(ConfigError, match="the run had 2 processes and now has 1"):
                resume_run(folder)
        else:
            resume_run(folder)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(shared: SharedRuns) -> None:
    """The result is the same; with both damaged there is an error that names both."""
    unbroken = shared.finished(settings())
    folder = shared.stopped(STEPS + 3, settings())
    newest = max((folder / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    reporter = StopAt(0)
    copy = Path(shutil.copytree(folder, "runs/copy"))
    assert_same(resume_run(folder, reporter=reporter), unbroken)
    (warning,) = reporter.warnings
    assert newest.name in warning
    assert "going on from the one before it, step 8" in warning
    for path in (copy / "checkpoints").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*0011.*0008"):
        resume_run(copy)


def test_a_name_too_long_for_the_disk_is_no_run() -> None:
    """As a run's folder and as that of all runs, it is said to be no run's."""
    name = Path(300 * "x")
    for folder, options in ((name, Options()), (None, Options(runs=name))):
        with pytest.raises(CheckpointError, match=str(name)):
            resume_run(folder, options=options)


def test_only_two_checkpoints_stay() -> None:
    """One every step, and in the end the last two with nothing else beside them."""
    options = Options(name="run", output=Path("m.pth"), checkpoint_every="1")
    result = run(settings(), options)
    assert sorted(path.name for path in (result.folder / "checkpoints").iterdir()) == [
        f"step-{step:010d}.{suffix}" for step in (23, 24) for suffix in ("json", "safetensors")
    ]


def test_checkpoints_change_nothing(shared: SharedRuns) -> None:
    """With one at every step and with none but at the ends of epochs the bits are the same."""
    often = Options(name="often", output=Path("often.pth"), checkpoint_every="1")
    assert_same(run(settings(), often), shared.finished(settings()))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "vggnet", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


class SpoilAt(Reporter):
    """Does something to the disk once a step is taken."""

    def __init__(self, step: int, spoil: Callable[[], object]) -> None:
        self.step, self.spoil = step, spoil

    def stepped(self, step: int, total: int) -> None:
        if step == self.step:
            self.spoil()


def fill(disk: Path) -> None:
    """Write until not a byte more fits."""
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def remount(disk: Path, how: str) -> None:
    """Make a disk read-only ("ro") or writable ("rw")."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        (fill, lambda disk: (disk / "filler").unlink(), "No space left"),
        (lambda disk: remount(disk, "ro"), lambda disk: remount(disk, "rw"), "Read-only"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_no_more_costs_no_run(
    disk: Path,
    spoil: Callable[[Path], None],
    mend: Callable[[Path], None],
    words: str,
    shared: SharedRuns,
) -> None:
    """It ends in words, with the last checkpoint whole; mended, the run ends as it would have."""
    unbroken = shared.finished(settings())
    options = Options(runs=disk, name="cut", output=Path("cut.pth"), checkpoint_every="1")
    with pytest.raises(OutputError, match=rf"{words}.*Go on from step 10: .*--resume") as caught:
        run(settings(), options, SpoilAt(11, lambda: spoil(disk)))
    assert "\n" not in str(caught.value)
    mend(disk)
    assert_same(resume_run(disk / "cut"), unbroken)


def _tamper(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a run's checkpoint anew, whole, with other values."""
    checkpoints = CheckpointFolder(folder / "checkpoints")
    snapshot, _ = checkpoints.load_latest()
    change(snapshot.values)
    shutil.rmtree(checkpoints.path)
    CheckpointFolder(checkpoints.path).save(snapshot)


def test_a_folder_that_was_moved_is_gone_on_with(here: Path) -> None:
    """Where one's own images lie is free; which they are is not."""
    random = np.random.default_rng(0)
    for number in range(60):
        path = here / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    config = resolve_config(
        {"recipe": "article"}, TINY, {"data": {"dataset": "images", "data_dir": None}},
        {"data": {"validation_size": 0}, "train": {"global_batch_size": 8, "epochs": 2}},
    )  # fmt: skip
    _train(config, "moved", 3)
    folder = Path("runs/moved")
    shutil.move("images", "elsewhere")
    (here / "elsewhere" / "a" / "0.png").rename(here / "0.png")
    with pytest.raises(ConfigError, match="the dataset has changed"):
        resume_run(folder, [{"data": {"dataset": "elsewhere"}}])
    (here / "0.png").rename(here / "elsewhere" / "a" / "0.png")
    assert resume_run(folder, [{"data": {"dataset": "elsewhere"}}]).epochs[-1].epoch == 2


def test_an_end_at_the_last_checkpoint(shared: SharedRuns) -> None:
    """`--epochs` that stops a run where it was interrupted gives its files, of these steps."""
    folder = shared.stopped(3, settings(), "short")
    result = resume_run(folder, [{"train": {"epochs": 3 / STEPS}}])
    assert [epoch.step for epoch in result.epochs] == [3]
    assert (folder / "curves.png").is_file()
    assert (folder / "test.json").is_file()


def test_a_run_that_cannot_go_on_stays_finished(
    shared: SharedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the command is found before the run's last figures are taken away."""
    folder = shared.finished(settings(epochs=1), "done").folder
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="needs an extra"):
        resume_run(folder, [{"train": {"epochs": 2}}], Options(tensorboard=True))
    assert (folder / "test.json").is_file()


def test_figures_that_are_none_are_no_result(here: Path) -> None:
    """A rate far too high, in the one step there is: an error, and no file of a broken model."""
    deep = {"stages": ((8,) * 12, (8,) * 12), "initialization": "he"}
    config = resolve_config(
        {"recipe": "article", "model": deep, "data": {"dataset": "few", "data_dir": "data"}},
        {"train": {"epochs": 0.1, "peak_lr": 10, "threads": 1}},
    )
    with pytest.raises(TrainingDivergedError, match="try a smaller rate"):
        run(config, Options(name="far", output=Path("far.pth")))
    assert not Path("far.pth").exists()
    assert not (here / "runs" / "far" / "test.json").exists()
