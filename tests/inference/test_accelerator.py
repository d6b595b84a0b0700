"""On a simulated accelerator, a classifier predicts what it predicts on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import vggnet
from accelerator import DEVICE, Machine, accelerator
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import LabeledImages
from vggnet.model.vgg import build_network


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The simulated accelerator."""
    with accelerator() as machine:
        yield machine


def test_predictions_are_the_cpus(
    machine: Machine, tmp_path: Path, few: LabeledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with one copy of the images to the device and one of the logits back."""
    config = ModelConfig(stages=((4,), (8,), (8,)), hidden=(4,), image_size=32)
    card = ModelCard(classes=tuple("abcdefghij"), image_shape=(1, 28, 28))
    save_model(tmp_path / "model.pth", build_network(config, 0), card)
    on_cpu = vggnet.load(tmp_path / "model.pth", device="cpu", kernels="torch")
    monkeypatch.setattr("vggnet.inference.predict.choose_device", lambda name: DEVICE)
    on_device = vggnet.load(tmp_path / "model.pth")
    machine.uploads.clear()
    found = on_device.predict(few.images)
    assert len(machine.uploads) == len(machine.waits) == 1
    expected = on_cpu.predict(few.images)
    assert (found.probabilities == expected.probabilities).all()
    assert (on_device.evaluate(few).logits == on_cpu.evaluate(few).logits).all()


@pytest.mark.parametrize("call", ["predict", "evaluate"])
def test_it_computes_in_full_fp32(
    tmp_path: Path, few: LabeledImages, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """TF32 is off while the library predicts, as in the commands, and then as it was."""
    card = ModelCard(classes=tuple("abcdefghij"), image_shape=(1, 28, 28))
    save_model(tmp_path / "model.pth", build_network(ModelConfig(), 0), card)
    model = vggnet.load(tmp_path / "model.pth", device="cpu", kernels="torch")
    seen = []
    model.network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    getattr(model, call)(few.images if call == "predict" else few)
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32
