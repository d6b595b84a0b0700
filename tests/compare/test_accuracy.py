"""Time to accuracy: a report states who reaches the target, how fast, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compare.samples import make_result, make_row
from vggnet.compare.accuracy import conclude_accuracy, contenders_of, find_target
from vggnet.compare.report import build_report
from vggnet.compare.result import FullRun, FullTraining, Result, ToAccuracy
from vggnet.recipes import resolve_config
from vggnet.report.html import render_html
from vggnet.report.markdown import render_markdown

CPU = make_row()
GPU = make_row("cuda:0", (1.0, 1.0, 1.5))


def training(
    recipe: str,
    device: str,
    seconds: tuple[float, ...],
    accuracies: tuple[float, ...] = (0.995, 0.994, 0.996),
    **changes: Any,
) -> FullTraining:
    """Invent a complete training; half of its time is training."""
    runs = tuple(
        FullRun(seed=seed, seconds=one, training_seconds=one / 2, accuracy=accuracy, joules=1000.0)
        for seed, (one, accuracy) in enumerate(zip(seconds, accuracies, strict=False))
    )
    config = resolve_config({"recipe": recipe, **changes})
    return FullTraining(setting=make_row(device).setting, config=config, runs=runs)


def result_of(*trainings: FullTraining, target: float | None = 0.994, **changes: Any) -> Result:
    """Invent a result with complete trainings."""
    goal = ToAccuracy(target=target, trainings=trainings)
    return make_result(CPU, GPU, to_accuracy=goal, **changes)


def conclude(*results: Result) -> list[str]:
    """Return the conclusions of results."""
    return conclude_accuracy(contenders_of([(f"m{n}", one) for n, one in enumerate(results)]))


BOTH = (
    training("fast", "cpu", (20.0, 20.0, 22.0)),
    training("fast", "cuda:0", (10.0, 10.0, 10.0)),
    training("article", "cpu", (600.0, 660.0, 600.0)),
    training("article", "cuda:0", (60.0, 60.0, 60.0)),
)


def test_two_devices_are_compared_at_the_same_accuracy() -> None:
    """The answer is the time on the faster device; the article's recipe follows as it was."""
    said = conclude(result_of(*BOTH))
    assert said[0] == (
        "99.4 % on mnist takes 10 s with recipe fast, cuda:0 · fp32 · batch 128: 2× (2 to 2.2) as "
        "fast as recipe fast, cpu · 2 threads · fp32 · batch 128 (20 s); whole process."
    )
    assert said[1].startswith("Training alone, recipe fast, cuda:0")
    assert said[2].startswith("The article's recipe: recipe article, cuda:0")
    assert "10× (10 to 11) as fast; training alone 10× (10 to 11)." in said[2]


def test_a_cpu_is_compared_with_the_articles_recipe() -> None:
    """Without another device, the reference is the article's recipe, whatever it reaches."""
    article = training("article", "cpu", (600.0,) * 3, (0.993, 0.993, 0.993))
    said = conclude(result_of(BOTH[0], article))
    assert "30× (27.3 to 30) as fast as recipe article" in said[0]
    assert "which reaches only 99.30 % (99.30 to 99.30)" in said[0]


def test_a_fast_setting_that_learns_nothing_does_not_win() -> None:
    """A training below the target is no answer, and gets no speedup in the table."""
    wrong = training("best", "cpu", (1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    report = build_report([("", result_of(wrong, *BOTH))], {}, Path("compare.json"))
    assert report.answer.startswith("99.4 % on mnist takes 10 s with recipe fast, cuda:0")
    assert report.main.table is not None
    row = report.main.table.rows[0]
    assert row[0].startswith("recipe best")
    assert row[1] == "no, 0 of 3"
    assert row[5] == "—"
    alone = conclude(result_of(wrong))
    assert alone == [
        "No setting reached 99.4 % on mnist: the best is recipe best, cpu · 2 threads · fp32 · "
        "batch 128 with 50.00 % (50.00 to 50.00)."
    ]


def test_the_articles_accuracy_is_the_target() -> None:
    """`--to article` takes the mean over all runs of the article's recipe."""
    article = training("article", "cpu", (600.0,) * 3, (0.993, 0.994, 0.995))
    contenders = contenders_of([("", result_of(BOTH[0], article, target=None))])
    assert find_target(contenders) == pytest.approx(0.994)


def test_different_trainings_get_no_speedup() -> None:
    """Other images, or another setting of the same recipe, rule out a comparison."""
    other = training("fast", "cuda:0", (10.0,) * 3, train={"peak_lr": 1e-3})
    assert "train.peak_lr (0.0065 and 0.001)" in conclude(result_of(BOTH[0]), result_of(other))[0]
    moved = result_of(BOTH[1], dataset_sha256="1" * 64)
    assert conclude(result_of(BOTH[0]), moved)[0] == (
        "No time to accuracy is compared: the trainings differ in dataset."
    )


def test_results_of_two_machines_are_compared() -> None:
    """Without common runs, the range of a speedup is the widest possible."""
    said = conclude(result_of(BOTH[0]), result_of(training("fast", "cuda:0", (8.0, 10.0, 10.0))))
    assert "m1: recipe fast, cuda:0" in said[0]
    assert "2× (2 to 2.75) as fast as m0: recipe fast" in said[0]


def test_time_to_accuracy_comes_first() -> None:
    """The report starts with it; throughput, energy and cost follow."""
    report = build_report([("", result_of(*BOTH))], {"cpu": 3.6}, Path("compare.json"))
    assert [one.title for one in report.all_sections][:2] == ["Time to accuracy", "Throughput"]
    assert report.main.table is not None
    assert report.main.table.columns[-2:] == ("kJ", "cost of a run")
    costs = {row[0].split(" ·")[0]: row[-1] for row in report.main.table.rows}
    assert costs["recipe fast, cpu"] == "0.02"
    assert costs["recipe fast, cuda:0"] == "—"
    assert "as fast as cpu · 2 threads" in " ".join(report.remarks)
    assert "<h1>99.4 % on mnist" in render_html(report, "vggnet compare")
    assert "### Time to accuracy" in render_markdown(report)


@given(st.lists(st.floats(0.9, 1), min_size=1, max_size=30))
def test_the_interval_contains_the_mean(accuracies: list[float]) -> None:
    """The 95 % interval surrounds the mean; a single seed has none."""
    runs = (10.0,) * len(accuracies)
    (one,) = contenders_of([("", result_of(training("fast", "cpu", runs, tuple(accuracies))))])
    interval = one.accuracy_interval()
    if len(accuracies) == 1:
        assert interval is None
    else:
        assert interval is not None
        assert interval[0] <= one.accuracy <= interval[1]


def test_three_seeds_have_students_interval() -> None:
    """0.993, 0.994 and 0.995 have a mean of 0.994 ± 4.303 · 0.001 / √3."""
    (one,) = contenders_of(
        [("", result_of(training("fast", "cpu", (1.0,) * 3, (0.993, 0.994, 0.995))))]
    )
    assert one.accuracy_interval() == pytest.approx((0.994 - 0.0024843, 0.994 + 0.0024843))
