"""`vggnet study`: many trainings under one budget, and what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggnet.cli.options import config_flags, nest_flags

if TYPE_CHECKING:
    from vggnet.study.ledger import Ledger
    from vggnet.study.plan import Study

app = typer.Typer(
    name="study",
    help="Train many networks under one budget, and compare them.",
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
        str, typer.Option(help="Members of the VGG family, by the paper's letters or our names.")
    ] = "A,B,D,E",
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings of each.")] = 3,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything that is found.")
    ] = Path("study"),
    recipe: Annotated[
        str | None,
        typer.Option(help="Settings to start from: fast (the default), best or article."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of settings to lay over the recipe's.")
    ] = None,
    **flags: Any,
) -> None:
    """Train the VGG family under one budget, and say whether depth pays.

    Every network has the same settings, by default with batch norm and He's initialization,
    without which the deepest do not begin to learn; --width cuts the cost. Writes study.md,
    study.html, study.png and study.jsonl, a line a run. After Ctrl-C the same command goes on.
    """
    from vggnet.recipes import load_overrides

    given: dict[str, Any] = nest_flags(flags)
    if recipe is not None:
        given["recipe"] = recipe
    layers = [load_overrides(config) if config else {}, given]

    from vggnet.study.plan import plan_study

    study = plan_study(models.split(","), seeds, output, layers)

    from vggnet.errors import InterruptedTrainingError
    from vggnet.study.ledger import Ledger

    ledger = Ledger(study)
    try:
        _carry_out(study, ledger)
    except InterruptedTrainingError as error:
        error.args = (
            f"the study was interrupted with {len(ledger.runs)} of {len(study.runs)} runs done; "
            "the same command goes on",
        )
        raise
    finally:
        if ledger.runs:
            _report(study, ledger)


def _carry_out(study: Study, ledger: Ledger) -> None:
    """Train, and print a line for each run."""
    from vggnet.cli.progress import PatientConsole, TerminalReporter
    from vggnet.study.depth import carry_out
    from vggnet.study.plan import Run

    console = PatientConsole(highlight=False, soft_wrap=True)

    def report(run: Run) -> TerminalReporter:
        console.print(f"\n{run.name}, {len(ledger.runs) + 1} of {len(study.runs)}")
        return TerminalReporter()

    for done in carry_out(study, ledger, report):
        console.print(f"test accuracy {100 * done.accuracy:.2f} %")


def _report(study: Study, ledger: Ledger) -> None:
    """Write the files, and print what a terminal has room for."""
    from vggnet.artifacts.atomic import write_file
    from vggnet.cli.compare_progress import print_report
    from vggnet.compare.markdown import render_markdown
    from vggnet.compare.page import render_html
    from vggnet.study.plot import render_study
    from vggnet.study.report import build_report, group

    runs = list(ledger.runs.values())
    report = build_report(runs, len(study.runs))
    paths = [study.output / f"study.{suffix}" for suffix in ("md", "html", "png")]
    write_file(paths[0], render_markdown(report).encode())
    write_file(paths[1], render_html(report, "vggnet study depth").encode())
    render_study(paths[2], group(runs), report.answer)
    print_report(report, [ledger.path, *paths])
