"""The running average of the weights: what it is, and that it is what is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.config import ModelConfig, TrainConfig
from vggnet.data.batches import Batches
from vggnet.engine.device import computing
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.session import Session
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG, build_network
from vggnet.recipes import resolve_config
from vggnet.run import Options, run

SMALL = ModelConfig(stages=((8,), (8,)), hidden=(8,), dropout=0.0, batch_norm=True)


def train(batches: Batches, decay: float) -> tuple[TrainState, list[dict[str, Tensor]]]:
    """Train for six steps; return the state and the weights after each of them."""
    seen: list[dict[str, Tensor]] = []
    config = TrainConfig(epochs=2, peak_lr=1e-2, average_decay=decay)
    state = build_state(build_network(SMALL, 0), config, torch.device("cpu"), Session())

    def remember(state: TrainState) -> None:
        seen.append({k: v.clone() for k, v in state.network.state_dict().items()})

    with computing("fp32", 1):
        list(fit(state, batches, remember))
    return state, seen


def test_it_is_the_exponential_average(batches: Batches) -> None:
    """Equal weights until 1/(1 - decay) steps, then the decay: parameters and statistics."""
    decay = 0.75
    state, seen = train(batches, decay)
    for name, found in state.eval_model.state_dict().items():
        if found.is_floating_point():
            expected = torch.stack([one[name].double() for one in seen[:4]]).mean(0)
            for one in seen[4:]:
                expected = decay * expected + (1 - decay) * one[name].double()
            assert torch.allclose(found.double(), expected, atol=1e-6), name
            assert not torch.allclose(found, seen[-1][name], atol=1e-4), name


def test_it_does_not_touch_the_training(batches: Batches) -> None:
    """The weights that are trained are bit for bit those of a run without an average."""
    with_average, without = train(batches, 0.9)[0], train(batches, 0.0)[0]
    for one, other in zip(
        with_average.network.parameters(), without.network.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert without.eval_model is without.network


def test_the_average_is_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model file holds the checkpoint's average, with its own statistics folded in."""
    monkeypatch.chdir(tmp_path)
    config = resolve_config(
        {"recipe": "best"},
        {"model": {"stages": "8/8", "hidden": "8"}, "train": {"epochs": 0.01, "threads": 1}},
    )
    result = run(config, Options(name="run", output=Path("run.pth")))
    snapshot, _ = CheckpointFolder(result.folder / "checkpoints").load_latest()
    for part, same in (("averaged.", True), ("network.", False)):
        network = VGG(result.config.model)
        network.load_state_dict(
            {
                name.removeprefix(part): tensor
                for name, tensor in snapshot.tensors.items()
                if name.startswith(part)
            }
        )
        expected = fold_batch_norm(network.eval()).state_dict()
        saved = load_file(result.folder / "model.safetensors")
        plain = torch.load("run.pth", weights_only=True)
        assert saved.keys() == plain.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(saved[name], plain[name])
            assert torch.equal(saved[name], tensor) == same
