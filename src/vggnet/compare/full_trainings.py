"""Complete trainings in fresh processes, to compare the time to the same accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from vggnet.compare.hardware import Meter
from vggnet.compare.measure import ColdStartError, Timer, time_cold_start
from vggnet.compare.plan import ComparisonPlan, Goal, Observer, kernels_fit, strict_settings
from vggnet.compare.result import FullRun, FullTraining, Setting, ToAccuracy
from vggnet.config import Config
from vggnet.engine.device import check_precision
from vggnet.errors import DeviceError


class FullTrainings:
    """The complete trainings of a plan's goal, measured seed by seed.

    Args:
        plan: What to compare.
        goal: The plan's goal.
        observer: Receives progress and warnings.
        timer: Clock and synchronization.
    """

    def __init__(self, plan: ComparisonPlan, goal: Goal, observer: Observer, timer: Timer) -> None:
        self._goal, self._observer, self._timer = goal, observer, timer
        self._trainings: dict[int, tuple[Setting, Config]] = dict(enumerate(_choose(plan, goal)))
        self._runs: dict[int, list[FullRun]] = {}

    def estimate(self, expect: Callable[[Setting, Config], float]) -> float:
        """Return the expected duration of `run`, given one for each training."""
        return self._goal.seeds * sum(expect(*one) for one in self._trainings.values())

    def run(
        self,
        meters: Mapping[torch.device, Meter | None],
        expect: Callable[[Setting, Config], float],
    ) -> None:
        """Train everything with every seed; a training that fails is left out."""
        left = dict(self._trainings)
        for seed in range(self._goal.seeds):
            for number, (setting, config) in list(left.items()):
                label = f"recipe {config.recipe} on {setting.label}"
                self._observer.began(f"seed {seed} of {label}")
                try:
                    run = self._train(setting, config, seed, meters[torch.device(setting.device)])
                except ColdStartError as error:
                    self._observer.warned(f"{label} left out: {error}")
                    del left[number]
                else:
                    self._runs.setdefault(number, []).append(run)
                self._observer.advanced(expect(setting, config))

    def result(self, publish: Callable[[Config], Config]) -> ToAccuracy | None:
        """Return the trainings so far, with `publish` applied to each configuration."""
        trainings = []
        for number, runs in sorted(self._runs.items()):
            setting, config = self._trainings[number]
            trainings.append(
                FullTraining(setting=setting, config=publish(config), runs=tuple(runs))
            )
        if not trainings:
            return None
        return ToAccuracy(target=self._goal.target, trainings=tuple(trainings))

    def _train(self, setting: Setting, config: Config, seed: int, meter: Meter | None) -> FullRun:
        changes = {**setting.model_dump(), "seed": seed}
        train = config.train.model_copy(update=changes)
        before = meter.read() if meter else 0.0
        times, accuracy = time_cold_start(config.model_copy(update={"train": train}), self._timer)
        joules = meter.read() - before if meter and meter.resolves(times.seconds) else None
        return FullRun(**dict(times), seed=seed, accuracy=accuracy, joules=joules)


def _choose(plan: ComparisonPlan, goal: Goal) -> list[tuple[Setting, Config]]:
    """Return the trainings of a goal.

    The recipe runs unchanged on every device, or with each CPU thread count if there is no other
    device. The article's recipe runs in fp32 with PyTorch's own kernels.
    """
    own, article = goal.recipe, goal.article
    only_cpu = all(device.type == "cpu" for device in plan.devices)
    found = []
    for device in plan.devices:
        strict = strict_settings(plan, device)
        for setting in strict if only_cpu else strict[-1:]:
            found.append((_as_recipe(setting, own, device), own))  # noqa: PERF401
    for device in plan.devices:
        size = {"global_batch_size": article.train.global_batch_size}
        pair = (strict_settings(plan, device)[-1].model_copy(update=size), article)
        if pair not in found:
            found.append(pair)
    return found


def _as_recipe(setting: Setting, config: Config, device: torch.device) -> Setting:
    """Return a strict setting with the recipe's precision and kernels.

    Raises:
        DeviceError: The device does not support the recipe's precision.
    """
    precision = config.train.precision
    try:
        check_precision(precision, device)
    except DeviceError as error:
        raise DeviceError(f"--to-accuracy with recipe {config.recipe}: {error}") from None
    compiled = device.type == "cpu" and precision == "fp32" and config.train.kernels != "torch"
    kernels = "winograd" if compiled and kernels_fit(config.model) else "torch"
    return setting.model_copy(update={"precision": precision, "kernels": kernels})
