"""A whole run through the library: what it leaves, and what it does when it is cut short."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vggnet
from vggnet.artifacts.model_file import load_model
from vggnet.data.dataset import Dataset
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError, OutputError, TrainingDivergedError
from vggnet.run import Reporter

SHORT = {"epochs": 1, "global_batch_size": 128, "threads": 1}
"""Ten steps on the fixture `digits`."""
SMALL: dict[str, Any] = {"dataset": "digits", "validation_size": 0}
TINY = {"stages": ((8,), (8,)), "hidden": (8,)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Path) -> Path:
    """Run in a folder with nothing but a small dataset."""
    monkeypatch.chdir(tmp_path)
    Path("digits").symlink_to(digits)
    return tmp_path


class Recorder(Reporter):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.warnings: list[str] = []
        self.epochs: list[EpochResult] = []

    def stepped(self, step: int, total: int) -> None:
        self.steps.append((step, total))

    def epoch_ended(self, result: EpochResult, validation: object) -> None:
        self.epochs.append(result)

    def warned(self, message: str) -> None:
        self.warnings.append(message)


@pytest.mark.usefixtures("drawing")
def test_a_run_leaves_everything_it_promises(here: Path, mnist: Dataset) -> None:
    """The model file here, all else in the run's folder, and the figures agree."""
    recorder = Recorder()
    result = vggnet.train(model=TINY, train={**SHORT, "epochs": 0.02}, reporter=recorder)
    assert result.output == Path("mnist_vggnet.pth")
    assert {path.name for path in result.folder.iterdir()} == {
        "checkpoints",
        "config.json",
        "confusion_matrix.png",
        "curves.png",
        "environment.json",
        "metrics.csv",
        "mistakes.png",
        "model.safetensors",
        "reliability.png",
        "steps.csv",
        "test.json",
    }
    assert recorder.steps == [(step, 9) for step in range(1, 10)]
    assert not recorder.warnings
    model = vggnet.load("mnist_vggnet.pth")
    found = model.evaluate(mnist.test)
    test = json.loads((result.folder / "test.json").read_text())
    assert found.accuracy == pytest.approx(result.accuracy, abs=2e-4)
    assert test["accuracy"] == result.accuracy
    assert test["count"] == 10_000
    card = load_model(result.folder / "model.safetensors").card
    assert card == load_model(result.output).card
    assert card.config is not None
    assert vggnet.Config.model_validate(card.config) == result.config
    assert card.dataset_sha256 == mnist.sha256
    assert card.test is not None
    assert card.test["accuracy"] == result.accuracy
    assert model.predict(mnist.test.images[:3]).probabilities.shape == (3, 10)


def test_same_seed_same_file() -> None:
    """Two runs of one seed and thread count save bitwise equal weights, another seed others."""

    def digest(seed: int, name: str) -> str:
        settings = {**SHORT, "seed": seed}
        vggnet.train(train=settings, model={**TINY, "dropout": 0.5}, data=SMALL, output=name)
        state = torch.load(name, weights_only=True)
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest()

    assert digest(0, "a.pth") == digest(0, "b.pth")
    assert digest(0, "a.pth") != digest(1, "c.pth")


def test_a_run_does_not_touch_the_callers_settings() -> None:
    """Random numbers, threads and denormals are the caller's own again."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    vggnet.train(train=SHORT, model=TINY, data=SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert torch.tensor([1e-40]).mul(1.0).item() != 0


class ArticleNetwork(nn.Module):
    """The article's network as its reader would build it again, ReLU before the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)
        )


def test_the_articles_class_loads_what_best_leaves() -> None:
    """Strictly, and fed pixels scaled to [-1, 1] it gives the logits that the run judged."""
    result = vggnet.train(recipe="best", train=SHORT, data=SMALL, output="mnist_vggnet.pth")
    network = ArticleNetwork().eval()
    network.load_state_dict(torch.load("mnist_vggnet.pth", weights_only=True), strict=True)
    test = vggnet.load_dataset("digits").test
    images = torch.from_numpy(test.images).float() / 255 * 2 - 1
    with torch.no_grad():
        logits = network.classifier(network.features(images).flatten(1))
    expected = torch.from_numpy(result.evaluation.logits)
    assert torch.allclose(logits, expected, atol=1e-3)


def test_batch_norm_is_folded_before_saving() -> None:
    """The file of a run with batch norm is that of the plain network."""
    result = vggnet.train(train=SHORT, model={**TINY, "batch_norm": True}, data=SMALL)
    found = load_model(result.output)
    assert not found.network.config.batch_norm
    assert result.config.model.batch_norm


def test_validation_images_are_held_out() -> None:
    """With 1,080 of 1,280 held out, 200 are trained on and the rest evaluated."""
    recorder = Recorder()
    data = {**SMALL, "validation_size": 1080}
    result = vggnet.train(train=SHORT, data=data, model=TINY, reporter=recorder)
    assert recorder.epochs[0].images == 200
    row = (result.folder / "metrics.csv").read_text().splitlines()[1].split(",")
    assert 0 < float(row[5]) < 1


def test_images_that_a_short_run_does_not_reach_calibrate() -> None:
    """Half an epoch leaves 640 of 1,280 images; the file, its probabilities and scores say so."""
    result = vggnet.train(train={**SHORT, "epochs": 0.5}, data=SMALL, model=TINY)
    model = vggnet.load(result.output)
    assert model.card.calibration is not None
    assert model.card.calibration.images == 640
    assert model.card.calibration == result.evaluation.calibration
    test = vggnet.load_dataset(SMALL["dataset"]).test
    found = model.predict(test.images).probabilities
    assert np.allclose(found, result.evaluation.probabilities, atol=1e-5)
    assert not np.allclose(found, result.evaluation.uncalibrated.probabilities, atol=1e-3)
    assert (result.folder / "reliability.png").exists()


@pytest.mark.parametrize(
    ("data", "images", "trained"),
    [
        ({"calibration_size": 0}, None, 1280),
        ({"calibration_size": 200}, None, 1280),
        ({"validation_size": 300}, 300, 980),
    ],
)
def test_a_whole_epoch_calibrates_on_held_out_images(
    data: dict[str, int], images: int | None, trained: int
) -> None:
    """At most a tenth is held out only for it; the log says why a model is not calibrated."""
    recorder = Recorder()
    settings = {"train": {**SHORT, "epochs": 1}, "data": {**SMALL, **data}, "model": TINY}
    result = vggnet.train(**settings, reporter=recorder)
    assert recorder.epochs[0].images == trained
    calibration = load_model(result.output).card.calibration
    assert (calibration.images if calibration else None) == images
    assert any("not calibrated" in one for one in recorder.warnings) == (images is None)


def test_five_pools_take_mnist() -> None:
    """A member of the family with five pools trains on images padded to 32."""
    narrow = {"stages": ((8,), (8,), (8,), (8,), ("conv1-8",)), "hidden": (8,)}
    result = vggnet.train(train=SHORT, model=narrow, data=SMALL)
    assert result.config.model.image_size == 32
    digits = np.zeros((1, 28, 28), np.uint8)
    assert vggnet.load(result.output).predict(digits).probabilities.shape == (1, 10)


def test_a_diverging_run_keeps_what_was_good(here: Path) -> None:
    """The last whole epoch's weights are saved, and the earlier model file is untouched."""
    (here / "digits_vggnet.pth").write_bytes(b"earlier")

    growing = {
        "epochs": 6,
        "global_batch_size": 128,
        "optimizer": "adamw",
        "schedule": "linear",
        "warmup_fraction": 0.99,
        "peak_lr": 10,
        "weight_decay": 1.2,  # times the rate: more than 2 from the second epoch on
        "threads": 1,
    }
    data = {**SMALL, "validation_size": 280}
    with pytest.raises(TrainingDivergedError, match=r"weights after epoch \d are in"):
        vggnet.train(train=growing, model=TINY, data=data, name="x", force=True)
    assert (here / "digits_vggnet.pth").read_bytes() == b"earlier"
    kept = load_model(here / "runs" / "x" / "model.safetensors")
    assert all(parameter.isfinite().all() for parameter in kept.network.parameters())


def test_a_run_on_arrays_goes_on_with_the_same_arrays(here: Path, mnist: Dataset) -> None:
    """Arrays train like a dataset on disk, and a resumed run checks that they are the same."""
    images, labels = mnist.train.images[:300, 0] / 255, mnist.train.labels[:300]
    test = (mnist.test.images[:20], mnist.test.labels[:20])
    settings = {"recipe": "article", "model": TINY, "batch_size": 100, "threads": 1}
    result = vggnet.train((images, labels), test=test, epochs=1, name="a", **settings)
    assert result.output == Path("arrays_vggnet.pth")
    assert result.evaluation.count == 20
    assert len(result.epochs[0].step_losses) == 3
    assert vggnet.load(result.output).evaluate(test).correct == result.evaluation.correct
    more = vggnet.train((images, labels), test=test, resume=here / "runs/a", epochs=2)
    assert more.epochs[-1].step == 6
    with pytest.raises(ConfigError, match="the dataset has changed"):
        vggnet.train((images, labels[::-1]), test=test, resume=here / "runs/a", epochs=3)
    with pytest.raises(ConfigError, match=r"pass them again, as in vggnet.train\(\(images"):
        vggnet.train(resume=here / "runs/a", epochs=3)


def test_arguments_that_do_not_go_together_are_refused(mnist: Dataset) -> None:
    """Before any training, and with the way to say what is meant."""
    with pytest.raises(ConfigError, match="unknown setting 'epoch'; did you mean 'epochs'"):
        vggnet.train(epoch=1)
    with pytest.raises(ConfigError, match=r"'best' is a recipe.* recipe='best'"):
        vggnet.train("best")
    with pytest.raises(ConfigError, match="to train on, too"):
        vggnet.train("mnist", test=(mnist.test.images, mnist.test.labels))


def test_a_run_shows_its_progress_and_result(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside of a notebook: lines. The result is one line, and its page shows three figures."""
    result = vggnet.train("digits", model=TINY, epochs=1, batch_size=128, threads=1)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("custom on digits: recipe fast, 1 epoch of 1,150 images, 130 held")
    assert shown[1].startswith("epoch 1 · loss")
    assert shown[2] == f"test {result.evaluation.describe()} in {result.seconds:.1f} s"
    assert "digits_vggnet.pth" in shown[3]
    assert repr(result).startswith(f"TrainResult({result.evaluation.describe()}, custom on digits")
    assert len(repr(result)) < 300
    assert "\n" not in repr(result)
    assert result._repr_html_().count("<img") == 3
    vggnet.train("digits", model=TINY, epochs=1, threads=1, reporter=Reporter())
    assert not capsys.readouterr().out


def test_a_reporter_can_read_the_losses_so_far() -> None:
    """What a curve shows during an epoch is what the epoch's result says in the end."""
    seen: list[list[float]] = []

    class Watch(Recorder):
        def watched(self, losses: Callable[[], list[float]]) -> None:
            seen.append(losses())

    recorder = Watch()
    vggnet.train("digits", model=TINY, epochs=1, batch_size=500, threads=1, reporter=recorder)
    assert [len(one) for one in seen] == [1, 2, 3]
    assert seen[-1] == pytest.approx(recorder.epochs[0].step_losses)


def test_a_run_that_goes_on_is_not_finished(here: Path) -> None:
    """More epochs of a finished run, stopped on the way: nothing calls it finished meanwhile."""
    vggnet.train(recipe="article", model=TINY, train={**SHORT, "epochs": 0.5}, data=SMALL, name="a")
    assert (here / "runs/a/test.json").exists()

    class Stop(Reporter):
        def epoch_ended(self, result: EpochResult, validation: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vggnet.train(resume=here / "runs/a", train={"epochs": 1}, reporter=Stop())
    assert not (here / "runs/a/test.json").exists()
    result = vggnet.train(resume=here / "runs/a", train={"epochs": 1})
    assert result.epochs[-1].step == 10
    assert (here / "runs/a/test.json").exists()


def test_outputs_are_checked_before_training(here: Path) -> None:
    """A bad place or name costs no training, and makes no run folder."""
    (here / "folder.pth").mkdir()
    for output, error in (
        ("folder.pth", OutputError),
        ("missing/model.pth", OutputError),
        ("model.h5", ConfigError),
    ):
        with pytest.raises(error):
            vggnet.train(output=output)
    assert not (here / "runs").exists()


def test_a_name_that_is_taken_is_refused_before_training(here: Path) -> None:
    """Runs are never overwritten."""
    (here / "runs" / "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match="mine exists"):
        vggnet.train(name="mine")
