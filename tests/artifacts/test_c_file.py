"""A model as one C file: it compiles without warnings, and predicts what the network predicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vggnet as package
from conftest import Outcome
from vggnet.artifacts.export.c_file import run_c, write_c
from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel, load_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import Dataset
from vggnet.engine.calibration import Calibration
from vggnet.model.vgg import build_network

Command = Callable[..., Outcome]

MACHINES = {
    "gcc": (["gcc"], []),
    "clang": (["clang"], []),
    "arm": (["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]),
    "risc-v": (["riscv64-linux-gnu-gcc", "-static"], ["qemu-riscv64"]),
}
"""A compiler and an emulator for each."""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("bits", [32, 8])
def test_the_same_classes(
    machine: str, bits: int, digit_model: Path, mnist: Dataset, tmp_path: Path
) -> None:
    """With weights in float, all of 1,000 test images; with 8 bits, 99 of 100.

    An emulator runs the first 100 images.
    """
    compiler, emulator = MACHINES[machine]
    for program in (compiler[0], *emulator):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    model = load_model(digit_model)
    write_c(tmp_path / "model.c", EndToEndModel(model), bits)
    pixels = mnist.test.images[: 100 if emulator else 1000]
    found = run_c(tmp_path / "model.c", pixels, 10, compiler, emulator)
    expected = package.load(digit_model, kernels="torch").predict(pixels)
    same = found.probabilities.argmax(1) == expected.indices
    assert same.mean() == 1 if bits == 32 else same.mean() >= 0.99
    if bits == 32:
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_every_layer_of_the_family(tmp_path: Path) -> None:
    """Response normalization, 1×1 convolutions, colors, padding, calibration, names in Chinese."""
    config = ModelConfig(
        architecture="custom", stages=((8, "lrn"), (8, "conv1-16"), (8,)), hidden=(12, 8),
        in_channels=3, num_classes=4, image_size=24,
    )  # fmt: skip
    card = ModelCard(
        classes=("猫", 'a"b??/', "\\", "%d"),
        image_shape=(3, 19, 19),
        mean=(0.4, 0.5, 0.6),
        calibration=Calibration(scale=0.7, curvature=0.05, images=10),
    )
    network = build_network(config, 0).eval()
    with torch.no_grad():
        network.classifier[-1].weight.mul_(20)
    model = EndToEndModel(LoadedModel(network, card))
    write_c(tmp_path / "model.c", model)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 19, 19), dtype=np.uint8)
    found = run_c(tmp_path / "model.c", pixels, 4, ["cc"])
    with torch.no_grad():
        _, expected = model(torch.tensor(pixels))
    np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-5)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_export(vggnet: Command, digit_model: Path) -> None:
    """The command compiles the file, runs it on 1,000 test images, and reports the agreement."""
    for options, bits in (((), 32), (("--int8",), 8)):
        done = vggnet("export", digit_model, "--format", "c", "--json", *options)
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert (found["bits"], found["images"]) == (bits, 1000)
        assert found["worst"] <= 1e-4
        assert found["same"] == 1000 if bits == 32 else found["same"] >= 990
    assert "int predict(const uint8_t pixels[784], float probabilities[10]);" in (
        Path("model.c").read_text()
    )
    small, large = (Path(name).stat().st_size for name in ("model_int8.c", "model.c"))
    assert small < large / 2


def test_without_a_compiler(
    vggnet: Command, digit_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file is written, and the report says that nothing was measured."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = vggnet("export", digit_model, "--format", "c")
    assert done.code == 0, done.err
    assert "not measured: no C compiler here; weights in float" in done.out
    assert Path("model.c").is_file()
