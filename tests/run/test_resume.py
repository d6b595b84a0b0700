"""A run that was interrupted and resumed equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from conftest import lay_out
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.config import Config
from vggnet.data.catalog import CATALOG
from vggnet.data.dataset import Dataset
from vggnet.data.published import CatalogEntry, idx_pair
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import (
    CheckpointError,
    ConfigError,
    InterruptedTrainingError,
    OutputError,
    RunFinishedError,
    TrainingDivergedError,
    VggnetError,
)
from vggnet.recipes import resolve_config
from vggnet.run import Options, Reporter, TrainResult, resume_run, run

STEPS = 8
"""Steps per epoch."""

TINY = {
    "model": {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.5},
    "data": {"dataset": "few", "data_dir": "data", "validation_size": 50},
    "train": {"epochs": 3, "global_batch_size": 32, "threads": 1},
}
"""Trains on 245 images, so the last batch of an epoch is smaller."""


class StopAt(Reporter):
    """Sends this process a real SIGTERM after a step, and records the warnings."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.warnings: list[str] = []

    def stepped(self, step: int, total: int) -> None:
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)

    def warned(self, message: str) -> None:
        """Record a warning; those about too few images are not about resuming."""
        if not any(words in message for words in ("calibrated", "flagged", "test images")):
            self.warnings.append(message)


def settings(recipe: str = "article", **train: Any) -> Config:
    """Return the configuration of a tiny run; with `fast`, images grow as on MNIST."""
    growing = {"growth_fraction": 0.75} if recipe == "fast" else {}
    layers = TINY, {"train": {**TINY["train"], **growing, **train}}
    return resolve_config({"recipe": recipe}, *layers)


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
    """Weights, optimizer, metrics of all steps and epochs are equal, except for times."""
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
    # Not `assert a == b` on bytes: pytest takes a minute to explain the difference.
    one, other = (torch.load(path, weights_only=True) for path in (a, b))
    return all(torch.equal(one[name], other[name]) for name in one)


def final_state(result: TrainResult) -> Snapshot:
    """Return the last checkpoint of a run."""
    return CheckpointFolder(result.folder / "checkpoints").load_latest()[0]


def strip(table: Path) -> list[list[str]]:
    """Return a table's cells without the two columns about speed."""
    return [line.split(",")[:7] for line in table.read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["article", "fast", "best"])
def test_an_interrupted_run_equals_an_uninterrupted_one(recipe: str, shared: SharedRuns) -> None:
    """Interrupted after the first step, mid-epoch, at an epoch's end, before the last step; twice.

    `fast` has Muon's momentum and images that grow, and `best` everything else that a checkpoint
    can contain: batch norm, augmentation, averaged weights.
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
    """Set the tensors whose names end in one of `suffixes` to zero."""
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
def test_every_field_of_a_checkpoint_matters(field: str, shared: SharedRuns) -> None:
    """If any field of the checkpoint is reset, resuming fails or gives another result."""
    config = settings("fast" if field == "momentum" else "best")
    unbroken = shared.finished(config)
    folder = shared.stopped(STEPS + 3, config)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    snapshot, _ = checkpoints.load_latest()
    LOSSES[field](snapshot.tensors, snapshot.values)
    shutil.rmtree(checkpoints.path)
    CheckpointFolder(checkpoints.path).save(snapshot)
    with pytest.raises((AssertionError, CheckpointError)):
        assert_same(resume_run(folder), unbroken)


@pytest.mark.parametrize("value", ["config", "dataset_sha256", "circumstances", "epochs", "scaler"])
def test_a_missing_value_is_reported(value: str, shared: SharedRuns) -> None:
    """A checkpoint that lacks a value is refused, and the error names the value."""
    folder = shared.stopped(3, settings())
    _tamper(folder, lambda values: values.pop(value))
    with pytest.raises(CheckpointError, match=f"{value}: Field required"):
        resume_run(folder)


@pytest.mark.parametrize("field", ["sums", "history", "network.", "averaged.", "optimizer."])
def test_a_missing_tensor_is_reported(field: str, shared: SharedRuns) -> None:
    """A checkpoint that lacks a tensor is refused."""
    folder = shared.stopped(3, settings("best"))
    checkpoints = CheckpointFolder(folder / "checkpoints")
    snapshot, _ = checkpoints.load_latest()
    name = next(name for name in snapshot.tensors if name.startswith(field))
    del snapshot.tensors[name]
    shutil.rmtree(checkpoints.path)
    CheckpointFolder(checkpoints.path).save(snapshot)
    with pytest.raises(CheckpointError, match="does not fit this network: it"):
        resume_run(folder)


def test_more_epochs_with_a_constant_rate_give_the_longer_run(shared: SharedRuns) -> None:
    """A run of 1 epoch, resumed with --epochs 3, equals a run of 3; fewer epochs are refused."""
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
    """Resuming it reports that it is finished, and changes no byte of its files."""
    result = shared.finished(settings(epochs=1), "done")

    def contents() -> dict[Path, bytes]:
        files = [path for path in result.folder.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in [*files, result.output]}

    before = contents()
    with pytest.raises(RunFinishedError, match="done is finished: all 8 steps"):
        resume_run(result.folder)
    assert contents() == before


def test_a_run_killed_while_saving_its_model_saves_it_when_resumed(shared: SharedRuns) -> None:
    """With all steps taken and no test result, only the evaluation is repeated."""
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
    """The images are compared by hash."""
    folder = shared.stopped(3, settings())
    _tamper(folder, lambda values: values.update(dataset_sha256="0" * 64))
    with pytest.raises(ConfigError, match="the dataset has changed"):
        resume_run(folder)


def test_the_images_may_be_moved(shared: SharedRuns) -> None:
    """`--data-dir` may change, because images are compared by hash."""
    shutil.copytree("data", "elsewhere")
    unbroken = shared.finished(settings())
    folder = shared.stopped(3, settings())
    assert_same(resume_run(folder, [{"data": {"data_dir": "elsewhere"}}]), unbroken)


def test_changes_that_affect_the_last_bits_are_warnings(shared: SharedRuns) -> None:
    """Other threads, versions or machines give a warning, and the run continues."""
    folder = shared.stopped(3, settings())
    keys = {"threads", "torch", "processor", "kernels", "vggnet"}
    _tamper(folder, lambda values: values["circumstances"].update(dict.fromkeys(keys, "other")))
    reporter = StopAt(0)
    resume_run(folder, reporter=reporter)
    assert len(reporter.warnings) == len(keys)
    named = {warning.partition(" was other and is now ")[0] for warning in reporter.warnings}
    assert named == keys


def test_batch_norm_fixes_the_number_of_processes(shared: SharedRuns) -> None:
    """With batch norm, another number of processes is refused; without it, it is a warning."""
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


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(shared: SharedRuns) -> None:
    """The result is the same; if both are damaged, the error names both."""
    unbroken = shared.finished(settings())
    folder = shared.stopped(STEPS + 3, settings())
    newest = max((folder / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    reporter = StopAt(0)
    copy = Path(shutil.copytree(folder, "runs/copy"))
    assert_same(resume_run(folder, reporter=reporter), unbroken)
    (warning,) = reporter.warnings
    assert newest.name in warning
    assert "using the previous checkpoint, of step 8" in warning
    for path in (copy / "checkpoints").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint.*0011.*0008"):
        resume_run(copy)


def test_a_name_too_long_for_the_disk_is_reported() -> None:
    """As the run folder and as the folder of all runs."""
    name = Path(300 * "x")
    for folder, options in ((name, Options()), (None, Options(runs=name))):
        with pytest.raises(CheckpointError, match=str(name)):
            resume_run(folder, options=options)


def test_only_two_checkpoints_stay() -> None:
    """With a checkpoint at every step, only the files of the last two remain."""
    options = Options(name="run", output=Path("m.pth"), checkpoint_every="1")
    result = run(settings(), options)
    assert sorted(path.name for path in (result.folder / "checkpoints").iterdir()) == [
        f"step-{step:010d}.{suffix}" for step in (23, 24) for suffix in ("json", "safetensors")
    ]


def test_checkpoints_change_nothing(shared: SharedRuns) -> None:
    """Saving at every step or only at the end of epochs gives the same bits."""
    often = Options(name="often", output=Path("often.pth"), checkpoint_every="1")
    assert_same(run(settings(), often), shared.finished(settings()))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A 4 MB file system."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "vggnet", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


class SpoilAt(Reporter):
    """Calls a function after a step."""

    def __init__(self, step: int, spoil: Callable[[], object]) -> None:
        self.step, self.spoil = step, spoil

    def stepped(self, step: int, total: int) -> None:
        if step == self.step:
            self.spoil()


def fill(disk: Path) -> None:
    """Fill the disk."""
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def remount(disk: Path, how: str) -> None:
    """Make a disk read-only ("ro") or writable ("rw")."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@pytest.mark.parametrize(
    ("spoil", "repair", "words"),
    [
        (fill, lambda disk: (disk / "filler").unlink(), "No space left"),
        (lambda disk: remount(disk, "ro"), lambda disk: remount(disk, "rw"), "Read-only"),
    ],
    ids=["full", "read-only"],
)
def test_a_full_or_read_only_disk_loses_no_run(
    disk: Path,
    spoil: Callable[[Path], None],
    repair: Callable[[Path], None],
    words: str,
    shared: SharedRuns,
) -> None:
    """The run ends with an error and an intact checkpoint; resumed later, it ends equal."""
    unbroken = shared.finished(settings())
    options = Options(runs=disk, name="cut", output=Path("cut.pth"), checkpoint_every="1")
    with pytest.raises(OutputError, match=rf"{words}.*Resume from step 10: .*--resume") as caught:
        run(settings(), options, SpoilAt(11, lambda: spoil(disk)))
    assert "\n" not in str(caught.value)
    repair(disk)
    assert_same(resume_run(disk / "cut"), unbroken)


def _tamper(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a run's checkpoint again with other values and a valid manifest."""
    checkpoints = CheckpointFolder(folder / "checkpoints")
    snapshot, _ = checkpoints.load_latest()
    change(snapshot.values)
    shutil.rmtree(checkpoints.path)
    CheckpointFolder(checkpoints.path).save(snapshot)


def test_a_folder_of_images_may_be_moved(here: Path) -> None:
    """Another path with the same images is fine; other images are refused."""
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


def test_a_run_can_end_at_its_last_checkpoint(shared: SharedRuns) -> None:
    """If --epochs ends a run where it was interrupted, its results are of those steps."""
    folder = shared.stopped(3, settings(), "short")
    result = resume_run(folder, [{"train": {"epochs": 3 / STEPS}}])
    assert [epoch.step for epoch in result.epochs] == [3]
    assert (folder / "curves.png").is_file()
    assert (folder / "test.json").is_file()


def test_a_run_that_cannot_resume_stays_finished(
    shared: SharedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are found before the previous results are removed."""
    folder = shared.finished(settings(epochs=1), "done").folder
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="needs an extra"):
        resume_run(folder, [{"train": {"epochs": 2}}], Options(tensorboard=True))
    assert (folder / "test.json").is_file()


def test_a_loss_that_is_not_finite_is_no_result(here: Path) -> None:
    """A learning rate far too high: an error, and no model file."""
    deep = {"stages": ((8,) * 12, (8,) * 12), "initialization": "he"}
    config = resolve_config(
        {"recipe": "article", "model": deep, "data": {"dataset": "few", "data_dir": "data"}},
        {"train": {"epochs": 0.1, "peak_lr": 10, "threads": 1}},
    )
    with pytest.raises(TrainingDivergedError, match="try a smaller learning rate"):
        run(config, Options(name="far", output=Path("far.pth")))
    assert not Path("far.pth").exists()
    assert not (here / "runs" / "far" / "test.json").exists()


def test_an_unreadable_run_is_reported(here: Path) -> None:
    """A folder that cannot be read is not a missing one: the error gives the system's reason."""
    Path("loop").symlink_to("loop")
    for folder, options in ((Path("loop"), Options()), (None, Options(runs=Path("loop")))):
        with pytest.raises(CheckpointError, match=r"cannot read loop.*symbolic links"):
            resume_run(folder, options=options)


class LoseFolder(StopAt):
    """Does something to the run folder after a step, and records the warnings."""

    def __init__(self, step: int, change: Callable[[], object]) -> None:
        super().__init__(step)
        self.change = change

    def stepped(self, step: int, total: int) -> None:
        if step == self.step:
            self.change()


@pytest.mark.parametrize("every", ["1", "1000"])
@pytest.mark.parametrize(
    "lose",
    [
        lambda: shutil.rmtree("runs/lost"),
        lambda: Path("runs/lost").rename("runs/moved"),
        lambda: shutil.rmtree("runs"),
    ],
    ids=["deleted", "moved", "parent deleted"],
)
def test_a_lost_run_folder_is_made_again(
    lose: Callable[[], object], every: str, shared: SharedRuns
) -> None:
    """The run ends as usual, with all its files, and can be resumed."""
    unbroken = shared.finished(settings())
    kept = shutil.copytree(unbroken.folder, "unbroken")
    reporter = LoseFolder(STEPS + 2, lose)
    options = Options(name="lost", output=Path("lost.pth"), checkpoint_every=every)
    result = run(settings(), options, reporter)
    (_, warning) = reporter.warnings  # the first one: few steps
    assert "runs/lost was moved or deleted during the run" in warning
    assert_same(result, dataclasses.replace(unbroken, folder=Path(kept)))
    assert {path.name for path in result.folder.iterdir()} == {
        path.name for path in Path(kept).iterdir()
    }
    with pytest.raises(RunFinishedError):
        resume_run(result.folder)


class LoseFolderAtTheEnd(LoseFolder):
    """Does it after the last step and its checkpoint."""

    def warned(self, message: str) -> None:
        """Record a warning; the one about calibration comes after training."""
        if "are not calibrated" in message:
            self.change()
        super().warned(message)


def test_a_run_folder_lost_after_training_is_made_again() -> None:
    """The model and the result are in the new one, and nothing else is lost."""
    reporter = LoseFolderAtTheEnd(0, lambda: shutil.rmtree("runs"))
    result = run(settings(), Options(name="lost", output=Path("lost.pth")), reporter)
    assert "runs/lost was moved or deleted during the run" in reporter.warnings[-1]
    saved = {path.name for path in result.folder.iterdir()}
    assert {"model.safetensors", "test.json", "config.json", "environment.json"} <= saved
    assert result.output.is_file()


def test_a_lost_output_folder_loses_no_weights(shared: SharedRuns) -> None:
    """They are in the run folder, and resuming with another output writes them there, too."""
    unbroken = shared.finished(settings())
    Path("out").mkdir()
    options = Options(name="lost", output=Path("out/lost.pth"))
    saved = r"cannot write out/lost\.pth.*; the trained weights are in runs/lost/model\.safetensors"
    with pytest.raises(OutputError, match=saved):
        run(settings(), options, LoseFolder(STEPS, lambda: shutil.rmtree("out")))
    assert Path("runs/lost/model.safetensors").is_file()
    again = resume_run(Path("runs/lost"), options=Options(output=Path("again.pth")))
    assert _same_tensors(again.output, unbroken.output)


def test_weights_are_saved_where_they_can_be(shared: SharedRuns) -> None:
    """With a run folder that cannot be made again, training ends, and --output is written."""

    def lose() -> None:
        shutil.rmtree("runs")
        Path("runs").touch()

    unbroken = shared.finished(settings())
    reporter = LoseFolder(STEPS + 2, lose)
    options = Options(name="lost", output=Path("lost.pth"))
    with pytest.raises(OutputError, match=r"the trained weights are in lost\.pth"):
        run(settings(), options, reporter)
    assert _same_tensors(Path("lost.pth"), unbroken.output)
    assert "training continues without checkpoints" in reporter.warnings[-1]


def test_interrupted_without_a_run_folder_the_weights_are_saved() -> None:
    """They go beside the model file, which keeps its earlier content."""
    Path("lost.pth").write_bytes(b"earlier")

    def lose() -> None:
        shutil.rmtree("runs")
        Path("runs").touch()
        signal.raise_signal(signal.SIGTERM)

    options = Options(name="lost", output=Path("lost.pth"), force=True)
    with pytest.raises(InterruptedTrainingError, match=r"weights so far are in lost-step-3\.pth"):
        run(settings(), options, LoseFolder(3, lose))
    assert Path("lost.pth").read_bytes() == b"earlier"
    torch.load("lost-step-3.pth", weights_only=True)


def test_a_refused_resume_changes_nothing() -> None:
    """A finished run that cannot continue like this keeps its result."""
    config = settings(epochs=1)
    model = config.model.model_copy(update={"batch_norm": True})
    config = config.model_copy(update={"model": model})
    folder = run(config, Options(name="done", output=Path("done.pth"))).folder
    _tamper(folder, lambda values: values["circumstances"].update(processes=2))
    with pytest.raises(ConfigError, match="the run had 2 processes"):
        resume_run(folder, [{"train": {"epochs": 2}}])
    assert (folder / "test.json").is_file()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**15, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "\0", "mnist", "../x", "a.pth", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)

TENSORS = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(0, 2),
        torch.zeros(3, 2),
        torch.zeros(3, 2, dtype=torch.int64),
        torch.zeros(1000, 2),
        torch.full((8,), float("nan")),
        torch.zeros(1, 1, 1, 1),
    ]
)


class Enough(Reporter):
    """Stops a run after two steps."""

    def __init__(self) -> None:
        self.steps = 0

    def stepped(self, step: int, total: int) -> None:
        self.steps += 1
        if self.steps == 2:
            raise KeyboardInterrupt


def test_invalid_values_never_end_in_a_traceback(shared: SharedRuns) -> None:
    """A checkpoint with a valid manifest, but another value or tensor, resumes or is refused."""
    folder = shared.stopped(STEPS + 3, settings("best"))
    valid, _ = CheckpointFolder(folder / "checkpoints").load_latest()

    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        values, tensors = copy.deepcopy(valid.values), dict(valid.tensors)
        if data.draw(st.booleans()):
            place: Any = values
            key: Any = data.draw(st.sampled_from(sorted(values)))
            while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                keys = sorted(place) if isinstance(place, dict) else range(len(place))
                key = data.draw(st.sampled_from(keys))
            place[key] = data.draw(JSON)
        else:
            name = data.draw(st.sampled_from(sorted(tensors)))
            tensors[name] = data.draw(TENSORS)
        shutil.rmtree(folder / "checkpoints")
        write_checkpoint(folder / "checkpoints", tensors, values)
        with suppress(VggnetError, KeyboardInterrupt):
            resume_run(folder, reporter=Enough())

    check()


def write_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], values: Any) -> None:
    """Write a checkpoint with a valid manifest, whatever it contains."""
    checkpoint = CheckpointFolder(folder)
    checkpoint.save(Snapshot({}, {"step": 11}))
    state = folder / "step-0000000011.safetensors"
    content = save(
        {name: one.contiguous() for name, one in tensors.items()}, {"vggnet": json.dumps(values)}
    )
    state.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    manifest = {"format": 1, "file": state.name, "bytes": len(content), "sha256": digest}
    state.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n")
