"""`vggnet study`: train many networks with the same settings and report the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggnet.cli.model_options import Force
from vggnet.cli.options import ConfigFile, Recipe, config_flags, read_settings

if TYPE_CHECKING:
    from vggnet.study.ledger import Ledger
    from vggnet.study.plan import Study

app = typer.Typer(
    name="study",
    help="Train many networks with the same settings, and compare them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass


@app.command()
@config_flags
def depth(
    models: Annotated[
        str, typer.Option(help="Members of the VGG family: A,B,D,E or vgg-a,vgg-mini.")
    ] = "A,B,D,E",
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings per network.")] = 3,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "study"
    ),
    recipe: Recipe = None,
    config: ConfigFile = None,
    force: Force = False,
    **flags: Any,
) -> None:
    """Train the VGG family with the same settings, and report whether depth improves accuracy.

    By default with batch norm and He initialization, without which the deepest networks do
    not start to learn. --width reduces the cost. Writes study.md, study.html, study.png and
    study.jsonl (one line per run). After Ctrl-C, the same command continues.
    """
    from vggnet.study.plan import plan_study

    study = plan_study(models.split(","), seeds, output, read_settings(config, recipe, flags))

    from vggnet.artifacts.outputs import HTML, MARKDOWN, PNG, check_outputs
    from vggnet.errors import InterruptedTrainingError
    from vggnet.study.ledger import Ledger

    ledger = Ledger(study)
    outputs = [(output / f"study{kind.suffixes[0]}", kind) for kind in (HTML, MARKDOWN, PNG)]
    check_outputs(outputs, [config] if config else [], force)
    try:
        _train(study, ledger)
    except InterruptedTrainingError as error:
        error.args = (
            f"interrupted with {len(ledger.runs)} of {len(study.runs)} runs done; "
            "the same command continues",
        )
        raise
    finally:
        if ledger.runs:
            _report(study, ledger)


def _train(study: Study, ledger: Ledger) -> None:
    """Train what is missing, and print each run's progress and accuracy."""
    from vggnet.cli.progress import PatientConsole, TerminalReporter
    from vggnet.study.execute import run_study

    console = PatientConsole(highlight=False, soft_wrap=True)

    def report(name: str) -> TerminalReporter:
        console.print(f"\n{name}, {len(ledger.runs) + 1} of {len(study.runs)}")
        return TerminalReporter()

    for done in run_study(study, ledger, report):
        console.print(f"test accuracy {100 * done.accuracy:.2f} %")


def _report(study: Study, ledger: Ledger) -> None:
    """Write the report files, and print a summary."""
    from vggnet.artifacts.atomic import write_file
    from vggnet.report.html import render_html
    from vggnet.report.markdown import render_markdown
    from vggnet.report.terminal import print_report
    from vggnet.study.plot import render_study
    from vggnet.study.report import build_report, group

    runs = list(ledger.runs.values())
    report = build_report(runs, len(study.runs))
    paths = [study.output / f"study.{suffix}" for suffix in ("md", "html", "png")]
    write_file(paths[0], render_markdown(report).encode())
    write_file(paths[1], render_html(report, "vggnet study depth").encode())
    render_study(paths[2], group(runs), report.answer)
    print_report(report, [ledger.path, *paths])
