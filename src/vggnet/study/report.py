"""Build the report of a study; no torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vggnet.report.document import LineChart, Report, Section, Series, Table
from vggnet.report.wording import with_range
from vggnet.study.ledger import FinishedRun

_SHOWN = {
    "train.epochs": "epochs",
    "train.global_batch_size": "batch size",
    "model.width": "width",
    "model.batch_norm": "batch norm",
    "model.initialization": "initialization",
    "model.dropout": "dropout",
    "train.optimizer": "optimizer",
    "train.peak_lr": "peak learning rate",
    "train.schedule": "schedule",
    "train.label_smoothing": "label smoothing",
    "train.precision": "precision",
    "train.kernels": "kernels",
}
"""The settings in the report, and their names there."""

_ENOUGH_RUNS = 3
"""Runs per network for a verdict. If depth has no effect, chance alone separates all runs of two
networks in 1 of 3 studies with two runs each, and in 1 of 10 with three."""


@dataclass(frozen=True)
class Member:
    """All runs of one member of the VGG family."""

    name: str
    runs: tuple[FinishedRun, ...]

    @property
    def depth(self) -> int:
        """Layers with weights."""
        return self.runs[0].depth

    @property
    def parameters(self) -> int:
        """Trained parameters."""
        return self.runs[0].parameters

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each run, percent."""
        return tuple(100 * run.accuracy for run in self.runs)

    @property
    def errors(self) -> tuple[float, ...]:
        """Test error of each run, percent."""
        return tuple(100 - accuracy for accuracy in self.accuracies)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Duration of each run's training steps."""
        return tuple(run.seconds for run in self.runs)


def group(runs: Sequence[FinishedRun]) -> list[Member]:
    """Return the members, the shallowest first."""
    names = sorted({run.model for run in runs})
    members = [Member(name, tuple(run for run in runs if run.model == name)) for name in names]
    return sorted(members, key=lambda member: (member.depth, member.parameters))


def build_report(runs: Sequence[FinishedRun], planned: int) -> Report:
    """Report what the runs show.

    Args:
        runs: At least one.
        planned: Number of runs in the complete study.
    """
    members = group(runs)
    remarks = [_state_cost(members)] if len(members) > 1 else []
    if len(runs) < planned:
        remarks.append(f"{len(runs)} of {planned} runs are done; the same command continues.")
    return Report(
        answer=_conclude(members),
        remarks=tuple(remarks),
        main=_show_members(members),
        sections=(*_show_figures(members), _show_runs(runs), _show_settings(runs)),
    )


def _conclude(members: Sequence[Member]) -> str:
    """Compare the deepest network with the shallowest; a verdict needs all runs to agree."""
    first, last = members[0], members[-1]
    settings = first.runs[0].settings
    epochs = settings["train.epochs"]
    where = f"on {settings['data.dataset']} with {epochs:g} epoch{'' if epochs == 1 else 's'}"
    if settings["model.width"] != 1:
        where += f" and width {settings['model.width']:g}"
    if len(members) == 1:
        return f"{first.name} {where}: {_mean(first.accuracies)} %"
    if first.depth == last.depth:
        alike = ", ".join(f"{one.name} {_mean(one.accuracies)} %" for one in members)
        return f"All networks have {first.depth} layers, {where}: {alike}"
    figures = (
        f"{last.name} ({last.depth} layers) {statistics.mean(last.accuracies):.2f} %, "
        f"{first.name} ({first.depth}) {statistics.mean(first.accuracies):.2f} %"
    )
    if min(len(first.runs), len(last.runs)) < _ENOUGH_RUNS:
        return f"No verdict on depth with fewer than {_ENOUGH_RUNS} runs each {where}: {figures}"
    if min(last.accuracies) > max(first.accuracies):
        return f"Depth improves accuracy {where}: {figures}"
    if max(last.accuracies) < min(first.accuracies):
        return f"Depth reduces accuracy {where}: {figures}"
    return f"No clear effect of depth {where}: {figures}"


def _state_cost(members: Sequence[Member]) -> str:
    first, last = members[0], members[-1]
    best = max(members, key=lambda member: statistics.mean(member.accuracies))
    slower = statistics.median(last.seconds) / statistics.median(first.seconds)
    cost = f"takes {slower:.1f}× as long to train as {first.name} and"
    if len(_machines([*first.runs, *last.runs])) > 1:
        cost = f"and {first.name} were trained on different machines or versions, so their times "
        cost += f"are not compared; {last.name}"
    larger = last.parameters / first.parameters
    return f"Best mean accuracy: {best.name}. {last.name} {cost} has {larger:.2f}× the parameters."


def _show_members(members: Sequence[Member]) -> Section:
    rows = tuple(
        (
            member.name,
            str(member.depth),
            f"{member.parameters:,}",
            _mean(member.accuracies),
            _mean(member.seconds, digits=1),
            str(len(member.runs)),
        )
        for member in members
    )
    columns = ("network", "layers", "parameters", "test accuracy %", "training s", "runs")
    note = (
        "Mean (minimum to maximum) over the seeds. Layers: layers with weights. Accuracy: final "
        "weights on the test set, evaluated once per run. Seconds: training steps only."
    )
    return Section("Results", (note,), Table(columns, rows))


def _show_figures(members: Sequence[Member]) -> list[Section]:
    """Plot test errors, which start at zero; the table has the accuracies."""
    figures: dict[tuple[str, str], list[tuple[float, ...]]] = {
        ("Test error", "%"): [member.errors for member in members],
        ("Training time", "seconds"): [member.seconds for member in members],
        ("Size", "million parameters"): [(member.parameters / 1e6,) for member in members],
    }
    sections = []
    for (title, unit), values in figures.items():
        points = [
            (float(member.depth), (statistics.mean(some), min(some), max(some)))
            for member, some in zip(members, values, strict=True)
        ]
        series = Series.with_ranges(unit, points)
        chart = LineChart(f"{title} over depth", "layers with weights", unit, (series,))
        sections.append(Section(title, figure=chart))
    return sections


def _show_runs(runs: Sequence[FinishedRun]) -> Section:
    rows = tuple(
        (
            f"{run.model}, seed {run.seed}",
            f"{100 * run.accuracy:.2f}",
            f"{run.loss:.4f}",
            f"{run.train_loss:.4f}",
            f"{run.seconds:.1f}",
            f"{run.images / run.seconds:,.0f}",
        )
        for run in sorted(runs, key=lambda run: (run.depth, run.model, run.seed))
    )
    columns = ("run", "test accuracy %", "test loss", "training loss", "training s", "images/s")
    note = "Training loss: mean of the last epoch, with label smoothing. Test loss: without."
    return Section("Runs", (note,), Table(columns, rows))


def _show_settings(runs: Sequence[FinishedRun]) -> Section:
    settings = runs[0].settings
    rows = [(words, str(settings[name])) for name, words in _SHOWN.items() if name in settings]
    rows.append(
        ("dataset", f"{settings['data.dataset']}, SHA-256 {runs[0].dataset_sha256[:16]}…"),
    )
    rows += [("machine", machine) for machine in _machines(runs)]
    return Section("Settings of all runs", table=Table(("", ""), tuple(rows)))


def _machines(runs: Sequence[FinishedRun]) -> list[str]:
    """Return each machine with its software versions, once."""
    environments = [run.environment for run in runs]
    return sorted(
        {
            f"{one.get('cpu')}, {one.get('threads')} threads, torch {one.get('torch')}, "
            f"vggnet {one.get('vggnet')}"
            for one in environments
        }
    )


def _mean(values: Sequence[float], digits: int = 2) -> str:
    return with_range(statistics.mean(values), min(values), max(values), digits)
