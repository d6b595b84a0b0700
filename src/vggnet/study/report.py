"""The runs of a study to sentences, a table and figures, in compare's own forms."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vggnet.compare.figures import Lines, Series
from vggnet.compare.section import Report, Section, Table
from vggnet.study.ledger import Finished

_SHOWN = {
    "train.epochs": "epochs",
    "train.global_batch_size": "batch size",
    "model.width": "width",
    "model.batch_norm": "batch norm",
    "model.initialization": "initialization",
    "model.dropout": "dropout",
    "train.optimizer": "optimizer",
    "train.peak_lr": "peak rate",
    "train.schedule": "schedule",
    "train.label_smoothing": "smoothing",
    "train.precision": "precision",
    "train.kernels": "kernels",
}
"""Settings that a reader needs to judge the figures, and what to call them."""

_ENOUGH_RUNS = 3
"""Of each member, for a verdict. Where depth changes nothing, chance alone parts all runs of two
members in 1 of 3 studies with two runs each, and in 1 of 10 with three."""


@dataclass(frozen=True)
class Member:
    """All runs of one member of the family."""

    name: str
    runs: tuple[Finished, ...]

    @property
    def depth(self) -> int:
        """Layers with weights."""
        return self.runs[0].depth

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return self.runs[0].parameters

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Of each run, in percent of the test images."""
        return tuple(100 * run.accuracy for run in self.runs)

    @property
    def errors(self) -> tuple[float, ...]:
        """Of each run, likewise."""
        return tuple(100 - accuracy for accuracy in self.accuracies)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of training, of each run."""
        return tuple(run.seconds for run in self.runs)


def group(runs: Sequence[Finished]) -> list[Member]:
    """Return the members, the shallowest first."""
    names = sorted({run.model for run in runs})
    members = [Member(name, tuple(run for run in runs if run.model == name)) for name in names]
    return sorted(members, key=lambda member: (member.depth, member.parameters))


def build_report(runs: Sequence[Finished], planned: int) -> Report:
    """Say what the runs show.

    Args:
        runs: At least one.
        planned: Runs that the study has when it is complete.
    """
    members = group(runs)
    more = [_price(members)] if len(members) > 1 else []
    if len(runs) < planned:
        more.append(f"{len(runs)} of {planned} runs are done; the same command goes on.")
    return Report(
        answer=_conclude(members),
        more=tuple(more),
        main=_show_members(members),
        sections=(*_show_figures(members), _show_runs(runs), _show_budget(runs)),
    )


def _conclude(members: Sequence[Member]) -> str:
    """Compare the deepest with the shallowest; only what every run bears out is said."""
    first, last = members[0], members[-1]
    settings = first.runs[0].settings
    where = f"on {settings['data.dataset']}, at {settings['train.epochs']:g} epochs each"
    if settings["model.width"] != 1:
        where += f" and {settings['model.width']:g} of the width"
    if len(members) == 1:
        return f"{first.name} {where}: {_spread(first.accuracies)} %"
    if first.depth == last.depth:
        alike = ", ".join(f"{one.name} {_spread(one.accuracies)} %" for one in members)
        return f"All of {first.depth} layers {where}: {alike}"
    figures = (
        f"{last.name} ({last.depth} layers) {statistics.mean(last.accuracies):.2f} %, "
        f"{first.name} ({first.depth}) {statistics.mean(first.accuracies):.2f} %"
    )
    if min(len(first.runs), len(last.runs)) < _ENOUGH_RUNS:
        return f"Fewer than {_ENOUGH_RUNS} runs each cannot tell if depth pays {where}: {figures}"
    if min(last.accuracies) > max(first.accuracies):
        return f"Depth pays {where}: {figures}"
    if max(last.accuracies) < min(first.accuracies):
        return f"Depth does not pay {where}: {figures}"
    return f"Depth makes no difference that these seeds can show {where}: {figures}"


def _price(members: Sequence[Member]) -> str:
    first, last = members[0], members[-1]
    best = max(members, key=lambda member: statistics.mean(member.accuracies))
    slower = statistics.median(last.seconds) / statistics.median(first.seconds)
    cost = f"takes {slower:.1f} times as long to train as {first.name} and"
    if len(_machines([*first.runs, *last.runs])) > 1:
        cost = f"and {first.name} were not all trained by one machine and version, so no times are "
        cost += f"compared; {last.name}"
    larger = last.parameters / first.parameters
    return (
        f"The best mean is {best.name}'s. {last.name} {cost} has {larger:.2f} times the parameters."
    )


def _show_members(members: Sequence[Member]) -> Section:
    rows = tuple(
        (
            member.name,
            str(member.depth),
            f"{member.parameters:,}",
            _spread(member.accuracies),
            _spread(member.seconds, digits=1),
            str(len(member.runs)),
        )
        for member in members
    )
    columns = ("network", "layers", "parameters", "test accuracy %", "training s", "runs")
    note = (
        "Mean (least to most) over the seeds. Layers are those with weights. Accuracy is of the "
        "last step's weights on the test set, looked at once a run. Seconds are of the steps alone."
    )
    return Section("What was trained", (note,), Table(columns, rows))


def _show_figures(members: Sequence[Member]) -> list[Section]:
    """Plot errors, for those begin at zero; a table has the accuracies."""
    depths = tuple(float(member.depth) for member in members)
    parameters = tuple((member.parameters / 1e6,) for member in members)
    figures = (
        ("Test error", "%", [member.errors for member in members]),
        ("Training", "seconds", [member.seconds for member in members]),
        ("Size", "million parameters", parameters),
    )
    return [
        Section(
            title,
            figure=Lines(
                f"{title} against depth",
                "layers with weights",
                unit,
                (
                    Series(
                        unit,
                        depths,
                        tuple(map(statistics.mean, values)),
                        tuple(map(min, values)),
                        tuple(map(max, values)),
                    ),
                ),
            ),
        )
        for title, unit, values in figures
    ]


def _show_runs(runs: Sequence[Finished]) -> Section:
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
    note = "Training loss is the last epoch's, with label smoothing; the test's is without."
    return Section("Every run", (note,), Table(columns, rows))


def _show_budget(runs: Sequence[Finished]) -> Section:
    settings = runs[0].settings
    rows = [(words, str(settings[name])) for name, words in _SHOWN.items() if name in settings]
    rows += [
        ("dataset", f"{settings['data.dataset']}, SHA-256 {runs[0].dataset_sha256[:16]}…"),
    ]
    rows += [("machine", machine) for machine in _machines(runs)]
    return Section("The budget, the same for all", table=Table(("", ""), tuple(rows)))


def _machines(runs: Sequence[Finished]) -> list[str]:
    """Name what the runs were trained with, each once."""
    environments = [run.environment for run in runs]
    return sorted(
        {
            f"{one.get('cpu')}, {one.get('threads')} threads, torch {one.get('torch')}, "
            f"vggnet {one.get('vggnet')}"
            for one in environments
        }
    )


def _spread(values: Sequence[float], digits: int = 2) -> str:
    middle, least, most = statistics.mean(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"
