"""A study's report states only what its runs show."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vggnet.architectures import ARCHITECTURES
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ResultFileError
from vggnet.report.html import render_html
from vggnet.report.markdown import render_markdown
from vggnet.study.ledger import FinishedRun, Ledger
from vggnet.study.plan import plan_study, shared_settings
from vggnet.study.plot import render_study
from vggnet.study.report import build_report, group

SETTINGS = {
    "data.dataset": "<fashion>",
    "train.epochs": 2.0,
    "train.global_batch_size": 64,
    "model.width": 0.25,
}


def finished(model: str, seed: int, accuracy: float, cpu: str = "a CPU") -> FinishedRun:
    """Invent a run."""
    return FinishedRun(
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


def study_of(**accuracies: tuple[float, ...]) -> list[FinishedRun]:
    """Invent runs: vgg_a=(0.9, 0.91)."""
    return [
        finished(model.replace("_", "-"), seed, accuracy)
        for model, some in accuracies.items()
        for seed, accuracy in enumerate(some)
    ]


@pytest.mark.parametrize(
    ("deep", "words"),
    [
        ((0.93, 0.92, 0.94), "Depth improves accuracy on"),
        ((0.88, 0.87, 0.89), "Depth reduces accuracy on"),
        ((0.88, 0.93, 0.94), "No clear effect of depth on"),
        ((0.905, 0.93, 0.93), "No clear effect of depth on"),
        ((0.93, 0.94), "No verdict on depth with fewer than 3 runs each on"),
    ],
)
def test_a_verdict_needs_all_runs_to_agree(deep: tuple[float, ...], words: str) -> None:
    """The deepest network is better only if each of its runs beats each run of A."""
    runs = study_of(vgg_a=(0.90, 0.905, 0.91), vgg_d=(0.99, 0.1), vgg_e=deep)
    report = build_report(runs, len(runs))
    assert report.answer.startswith(words)
    assert "with 2 epochs and width 0.25" in report.answer
    assert "takes 1.7× as long" in report.remarks[0]
    assert len(report.remarks) == 1


def test_networks_of_equal_depth_get_no_verdict() -> None:
    """Two networks of 16 layers are listed without a verdict."""
    report = build_report(study_of(vgg_c=(0.9, 0.9, 0.9), vgg_d=(0.8, 0.8, 0.8)), 6)
    assert report.answer.startswith("All networks have 16 layers, on <fashion>")
    assert "vgg-c 90.00" in report.answer


def test_times_of_several_machines_are_not_compared() -> None:
    """A study that continued elsewhere lists both machines and compares no times."""
    runs = [finished("vgg-a", 0, 0.9), finished("vgg-e", 0, 0.9, cpu="another")]
    report = build_report(runs, 2)
    assert "as long" not in report.remarks[0]
    assert "vgg-e and vgg-a were trained on different machines" in report.remarks[0]
    budget = report.sections[-1].table
    assert budget is not None
    assert [words.split(",")[0] for name, words in budget.rows if name == "machine"] == [
        "a CPU",
        "another",
    ]


@pytest.mark.usefixtures("drawing")
def test_the_report_has_every_run_and_escapes(tmp_path: Path) -> None:
    """Table, page and PNG show means and ranges; an unfinished study says so."""
    runs = study_of(vgg_e=(0.92, 0.93), vgg_a=(0.90, 0.91))
    report = build_report(runs, 12)
    assert report.remarks[-1] == "4 of 12 runs are done; the same command continues."
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
    """11, 11, 13, 16, 16 and 19 layers with weights, at any width."""
    family = [name for name in ARCHITECTURES if name != "vgg-mini"]
    depths = [ModelConfig(architecture=name, width=0.125).depth for name in family]
    assert depths == [11, 11, 13, 16, 16, 19]


def test_a_plan_goes_seed_by_seed(tmp_path: Path) -> None:
    """Letters and names work; runs differ only in network and seed."""
    study = plan_study(["A", "vgg-e"], 2, tmp_path, [{"train": {"epochs": 2}}])
    assert list(study.runs) == ["vgg-a-seed0", "vgg-e-seed0", "vgg-a-seed1", "vgg-e-seed1"]
    settings = shared_settings(study.runs["vgg-e-seed1"])
    assert settings["train.epochs"] == 2
    assert settings["model.batch_norm"] is True
    for models, layer, words in (
        (["Q"], {}, "unknown model 'Q'"),
        (["A", "vgg-a"], {}, "names a network twice"),
        (["A"], {"train": {"seed": 1}}, "use --seeds"),
        (["A"], {"model": {"architecture": "vgg-b"}}, "use --models"),
    ):
        with pytest.raises(ConfigError, match=words):
            plan_study(models, 1, tmp_path, [layer])


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    """The message gives the line."""
    study = plan_study(["A"], 1, tmp_path, [])
    (tmp_path / "study.jsonl").write_text("no run\n")
    with pytest.raises(ResultFileError, match=r"line 1 of .*study\.jsonl is damaged"):
        Ledger(study)
