"""`vggnet compare` end to end: a complete run, wrong usage, Ctrl-C, results side by side."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compare.samples import write_digits
from conftest import Outcome, Start
from vggnet.compare.result import Result, load_result
from vggnet.data.dataset import Dataset
from vggnet.errors import DeviceError

Command = Callable[..., Outcome]

AS_TYPED = (
    "import signal; from vggnet.cli import main; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); main()"
)
"""The program as in a terminal: background jobs of a shell ignore Ctrl-C."""

TINY = "[model]\nstages = [[8], [8]]\nhidden = [8]\n[train]\nmin_steps = 0\n"


@pytest.fixture(autouse=True)
def small(tmp_path: Path, mnist: Dataset) -> None:
    """A small network and 320 training images, in the folder in which the commands run."""
    (tmp_path / "tiny.toml").write_text(TINY)
    write_digits(tmp_path / "digits", mnist)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_whole_comparison(vggnet: Command, tmp_path: Path) -> None:
    """It writes three files, compares CPU settings, and says how to add a GPU."""
    measured = "--config tiny.toml --hidden 16 --dataset digits --steps 3 --repeats 2"
    typed = f"compare {measured} --min-seconds 0 --threads 1"
    done = vggnet(*typed.split())
    assert done.code == 0, done.err
    assert "Only the CPU was measured" in done.out
    assert f"vggnet compare --devices cpu,cuda {measured} --output gpu" in done.out
    assert "vggnet compare compare.json gpu/compare.json --output both" in done.out
    assert "repeat 2 of 2" in done.err
    result = load_result(Path("compare.json"))
    assert result.complete
    assert result.config.model.hidden == (16,)
    assert result.command == f"vggnet {typed}"
    assert f"| command | vggnet {typed} |" in Path("compare.md").read_text()
    assert result.flops_per_image == result.counted_flops_per_image
    strict = [row for row in result.rows if row.strict]
    assert [(row.setting.threads, len(row.seconds), row.steps) for row in strict] == [(1, 2, 3)]
    for row in result.rows:
        assert row.cold is not None
        assert row.parts is not None
        assert row.cold.seconds > row.cold.training_seconds
    points = [(point.x, point.setting) for point in result.sweep]
    assert {x for x, _ in points} == {8, 32, 96, 128}  # those up to the number of images
    assert len(set(points)) == len(points)
    assert "Crossover: batch size" in Path("compare.html").read_text()
    assert "### Where the time goes" in Path("compare.md").read_text()


@pytest.mark.usefixtures("quick_python")
def test_json_and_results_side_by_side(vggnet: Command) -> None:
    """`--json` prints only the result; two result files give one report and are not changed.

    No row trains on validation images.
    """
    Path("tiny.toml").write_text(TINY + "[data]\nvalidation_size = 20\n")
    flags = "--config tiny.toml --dataset digits --steps 2 --repeats 1 --threads 1 --min-seconds 0"
    done = vggnet("compare", *flags.split(), "--sweep", "width", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads(Path("compare.json").read_text())
    result = Result.model_validate_json(done.out)
    assert {point.x for point in result.sweep} == {0.25, 0.5, 1, 2}
    assert result.images_per_epoch == 300
    Path("laptop.json").write_text(done.out)
    before = Path("compare.json").read_bytes()
    price = ("--price", "cpu=0.10")
    done = vggnet("compare", "laptop.json", "compare.json", *price, "--output", "new/both")
    assert done.code == 0, done.err
    assert "laptop: cpu" in done.out
    assert "cost of a run" in Path("new/both/compare.md").read_text()
    assert Path("compare.json").read_bytes() == before
    assert load_result(Path("laptop.json")) == result
    assert "laptop: cpu" in Path("new/both/compare.html").read_text()


@pytest.mark.usefixtures("quick_python")
def test_time_to_accuracy(vggnet: Command) -> None:
    """Complete trainings of the recipe and of the article's run; the report starts with them."""
    flags = "--steps 2 --repeats 1 --min-seconds 0 --threads 1 --sweep none --batch-size 32"
    goal = "--to article --seeds 1"
    done = vggnet(*f"compare --config tiny.toml --dataset digits {flags} {goal}".split())
    assert done.code == 0, done.err
    assert "on digits takes" in done.out
    assert "--to article --seeds 1" in done.out.partition("--devices cpu,cuda")[2]
    found = load_result(Path("compare.json")).to_accuracy
    assert found is not None
    assert found.target is None
    fast, article = found.trainings
    assert (fast.config.recipe, article.config.recipe) == ("fast", "article")
    assert (article.config.train.epochs, article.setting.global_batch_size) == (10, 128)
    assert article.setting.kernels == "torch"
    assert article.config.model.dropout == 0.5
    assert article.config.model.stages == fast.config.model.stages == ((8,), (8,))
    for training in found.trainings:
        (run,) = training.runs
        assert run.seconds > run.training_seconds
    assert Path("compare.md").read_text().index("### Time to acc") > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--to-accuracy 0", 2, "--to-accuracy must be above 0"),
        ("--to-accuracy nan", 2, "--to-accuracy must be above 0"),
        ("--to-accuracy 99 --to article", 2, "exclude each other"),
        ("--seeds 2", 2, "--seeds needs --to-accuracy"),
        ("--repeats 0", 2, "--repeats"),
        ("--steps 0", 2, "--steps"),
        ("--epochs nan", 2, "--epochs"),
        ("--epochs -1", 2, "--epochs"),
        ("--steps 3 --epochs 1", 2, "exclude each other"),
        ("--min-seconds nan", 2, "--min-seconds must be from 0"),
        ("--devices cpu,cpu", 2, "--devices names cpu twice"),
        ("--devices gpu", 2, "unknown kind of device 'gpu'"),
        ("--devices cpu:x", 2, "not a device"),
        ("--devices auto", 2, "unknown kind of device 'auto'"),
        ("--threads 1,1", 2, "names a count twice"),
        ("--threads 0", 2, "counts from 1"),
        ("--threads two", 2, "counts from 1"),
        ("--price cpu", 2, "write a device and its price"),
        ("--price cpu=nan", 2, "write a device and its price"),
        ("--price cpu=1,cpu=2", 2, "twice"),
        ("--recipe fats", 2, "did you mean 'fast'"),
        ("--batch-size 0", 2, "train.global_batch_size"),
        ("--sweep depth", 2, "depth"),
        ("--data-dir nowhere", 1, "no mnist in nowhere"),
        ("missing.json", 1, "cannot read missing.json"),
        ("page.json", 1, "page.json is not a result"),
        ("page.json --steps 3", 2, "--steps cannot be used with result files"),
        ("page.json --data-dir here", 2, "--data-dir cannot be used with result files"),
        ("page.json --json --no-flip", 2, "--json, --no-flip cannot be used with result files"),
        ("--output page.json/reports", 1, "cannot make the folder"),
    ],
)
def test_wrong_usage_is_explained(vggnet: Command, arguments: str, code: int, words: str) -> None:
    """Wrong usage ends before anything is measured, without a traceback or a report."""
    Path("page.json").write_text("<!doctype html>")
    done = vggnet("compare", *arguments.split())
    assert done.code == code, done.err
    assert words in done.err.replace("\n", " ")
    assert "Traceback" not in done.err
    assert not list(Path().glob("compare*"))
    assert "warming up" not in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_gpu_is_an_error(vggnet: Command) -> None:
    """`--devices cpu,cuda` without a GPU says why and what to do instead."""
    done = vggnet("compare", "--devices", "cpu,cuda")
    assert done.code == 2
    assert "--devices cuda: torch" in done.err
    assert "compare.json" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_keeps_what_it_has(
    fork: Start, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C after the first repeat writes a partial result and keeps an earlier file."""
    (tmp_path / "compare.json").write_bytes(b'{"schema_version": 1}')
    command = ["-c", AS_TYPED, "compare", "--config", "tiny.toml"]
    command += ["--dataset", "digits"]
    command += ["--steps", "3", "--repeats", "1000", "--min-seconds", "0"]
    command += ["--threads", "1", "--sweep", "none"]
    process = fork(*command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("repeat 3 of"):
            break
    process.send_signal(number)
    with process.stderr:
        rest = process.stderr.read()
    assert process.wait() == 130
    assert "the measurements so far are kept" in rest
    assert "Traceback" not in rest
    result = load_result(tmp_path / "compare-partial.json")
    assert not result.complete
    assert all(2 <= len(row.seconds) < 1000 for row in result.rows)
    assert "was cut short" in (tmp_path / "compare-partial.html").read_text()
    assert (tmp_path / "compare.json").read_bytes() == b'{"schema_version": 1}'


@pytest.mark.usefixtures("quick_python")
@pytest.mark.parametrize(
    ("error", "code", "words", "file"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), 0, "measured only in part", "compare"),
        (DeviceError("the GPU is lost"), 2, "the measurements so far are kept", "compare-partial"),
    ],
)
def test_a_late_error_loses_no_measurement(
    vggnet: Command,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    words: str,
    file: str,
) -> None:
    """Without memory for the peak, the comparison continues; another error ends it early."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "mm", fail)  # used to measure the peak
    flags = "--steps 2 --repeats 1 --threads 1 --min-seconds 0 --sweep none"
    done = vggnet(*f"compare --config tiny.toml --dataset digits {flags}".split())
    assert done.code == code
    assert words in done.err
    result = load_result(Path(f"{file}.json"))
    assert [len(row.seconds) for row in result.rows if row.strict] == [1]
    assert result.complete == (code == 0)


def test_reports_need_no_torch(tmp_path: Path) -> None:
    """Reading results and rendering reports imports neither torch nor NumPy."""
    script = (
        "import sys\n"
        "import vggnet.compare.report, vggnet.report.html, vggnet.report.terminal\n"
        "heavy = {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
