"""What is said of a study follows from its runs, and no more is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vggnet.architectures import ARCHITECTURES
from vggnet.compare.markdown import render_markdown
from vggnet.compare.page import render_html
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ResultFileError
from vggnet.study.ledger import Finished, Ledger
from vggnet.study.plan import plan_study
from vggnet.study.plot import render_study
from vggnet.study.report import build_report, group

SETTINGS = {
    "data.dataset": "<fashion>",
    "train.epochs": 2.0,
    "train.global_batch_size": 64,
    "model.width": 0.25,
}


def finished(model: str, seed: int, accuracy: float, cpu: str = "a CPU") -> Finished:
    """Make a run up."""
    return Finished(
        model=model,
        seed=seed,
        depth=ModelConfig(architecture=model).depth,
        parameters=1000 * ModelConfig(architecture=model).depth,
        accuracy=accuracy,
        loss=0.5,
        count=10_000,
        train_loss=0.6,
        seconds=10.0 * ModelConfig(architecture=model).depth,
        images=120_000,
        settings=SETTINGS,
        dataset_sha256="0" * 64,
        environment={"cpu": cpu, "threads": 1},
    )


def study_of(**accuracies: tuple[float, ...]) -> list[Finished]:
    """Make runs up: vgg_a=(0.9, 0.91)."""
    return [
        finished(model.replace("_", "-"), seed, accuracy)
        for model, some in accuracies.items()
        for seed, accuracy in enumerate(some)
    ]


@pytest.mark.parametrize(
    ("deep", "words"),
    [
        ((0.93, 0.92, 0.94), "Depth pays on"),
        ((0.88, 0.87, 0.89), "Depth does not pay on"),
        ((0.88, 0.93, 0.94), "Depth makes no difference that these seeds can show on"),
        ((0.905, 0.93, 0.93), "Depth makes no difference that these seeds can show on"),
        ((0.93, 0.94), "Fewer than 3 runs each cannot tell if depth pays on"),
    ],
)
def test_only_what_every_run_bears_out_is_said(deep: tuple[float, ...], words: str) -> None:
    """The deepest is better or worse only where each of its runs is so than each of A's."""
    runs = study_of(vgg_a=(0.90, 0.905, 0.91), vgg_d=(0.99, 0.1), vgg_e=deep)
    report = build_report(runs, len(runs))
    assert report.answer.startswith(words)
    assert "2 epochs each and 0.25 of the width" in report.answer
    assert "takes 1.7 times as long" in report.more[0]
    assert len(report.more) == 1


def test_networks_of_one_depth_say_nothing_of_depth() -> None:
    """Two members of 16 layers are set side by side, and no verdict is given."""
    report = build_report(study_of(vgg_c=(0.9, 0.9, 0.9), vgg_d=(0.8, 0.8, 0.8)), 6)
    assert report.answer.startswith("All of 16 layers on <fashion>")
    assert "vgg-c 90.00" in report.answer


def test_times_of_several_machines_are_not_compared() -> None:
    """A study that went on elsewhere names both machines, and no ratio of seconds."""
    runs = [finished("vgg-a", 0, 0.9), finished("vgg-e", 0, 0.9, cpu="another")]
    report = build_report(runs, 2)
    assert "times as long" not in report.more[0]
    assert "vgg-e and vgg-a were not all trained by one machine" in report.more[0]
    budget = report.sections[-1].table
    assert budget is not None
    assert [words.split(",")[0] for name, words in budget.rows if name == "machine"] == [
        "a CPU",
        "another",
    ]


def test_the_report_has_every_run_and_escapes(tmp_path: Path) -> None:
    """Table, page and image show means with their spread; an unfinished study says so."""
    runs = study_of(vgg_e=(0.92, 0.93), vgg_a=(0.90, 0.91))
    report = build_report(runs, 12)
    assert report.more[-1] == "4 of 12 runs are done; the same command goes on."
    assert report.main.table is not None
    assert [row[:2] for row in report.main.table.rows] == [("vgg-a", "11"), ("vgg-e", "19")]
    assert report.main.table.rows[0][3] == "90.50 (90.00 to 91.00)"
    text = render_markdown(report)
    assert text.count("vgg-e, seed") == 2
    page = render_html(report, "vggnet study depth")
    assert "<title>vggnet study depth</title>" in page
    assert "&lt;fashion&gt;" in page
    assert "<fashion>" not in page
    render_study(tmp_path / "study.png", group(runs), report.answer)
    with Image.open(tmp_path / "study.png") as image:
        assert image.width > 1000


def test_depth_is_counted_as_in_the_paper() -> None:
    """11, 11, 13, 16, 16 and 19 layers with weights, of whatever width."""
    family = [name for name in ARCHITECTURES if name != "vgg-mini"]
    depths = [ModelConfig(architecture=name, width=0.125).depth for name in family]
    assert depths == [11, 11, 13, 16, 16, 19]


def test_a_plan_goes_seed_by_seed(tmp_path: Path) -> None:
    """Letters and names are members; each run differs in member and seed alone."""
    study = plan_study(["A", "vgg-e"], 2, tmp_path, [{"train": {"epochs": 2}}])
    names = [run.name for run in study.runs]
    assert names == ["vgg-a-seed0", "vgg-e-seed0", "vgg-a-seed1", "vgg-e-seed1"]
    assert study.settings["train.epochs"] == 2
    assert study.settings["model.batch_norm"] is True
    for models, layer, words in (
        (["Q"], {}, "unknown model 'Q'"),
        (["A", "vgg-a"], {}, "names a member twice"),
        (["A"], {"train": {"seed": 1}}, "see --seeds"),
        (["A"], {"model": {"architecture": "vgg-b"}}, "see --models"),
    ):
        with pytest.raises(ConfigError, match=words):
            plan_study(models, 1, tmp_path, [layer])


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    """The line is named."""
    study = plan_study(["A"], 1, tmp_path, [])
    (tmp_path / "study.jsonl").write_text("no run\n")
    with pytest.raises(ResultFileError, match=r"study\.jsonl is damaged in line 1"):
        Ledger(study)
