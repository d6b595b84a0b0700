"""Train a plan to its end, with checkpoints on the way."""

from __future__ import annotations

import math
import time
from typing import Any

from vggnet.artifacts.run_folder import RunFolder
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.evaluate import Evaluation, Score, evaluate
from vggnet.engine.fit import EpochResult, TrainState, build_state, check_losses, fit
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import Agreement
from vggnet.engine.snapshot import Snapshot, restore_snapshot, take_snapshot
from vggnet.errors import (
    CheckpointError,
    InterruptedTrainingError,
    OutputError,
    TrainingDivergedError,
)
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate, kernels_of
from vggnet.model.vgg import build_network
from vggnet.run.boundary import CheckpointSchedule, stop_requests
from vggnet.run.circumstances import compare_circumstances, describe_circumstances
from vggnet.run.history import History
from vggnet.run.outcome import save_weights_so_far
from vggnet.run.plan import Plan, Reporter


def check_evaluation(found: Evaluation, after: EpochResult) -> None:
    """Refuse figures that are none, as weights give that are finite and too large.

    Raises:
        TrainingDivergedError: The loss is NaN or infinite.
    """
    if not math.isfinite(found.loss):
        what = f"the loss on other images became {found.loss} after step {after.step}"
        raise TrainingDivergedError(what, after.step, after.lr)


class Training:
    """The training of one run, from its initial weights or from a checkpoint.

    Args:
        plan: What to do.
        folder: Where to leave things; None on all but the main process.
        checkpoint: Where to go on from, if the run was stopped.
        checkpoint_schedule: When a checkpoint is due between the ends of epochs.
        reporter: Told of the progress.

    Raises:
        CheckpointError: The checkpoint lacks something.
        ConfigError: It is of a training with another number of processes.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder | None,
        checkpoint: Snapshot | None,
        checkpoint_schedule: CheckpointSchedule,
        reporter: Reporter,
    ) -> None:
        self.plan, self.folder, self.reporter = plan, folder, reporter
        config = plan.config
        network = build_network(config.model, config.train.seed)
        self.state = build_state(network, config.train, plan.device, plan.session)
        self.history = History()
        self.circumstances = describe_circumstances(plan, kernels_of(self.state.replica))
        self._batches = self.cut(plan.train, config.train.global_batch_size)
        self._validation = self.cut(plan.validation, BATCH_SIZE) if plan.validation else None
        self._total = count_steps(config.train.epochs, len(self._batches))
        self._checkpoints = folder.checkpoints if folder else None
        self._checkpoint_schedule = checkpoint_schedule
        self._agreement = Agreement(plan.session)
        self._stopping = False
        self._saved_step: int | None = None
        if checkpoint:
            self._go_on_from(checkpoint)

    def cut(self, examples: LabeledImages, batch_size: int) -> Batches:
        """Cut images into batches, this process's share of each."""
        config, session = self.plan.config, self.plan.session
        return Batches(
            examples,
            self.plan.device,
            Preprocessing.from_config(config),
            batch_size=batch_size,
            augment=config.augment,
            rank=session.rank,
            world_size=session.world_size,
        )

    def carry_out(self) -> None:
        """Train to the end; when that is cut short, keep what was learnt.

        Raises:
            InterruptedTrainingError: A signal asked to stop; a checkpoint was saved.
            OutputError: The disk does not take a checkpoint.
            TrainingDivergedError: The loss is not finite.
        """
        last_good = None
        with stop_requests() as self._stop_requested:
            self.plan.session.barrier()  # from here on every process can be asked to stop
            self.reporter.started(self.plan)
            try:
                for result in fit(self.state, self._batches, self._on_step):
                    self._end_epoch(result)
                    last_good = {
                        k: v.clone() for k, v in self.state.eval_model.state_dict().items()
                    }
            except TrainingDivergedError as error:
                if last_good and self.folder:
                    self.state.eval_model.load_state_dict(last_good)
                    path = save_weights_so_far(self.plan, self.state.eval_model, self.folder)
                    after = self.history.epochs[-1].epoch
                    error.args = (f"{error}; the weights after epoch {after:g} are in {path}",)
                raise
            self._agreement.conclude()

    def _on_step(self, state: TrainState) -> None:
        """Save or stop, if it is time; at an epoch's last step that waits for its results."""
        self.reporter.stepped(state.step, self._total)
        by_clock = self.plan.session.is_main and self._checkpoint_schedule.by_clock()
        stop, save = self._agreement.ask(self._stop_requested(), by_clock)
        self._stopping |= stop
        if state.step % len(self._batches) == 0 or state.step == self._total:
            return
        if self._stopping or save or self._checkpoint_schedule.by_count(state.step):
            self._save_checkpoint()
        if self._stopping:
            self._stop()

    def _end_epoch(self, result: EpochResult) -> None:
        found = None
        if self._validation:
            network = accelerate(self.state.eval_model, self.plan.config.train.kernels)
            found = evaluate(network, self._validation, self.plan.session)
            check_evaluation(found, result)
        self.history.epochs.append(result)
        self.history.validations.append(Score(found.loss, found.accuracy) if found else None)
        self.reporter.epoch_ended(result, found)
        if self.folder:
            try:
                self.folder.write_epochs(self.history.epochs, self.history.validations)
            except OutputError as error:
                self.reporter.warned(str(error))
        self._save_checkpoint()
        if self._stopping and self.state.step < self._total:
            self._stop()

    def _save_checkpoint(self) -> None:
        """Save the state; all processes take part, and the main one writes.

        Raises:
            TrainingDivergedError: It is not worth saving, and would push a good one out.
        """
        started = time.perf_counter()
        check_losses(self.state, self._total)
        snapshot = take_snapshot(self.state)
        if self._checkpoints:
            steps, epochs = self.history.to_checkpoint()
            values = {**snapshot.values, **self._describe(), "epochs": epochs}
            try:
                self._checkpoints.save(Snapshot({**snapshot.tensors, "history": steps}, values))
            except OutputError as error:
                raise OutputError(f"{error}. {self._way_on()}") from None
        self._saved_step = self.state.step
        self._checkpoint_schedule.saved(self.state.step, time.perf_counter() - started)

    def _describe(self) -> dict[str, Any]:
        """Return what a resumed run must know or compare."""
        return {
            "config": self.plan.config.model_dump(mode="json"),
            "dataset_sha256": self.plan.dataset.sha256,
            "circumstances": self.circumstances,
            "output": str(self.plan.output),
        }

    def _go_on_from(self, checkpoint: Snapshot) -> None:
        plan, values = self.plan, checkpoint.values
        changes = compare_circumstances(
            values["circumstances"], self.circumstances, plan.config.model
        )
        if plan.session.is_main:
            for change in changes:
                self.reporter.warned(change)
        try:
            restore_snapshot(self.state, checkpoint)
            self.history = History.from_checkpoint(checkpoint.tensors["history"], values["epochs"])
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint lacks something: {reason}") from None
        self._saved_step = self.state.step
        self._checkpoint_schedule.start_from(self.state.step)

    def _stop(self) -> None:
        """End the run here; every process comes here at the same step.

        Raises:
            InterruptedTrainingError: Always.
        """
        self._agreement.conclude()
        error = InterruptedTrainingError(self.state.step)
        if self.folder:
            path = save_weights_so_far(self.plan, self.state.eval_model, self.folder)
            error.args = (f"{error}; the weights so far are in {path}. {self._way_on()}",)
        # The other processes wait here until everything is saved: one that leaves ends them all.
        self.plan.session.broadcast_object(None)
        raise error

    def _way_on(self) -> str:
        if self._saved_step is None:
            return "There is no checkpoint yet to go on from"
        return f"Go on from step {self._saved_step}: {self.plan.resume_command}"
