"""The loop: learns, repeats bit for bit, stops at a NaN, and never waits inside an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from conftest import make_batches
from vggnet.config import AugmentConfig, ModelConfig, TrainConfig
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.engine.device import computing
from vggnet.engine.fit import (
    EpochResult,
    TrainState,
    balance,
    build_state,
    check_losses,
    fit,
    train_step,
)
from vggnet.engine.optimizer import leave_to_adamw
from vggnet.engine.session import Session
from vggnet.engine.snapshot import restore_snapshot, take_snapshot
from vggnet.errors import TrainingDivergedError
from vggnet.model.vgg import build_network

MOVED = AugmentConfig(rotation=15, shift=2, scale=0.15, shear=15, flip=True)
SMALL = ModelConfig(stages=((8,), (16,)), hidden=(16,), dropout=0.0)


def start(config: TrainConfig, device: str = "cpu", model: ModelConfig = SMALL) -> TrainState:
    """Build a small network's initial state."""
    network = build_network(model, config.seed)
    return build_state(network, config, torch.device(device), Session())


def train(config: TrainConfig, batches: Batches) -> tuple[TrainState, list[EpochResult]]:
    """Train on one thread from the seed's weights to the end."""
    state = start(config)
    with computing("fp32", 1):
        torch.manual_seed(config.seed)
        return state, list(fit(state, batches))


def weights(state: TrainState) -> list[Tensor]:
    """Return all parameters."""
    return [parameter.detach() for parameter in state.network.parameters()]


def test_it_learns(batches: Batches) -> None:
    """Twenty epochs over 300 images go from chance to an accuracy over 80 %."""
    _, results = train(TrainConfig(epochs=20, peak_lr=1e-2), batches)
    assert [result.epoch for result in results] == list(range(1, 21))
    assert results[0].loss == pytest.approx(math.log(10), rel=0.2)
    assert results[-1].loss < 0.7
    assert results[-1].accuracy > 0.8


def test_same_seed_same_bits(batches: Batches) -> None:
    """Two runs of one seed and thread count end with bitwise equal weights."""
    config = TrainConfig(epochs=2)
    (first, results), (second, again) = train(config, batches), train(config, batches)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
    assert [one.step_losses for one in results] == [one.step_losses for one in again]
    other, _ = train(TrainConfig(epochs=2, seed=1), batches)
    assert not torch.equal(weights(first)[0], weights(other)[0])


def test_results_account_for_every_image(batches: Batches) -> None:
    """An epoch's loss is the mean over its images, its short last batch included."""
    _, (result,) = train(TrainConfig(epochs=1), batches)
    assert (result.images, result.step, len(result.step_losses)) == (300, 3, 3)
    by_batch = [128 * result.step_losses[0], 128 * result.step_losses[1]]
    assert result.loss == pytest.approx(sum([*by_batch, 44 * result.step_losses[2]]) / 300)


@pytest.mark.parametrize(("epochs", "steps"), [(0.34, [1]), (1.67, [3, 5]), (2, [3, 6])])
def test_fractions_of_epochs(batches: Batches, epochs: float, steps: list[int]) -> None:
    """The last epoch is cut at the step where the run ends."""
    _, results = train(TrainConfig(epochs=epochs), batches)
    assert [result.step for result in results] == steps


def test_a_step_is_adam_on_the_mean_loss(few: LabeledImages) -> None:
    """One step equals the textbook's: torch's plain Adam on cross_entropy's mean."""
    parts = make_batches(few, batch_size=50)
    batch = next(parts.in_order())
    state = start(TrainConfig())
    reference = build_network(state.network.config, 0)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3)
    loss = torch.nn.functional.cross_entropy(reference(batch.images), batch.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    total, correct = train_step(state, batch)
    assert total.item() / 50 == pytest.approx(loss.item(), rel=1e-5)
    assert 0 <= int(correct) <= 50
    for ours, theirs in zip(weights(state), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-6)


def test_training_stops_at_a_loss_that_is_not_finite(batches: Batches) -> None:
    """The error says at which step; what ran before is left in the state."""
    state = start(TrainConfig(epochs=5))
    poisoned_after = 4

    def poison(state: TrainState) -> None:
        if state.step == poisoned_after:
            next(state.network.parameters()).data.fill_(float("nan"))

    with pytest.raises(
        TrainingDivergedError, match=r"at step 5 .*try a smaller learning rate"
    ) as caught:
        list(fit(state, batches, poison))
    assert caught.value.step == poisoned_after


def test_what_an_epochs_last_update_did_is_looked_at(batches: Batches) -> None:
    """Weights that are not finite end the run though no step's loss has shown it yet."""

    def poison(state: TrainState) -> None:
        if state.step == 3:
            next(state.network.parameters()).data.fill_(float("inf"))

    with pytest.raises(TrainingDivergedError, match="weights are not finite after step 3"):
        list(fit(start(TrainConfig(epochs=1)), batches, poison))


def test_an_epoch_that_is_cut_afterwards_is_summed_up(batches: Batches) -> None:
    """Stopped after two steps, a run that shall take no more still yields what they came to."""

    def stop(state: TrainState) -> None:
        if state.step == 2:
            raise KeyboardInterrupt

    state = start(TrainConfig(epochs=10))
    with pytest.raises(KeyboardInterrupt):
        list(fit(state, batches, stop))
    state.config = TrainConfig(epochs=0.67)
    (result,) = fit(state, batches)
    assert (result.step, result.images, len(result.step_losses)) == (2, 256, 2)
    assert not list(fit(state, batches))


def test_on_step_is_called_after_every_step(batches: Batches) -> None:
    """Its exception ends the run at a step boundary."""
    seen: list[int] = []

    def stop(state: TrainState) -> None:
        seen.append(state.step)
        if state.step == 5:
            raise KeyboardInterrupt

    state = start(TrainConfig(epochs=10))
    with pytest.raises(KeyboardInterrupt):
        list(fit(state, batches, stop))
    assert seen == [1, 2, 3, 4, 5]
    assert state.step == 5


def test_a_run_of_version_0_1_goes_on_with_adamw(batches: Batches) -> None:
    """Of a snapshot in which AdamW trained the hidden layer it still does, to the same bits."""
    config = TrainConfig(epochs=2, optimizer="muon", peak_lr=5e-3)

    def start_old() -> TrainState:
        state = start(config)
        leave_to_adamw(state.optimizer, state.network.classifier[0].weight)
        return state

    def stop(state: TrainState) -> None:
        if state.step == 2:
            raise KeyboardInterrupt

    unbroken, stopped, resumed, new = start_old(), start_old(), start(config), start(config)
    with computing("fp32", 1):
        list(fit(unbroken, batches))
        list(fit(new, batches))
        with pytest.raises(KeyboardInterrupt):
            list(fit(stopped, batches, stop))
        restore_snapshot(resumed, take_snapshot(stopped))
        list(fit(resumed, batches))
    assert all(map(torch.equal, weights(resumed), weights(unbroken)))
    assert not all(map(torch.equal, weights(resumed), weights(new)))


def test_growing_images_learn(batches: Batches) -> None:
    """Training whose images grow reaches an accuracy over 80 % too, with other weights."""
    config = TrainConfig(epochs=30, peak_lr=1e-2)
    growing, results = train(config.model_copy(update={"growth_fraction": 0.5}), batches)
    assert results[-1].accuracy > 0.8
    whole, _ = train(config, batches)
    assert not all(map(torch.equal, weights(growing), weights(whole)))


class NoUpload(TorchFunctionMode):
    """Fails where values are copied from Python's memory, which waits for the device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call what torch was asked for."""
        assert func not in (torch.tensor, torch.as_tensor, torch.from_numpy), func
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device(few: LabeledImages) -> None:
    """On torch's meta device, which has no values to read, whole epochs of steps run.

    Every tensor of the step lives on the device, since meta mixes with no other;
    nothing reads one back, since reading a meta tensor is an error; and from the second
    batch on, whose images are moved and scaled, nothing is copied to it. The optimizer
    is plain SGD, as torch has no fused Adam for this device.
    """
    parts = make_batches(few, device="meta", augment=MOVED)
    network = build_network(SMALL, 0).to("meta")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    config, device = TrainConfig(label_smoothing=0.1), torch.device("meta")
    state = TrainState(network, network, optimizer, scaler, config, device, Session())
    given = parts.shuffled(seed=0, epoch=0)
    first = next(given)
    with NoUpload():
        for batch in (first, *given):
            loss, correct = train_step(state, batch)
            assert loss.device.type == correct.device.type == "meta"
    assert state.step == 3


def test_losses_are_looked_at_before_they_are_kept(batches: Batches) -> None:
    """What a GPU would notice at the epoch's end alone is an error when it is asked for."""
    state = start(TrainConfig(epochs=2))

    def poison(state: TrainState) -> None:
        check_losses(state)
        if state.step == 2:
            state.sums[1, 0] = float("nan")
            check_losses(state)

    with pytest.raises(TrainingDivergedError, match=r"nan at step 2 "):
        list(fit(state, batches, poison))


def test_bf16_trains(batches: Batches) -> None:
    """Autocast to bfloat16 gives nearly the loss of fp32, and keeps the weights fp32."""
    full = train(TrainConfig(epochs=2), batches)[1]
    state, half = train(TrainConfig(epochs=2, precision="bf16"), batches)
    assert half[-1].loss == pytest.approx(full[-1].loss, rel=0.05)
    assert half[-1].loss != full[-1].loss
    assert {parameter.dtype for parameter in state.network.parameters()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_gpu_trains_as_the_cpu_does(few: LabeledImages, precision: str) -> None:
    """Twelve steps on a GPU give the CPU's losses, to the precision's rounding."""
    settings = {"epochs": 4, "peak_lr": 5e-3}
    expected = train(TrainConfig.model_validate(settings), make_batches(few))[1]
    config = TrainConfig.model_validate({**settings, "precision": precision})
    state = start(config, device="cuda", model=SMALL)
    with computing(precision, 1):
        found = list(fit(state, make_batches(few, device="cuda")))
    assert found[-1].loss < 0.9 * found[0].loss
    assert [one.loss for one in found] == pytest.approx([one.loss for one in expected], rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_gpu_is_not_waited_for(few: LabeledImages, optimizer: str) -> None:
    """CUDA itself reports no wait in steps of moved images, after one to warm up."""
    config = TrainConfig.model_validate({"epochs": 1, "optimizer": optimizer})
    state = start(config, device="cuda")
    given = make_batches(few, device="cuda", augment=MOVED).shuffled(seed=0, epoch=0)
    train_step(state, next(given))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in given:
            train_step(state, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == 3


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    """Their mean over the images is 1, and a class without images has none."""
    weights = balance(torch.tensor([0, 0, 0, 2]), 3)
    assert torch.allclose(weights, torch.tensor([4 / 6, 0.0, 4 / 2]))


def test_class_weights_scale_the_loss(batches: Batches) -> None:
    """The first step's loss is that of each image times the weight of its class."""
    plain, weighted = TrainConfig(epochs=0.1), TrainConfig(epochs=0.1, class_weights="balanced")
    _, (expected,) = train(plain, batches)
    _, (found,) = train(weighted, batches)
    batch = next(batches.shuffled(0, 0))
    with torch.no_grad():
        logits = start(plain).replica(batch.images)
    losses = F.cross_entropy(logits, batch.labels, reduction="none")
    assert losses.mean().item() == pytest.approx(expected.loss, rel=1e-5)
    losses *= balance(batches.labels, 10)[batch.labels]
    assert losses.mean().item() == pytest.approx(found.loss, rel=1e-5)


def test_a_time_limit_ends_training(batches: Batches) -> None:
    """The rate follows the time, and the result counts the steps that were taken."""
    state = start(TrainConfig(minutes=0.005, schedule="linear", warmup_fraction=0.2))
    results = list(fit(state, batches))
    assert state.is_over
    assert state.elapsed >= 0.3
    assert state.step == results[-1].step == sum(len(one.step_losses) for one in results)
    assert results[-1].lr < state.config.peak_lr / 2
    assert not list(fit(state, batches))
