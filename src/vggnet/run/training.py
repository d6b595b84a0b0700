"""Train as planned, with checkpoints, and evaluate the result on the test set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from vggnet.artifacts.run_folder import RunFolder
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.evaluate import Evaluation, Score, evaluate
from vggnet.engine.fit import EpochResult, TrainState, build_state, check_losses, fit
from vggnet.engine.session import Agreement
from vggnet.engine.snapshot import Snapshot, take_snapshot
from vggnet.errors import InterruptedTrainingError, OutputError, TrainingDivergedError
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate, kernels_of
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG, build_network
from vggnet.run.calibration import calibrate
from vggnet.run.checkpointing import CheckpointSchedule, epochs_since_best, stop_requests
from vggnet.run.plan import Plan, Reporter, resume_command
from vggnet.run.results import Trained, save_weights_so_far
from vggnet.run.resume import describe_circumstances, restore


class Training:
    """The training of one run, from initial weights or from the checkpoint in the plan.

    Args:
        plan: What to train on what.
        schedule: When to save a checkpoint, besides the end of each epoch.
        reporter: Is told of the progress.

    Raises:
        VggnetError: The run to resume cannot continue like this; see `restore`.
    """

    def __init__(self, plan: Plan, schedule: CheckpointSchedule, reporter: Reporter) -> None:
        self._plan, self._schedule, self._reporter = plan, schedule, reporter
        config = plan.config
        network = build_network(config.model, config.train.seed)
        resumed = plan.start.checkpoint
        self._pretrained = resumed.record.pretrained if resumed else ()
        if plan.initial:
            transfer = plan.initial.transfer(network, plan.dataset.classes)
            self._pretrained = transfer.pretrained
            for note in transfer.notes:
                reporter.warned(f"{plan.initial.name}: {note}")
        assert isinstance(config.train.freeze, int)  # `complete_training` has counted them
        network.freeze(config.train.freeze)
        self._state = build_state(
            network, config.train, plan.device, plan.session, self._pretrained
        )
        self._circumstances = describe_circumstances(plan, kernels_of(self._state.replica))
        self._history = restore(plan, self._state, self._circumstances, reporter.warned)
        schedule.start_from(self._state.step)
        self._batches = self._build_batches(plan.train, config.train.global_batch_size)
        self._validation = (
            self._build_batches(plan.validation, BATCH_SIZE) if plan.validation else None
        )
        self._agreement = Agreement(plan.session)
        self._folder: RunFolder | None = None
        self._last_good: dict[str, Tensor] = {}
        self._stop_requested: Callable[[], bool] = bool
        self._stopping = self._is_due = False
        self._saved_step = plan.first_step

    def run(self, folder: RunFolder | None) -> Trained:
        """Train to the end, and evaluate.

        Args:
            folder: Where to write; None on all processes but the main one.

        Raises:
            InterruptedTrainingError: A signal asked to stop; a checkpoint is saved.
            OutputError: A checkpoint cannot be written.
            TrainingDivergedError: The loss is not finite.
        """
        self._folder = folder
        self._train()
        if self._history.best:
            self._state.eval_model.load_state_dict(self._history.best)
        network = fold_batch_norm(self._state.eval_model.eval())
        trust = calibrate(network, self._plan, self._reporter.warned) if folder else None
        batches = self._build_batches(self._plan.dataset.test, BATCH_SIZE)
        evaluation = self._evaluate(network, batches, self._history.epochs[-1])
        if trust:
            evaluation = replace(evaluation, calibration=trust.calibration)
        return Trained(network, evaluation, self._history, trust and trust.typicality)

    def _train(self) -> None:
        with stop_requests() as self._stop_requested:
            self._plan.session.barrier()  # from now on, every process can be asked to stop
            self._reporter.started(self._plan)
            try:
                epochs = fit(self._state, self._batches, self._on_step)
                while not self._lacks_patience and (result := next(epochs, None)):
                    self._end_epoch(result)
            except TrainingDivergedError as error:
                if self._last_good and self._folder:
                    self._state.eval_model.load_state_dict(self._last_good)
                    path = save_weights_so_far(self._plan, self._state, self._folder)
                    epoch = self._history.epochs[-1].epoch
                    error.args = (f"{error}; the weights after epoch {epoch:g} are in {path}",)
                raise
            self._agreement.conclude()
        if self._lacks_patience:
            self._reporter.warned(
                f"stopped after epoch {self._history.epochs[-1].epoch:g}: no lower validation loss "
                f"for --patience {self._plan.config.train.patience}"
            )

    def _on_step(self, state: TrainState) -> None:
        """Save or stop if requested; the last step of an epoch waits for the epoch's result."""
        self._reporter.stepped(state.step, state.expected_steps)
        self._reporter.watched(self._read_losses)
        due = self._plan.session.is_main and self._schedule.due_by_time()
        stop, save = self._agreement.ask(self._stop_requested(), due)
        self._stopping |= stop
        self._is_due |= save or self._schedule.due_by_steps(state.step)
        if state.step % len(self._batches) == 0 or state.is_over:
            return
        if self._stopping or self._is_due:
            self._save_checkpoint()
        if self._stopping:
            self._stop()

    def _read_losses(self) -> list[float]:
        """Return the mean loss of each step of the epoch, over this process's images."""
        first, size = self._state.sums_from, self._plan.session.world_size
        sums = self._state.sums[: self._state.step - first, 0].tolist()
        return [
            size * loss / self._batches.size_of(step % len(self._batches))
            for step, loss in enumerate(sums, first)
        ]

    def _end_epoch(self, result: EpochResult) -> None:
        validation = None
        if self._validation:
            validation = self._evaluate(self._state.eval_model, self._validation, result)
        score = Score(validation.loss, validation.accuracy) if validation else None
        self._history.epochs.append(result)
        self._history.validations.append(score)
        weights = self._state.eval_model.state_dict()
        self._last_good = {name: tensor.clone() for name, tensor in weights.items()}
        keeps_best = self._plan.config.train.keep == "best"
        if keeps_best and epochs_since_best(self._history.validations) == 0:
            self._history.best = self._last_good
        self._reporter.epoch_ended(result, validation)
        state = self._state
        is_last = self._stopping or state.is_over or self._lacks_patience
        is_due = self._is_due or self._schedule.due_after_epoch(state.step, state.expected_steps)
        if is_last or is_due:
            self._save_epochs()
        if self._stopping and not state.is_over:
            self._stop()

    def _save_epochs(self) -> None:
        """Write the table of epochs, and a checkpoint."""
        if self._folder:
            try:
                self._restore(self._folder)
                self._folder.write_epochs(self._history.epochs, self._history.validations)
            except OutputError as error:
                self._reporter.warned(str(error))
        self._save_checkpoint()

    @property
    def _lacks_patience(self) -> bool:
        """Whether the validation loss has not fallen for as long as the settings allow."""
        patience = self._plan.config.train.patience
        return patience is not None and epochs_since_best(self._history.validations) >= patience

    def _evaluate(self, network: VGG, batches: Batches, after: EpochResult) -> Evaluation:
        """Evaluate the weights at the end of an epoch.

        Raises:
            TrainingDivergedError: The loss is not finite: the weights are finite, but huge.
        """
        replica = accelerate(network, self._plan.config.train.kernels)
        evaluation = evaluate(replica, batches, self._plan.session)
        if not math.isfinite(evaluation.loss):
            what = f"the evaluation loss is {evaluation.loss} after step {after.step}"
            raise TrainingDivergedError(what, after.step, after.lr)
        return evaluation

    def _save_checkpoint(self) -> None:
        """Save the state; all processes take part, and the main one writes.

        Raises:
            TrainingDivergedError: A loss is not finite; such a state must not replace a good one.
        """
        started = time.perf_counter()
        check_losses(self._state)
        snapshot = take_snapshot(self._state)
        if self._folder:
            self._write_checkpoint(snapshot, self._folder)
        self._is_due = False
        self._schedule.saved(self._state.step, time.perf_counter() - started)

    def _write_checkpoint(self, snapshot: Snapshot, folder: RunFolder) -> None:
        steps, epochs = self._history.to_checkpoint()
        values = {
            **snapshot.values,
            "config": self._plan.config.model_dump(mode="json"),
            "dataset_sha256": self._plan.dataset.sha256,
            "circumstances": self._circumstances,
            "output": str(self._plan.output),
            "init": self._plan.origin and self._plan.origin.model_dump(),
            "pretrained": self._pretrained,
            "epochs": epochs,
        }
        best = {
            f"best.{name}": tensor.cpu().contiguous() for name, tensor in self._history.best.items()
        }
        try:
            self._restore(folder)
            warnings = folder.checkpoints.save(
                Snapshot({**snapshot.tensors, **best, "history": steps}, values)
            )
        except OutputError as error:
            if folder.is_there():  # a full disk: the last checkpoint is safe
                raise OutputError(f"{error}. {self._advice(folder)}") from None
            self._reporter.warned(f"{error}; training continues without checkpoints")
            return
        self._saved_step = self._state.step
        for warning in warnings:
            self._reporter.warned(warning)

    def _restore(self, folder: RunFolder) -> None:
        if warning := folder.restore():
            self._reporter.warned(warning)

    def _stop(self) -> None:
        """End the run; every process gets here at the same step.

        Raises:
            InterruptedTrainingError: Always.
        """
        self._agreement.conclude()
        error = InterruptedTrainingError(self._state.step)
        if self._folder:
            path = save_weights_so_far(self._plan, self._state, self._folder)
            advice = self._advice(self._folder)
            error.args = (f"{error}; the weights so far are in {path}. {advice}",)
        # The other processes wait until everything is saved: one that leaves ends them all.
        self._plan.session.barrier()
        raise error

    def _advice(self, folder: RunFolder) -> str:
        if not self._saved_step:
            return "There is no checkpoint to resume from"
        command = resume_command(folder.path, self._plan.session)
        return f"Resume from step {self._saved_step}: {command}"

    def _build_batches(self, examples: LabeledImages, batch_size: int) -> Batches:
        """Build batches, of which this process gets its part."""
        plan = self._plan
        return Batches(
            examples,
            plan.device,
            Preprocessing.from_config(plan.config),
            batch_size=batch_size,
            augment=plan.config.augment,
            rank=plan.session.rank,
            world_size=plan.session.world_size,
        )
