"""Time to accuracy: what complete trainings show, and their section of a report; no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vggnet.compare.comparability import FREE, prefixed
from vggnet.compare.conclusions import times
from vggnet.compare.result import FullRun, FullTraining, Result
from vggnet.config import differences
from vggnet.report.document import Bar, BarChart, Section, Table
from vggnet.report.wording import join_words, three_digits, with_range

_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Student's t for a two-sided 95 % interval with 1 to 20 degrees of freedom."""


@dataclass(frozen=True)
class Contender:
    """A complete recipe on one device, and the result that it belongs to."""

    training: FullTraining
    result: Result
    source: str
    """Name of the result if there are several, otherwise empty."""

    @property
    def label(self) -> str:
        """The training's unique name in a report."""
        return prefixed(self.source, f"recipe {self.recipe}, {self.training.setting.label}")

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return self.training.config.recipe

    @property
    def device(self) -> tuple[str, str]:
        """The result's name and the device."""
        return self.source, self.training.setting.device

    @cached_property
    def accuracy(self) -> float:
        """Mean test accuracy over the seeds, 0 to 1."""
        return statistics.mean(run.accuracy for run in self.training.runs)

    @cached_property
    def seconds(self) -> float:
        """Median duration of the whole process."""
        return statistics.median(run.seconds for run in self.training.runs)

    def accuracy_interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean (Student's t); None for a single seed."""
        values = [run.accuracy for run in self.training.runs]
        if len(values) < 2:
            return None
        t = _T95[min(len(values) - 1, len(_T95)) - 1]
        margin = t * statistics.stdev(values) / math.sqrt(len(values))
        return self.accuracy - margin, self.accuracy + margin


def contenders_of(results: Sequence[tuple[str, Result]]) -> list[Contender]:
    """Return the complete trainings of named results."""
    several = len(results) > 1
    return [
        Contender(training, result, source if several else "")
        for source, result in results
        if result.to_accuracy
        for training in result.to_accuracy.trainings
    ]


def find_target(contenders: Sequence[Contender]) -> float:
    """Return the highest target; without a number, the mean accuracy of the article's recipe."""
    targets = [one.result.to_accuracy.target for one in contenders if one.result.to_accuracy]
    article = [run.accuracy for one in contenders if _is_article(one) for run in one.training.runs]
    numbers = [target for target in targets if target is not None]
    if None in targets and article:
        numbers.append(statistics.mean(article))
    return max(numbers, default=1.0)


def conclude_accuracy(contenders: Sequence[Contender]) -> list[str]:
    """Return the answer (which device reaches the target how much faster) and remarks."""
    target = find_target(contenders)
    datasets = list(dict.fromkeys(one.training.config.data.dataset for one in contenders))
    goal = f"{_percent(target)} on {join_words(datasets)}"
    if unlike := _unlike(contenders):
        return [f"No time to accuracy is compared: the trainings differ in {join_words(unlike)}."]
    reached = sorted((one for one in contenders if one.accuracy >= target), key=_seconds)
    if not reached:
        best = max(contenders, key=lambda one: one.accuracy)
        return [f"No setting reached {goal}: the best is {best.label} with {_accuracy(best)}."]
    first = reached[0]
    takes = f"{goal} takes {_duration(first.seconds)} with {first.label}"
    elsewhere = [one for one in reached if one.device != first.device]
    article = [one for one in contenders if _is_article(one) and one is not first]
    rival = next(iter(elsewhere or sorted(article, key=_seconds)), None)
    if rival is None:
        return [f"{takes}, the whole process."]
    ratio = times(_ratio(rival, first, "seconds"))
    answer = f"{takes}: {ratio} as fast as {rival.label} ({_duration(rival.seconds)})"
    if rival.accuracy < target:
        answer += f", which reaches only {_accuracy(rival)}"
    answer += "; whole process."
    alone = times(_ratio(rival, first, "training_seconds"))
    remarks = [f"Training alone, {first.label} is {alone} as fast as {rival.label}."]
    return [answer, *remarks, *_compare_article(contenders)]


def show_accuracy(contenders: Sequence[Contender], prices: Mapping[str, float]) -> Section:
    """Return the table of complete trainings, fastest first."""
    target, baseline = find_target(contenders), _choose_baseline(contenders)
    ordered = sorted(contenders, key=_seconds)
    comparable = not _unlike(contenders)
    with_energy = any(run.joules for one in contenders for run in one.training.runs)
    columns = ["training", f"reaches {_percent(target)}", "accuracy %", "process s", "training s"]
    columns += ["speedup"]
    columns += ["kJ"] if with_energy else []
    columns += ["cost of a run"] if prices else []
    rows = []
    for one in ordered:
        runs, reached = one.training.runs, one.accuracy >= target
        hits = sum(run.accuracy >= target for run in runs)
        ratio = "1×" if one is baseline else times(_ratio(baseline, one, "seconds"))
        cells = [
            one.label,
            f"{'yes' if reached else 'no'}, {hits} of {len(runs)}",
            _accuracy(one).replace(" %", ""),
            _spread([run.seconds for run in runs]),
            _spread([run.training_seconds for run in runs]),
            ratio if comparable and reached else "—",
        ]
        cells += [_energy(runs)] if with_energy else []
        cells += [_cost(one, prices)] if prices else []
        rows.append(tuple(cells))
    chart = BarChart(
        "seconds of the whole process (line: minimum to maximum)", tuple(map(_bar, ordered))
    )
    notes = _explain_table(contenders, baseline)
    return Section("Time to accuracy", notes, Table(tuple(columns), tuple(rows)), chart)


def _choose_baseline(contenders: Sequence[Contender]) -> Contender:
    """Return the article's recipe, on a CPU if there; without it, the slowest training."""
    article = sorted(filter(_is_article, contenders), key=_seconds)
    cpu = [one for one in article if one.training.setting.kind == "cpu"]
    return next(iter([*cpu, *article]), max(contenders, key=_seconds))


def _explain_table(contenders: Sequence[Contender], baseline: Contender) -> tuple[str, str]:
    seeds = sorted({len(one.training.runs) for one in contenders})
    return (
        f"Each training is vggnet train in a fresh process with a complete recipe, "
        f"{join_words([str(count) for count in seeds])} seeds, interleaved. A training reaches the "
        "target if its mean accuracy does; the number of seeds that do follows. Accuracy: mean and "
        "95 % interval of the mean. Seconds: median (minimum to maximum); process: from its start "
        "to the last file, training: its steps alone.",
        f"speedup: of the whole process, relative to {baseline.label}. Recipe article: as the "
        "article trained, in fp32 with PyTorch's own kernels.",
    )


def _bar(one: Contender) -> Bar:
    """Return a bar of the process's median duration, with its range."""
    seconds = [run.seconds for run in one.training.runs]
    text = f"{three_digits(one.seconds)} s, {100 * one.accuracy:.2f} %"
    return Bar(one.label, one.seconds, min(seconds), max(seconds), text)


def _compare_article(contenders: Sequence[Contender]) -> list[str]:
    """Compare the article's recipe between devices, as the article did."""
    article = sorted(filter(_is_article, contenders), key=_seconds)
    others = [one for one in article if one.device != article[0].device] if article else []
    if not others:
        return []
    first, last = article[0], others[-1]
    whole = times(_ratio(last, first, "seconds"))
    alone = times(_ratio(last, first, "training_seconds"))
    return [
        f"The article's recipe: {first.label} takes {_duration(first.seconds)} and {last.label} "
        f"{_duration(last.seconds)}, {whole} as fast; training alone {alone}."
    ]


def _ratio(baseline: Contender, one: Contender, field: str) -> tuple[float, float, float]:
    """Divide the baseline's seconds by another's: median, minimum, maximum.

    Within a result seed by seed; between results the widest range.
    """
    theirs, ours = (
        {run.seed: getattr(run, field) for run in contender.training.runs}
        for contender in (baseline, one)
    )
    if baseline.result is one.result and theirs.keys() & ours.keys():
        ratios = [theirs[seed] / ours[seed] for seed in theirs.keys() & ours.keys()]
        return statistics.median(ratios), min(ratios), max(ratios)
    a, b = list(theirs.values()), list(ours.values())
    median = statistics.median(a) / statistics.median(b)
    return median, min(a) / max(b), max(a) / min(b)


def _unlike(contenders: Sequence[Contender]) -> list[str]:
    """Return what rules out a comparison: other images, or other settings of one recipe."""
    found: list[str] = []
    first: dict[str, Contender] = {}
    for one in contenders:
        if one.result.dataset_sha256 != contenders[0].result.dataset_sha256:
            found.append("dataset")
        other = first.setdefault(one.recipe, one)
        ignore = FREE - {"train.global_batch_size", "train.epochs"} | {"train.seed"}
        found += [
            f"{name} ({left} and {right})"
            for name, left, right in differences(other.training.config, one.training.config, ignore)
        ]
    return list(dict.fromkeys(found))


def _is_article(one: Contender) -> bool:
    return one.recipe == "article" and one.training.setting.kernels == "torch"


def _seconds(one: Contender) -> float:
    return one.seconds


def _percent(fraction: float) -> str:
    return f"{round(100 * fraction, 2):g} %"


def _accuracy(one: Contender) -> str:
    interval = one.accuracy_interval()
    mean = f"{100 * one.accuracy:.2f} %"
    if interval is None:
        return mean
    low, high = interval
    return f"{mean} ({100 * max(low, 0.0):.2f} to {100 * min(high, 1.0):.2f})"


def _duration(seconds: float) -> str:
    return f"{three_digits(seconds)} s"


def _spread(values: Sequence[float]) -> str:
    return with_range(statistics.median(values), min(values), max(values))


def _energy(runs: Sequence[FullRun]) -> str:
    joules = [run.joules for run in runs if run.joules is not None]
    return three_digits(statistics.median(joules) / 1000) if joules else "—"


def _cost(one: Contender, prices: Mapping[str, float]) -> str:
    setting = one.training.setting
    price = prices.get(setting.device, prices.get(setting.kind))
    return "—" if price is None else f"{price * one.seconds / 3600:.3g}"
