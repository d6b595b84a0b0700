"""`vggnet compare`: time the same training on each device, or report results side by side."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.cli.model_options import Force
from vggnet.cli.options import ConfigFile, Recipe, config_flags, option_groups, read_settings
from vggnet.errors import ConfigError, VggnetError, quote

if TYPE_CHECKING:
    from vggnet.artifacts.outputs import Kind
    from vggnet.compare.plan import ComparisonPlan, Goal
    from vggnet.compare.result import Result
    from vggnet.report.document import Report

_PLAIN = r"[A-Za-z0-9._=,/:+-]{1,200}"
_MEASURED = (
    *("train_device", "train_precision", "train_kernels", "train_threads", "train_epochs"),
    *("train_min_steps", "train_minutes", "train_patience", "train_keep"),
    "train_growth_fraction",
)
"""Settings that a comparison chooses itself."""
_LOCAL = (
    *("devices", "threads", "min_seconds", "sweep", "data_data_dir"),
    *("output", "price", "force", "as_json"),
)
"""Options that do not change the work of a row."""
_REPORT = ("files", "output", "price", "force")
"""Options that apply to result files."""


@dataclass(frozen=True)
class RowOptions:
    """How long each row is measured."""

    steps: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="Steps per repeat; default: 100.")
    ] = None
    epochs: Annotated[float | None, typer.Option(help="Epochs per repeat, instead of --steps.")] = (
        None
    )
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Repeats of each setting.")] = 5
    min_seconds: Annotated[
        float,
        typer.Option(help="Minimum duration of a repeat: shorter trainings run several times."),
    ] = 1.0


@dataclass(frozen=True)
class GoalOptions:
    """An accuracy that complete trainings are to reach."""

    to_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Test accuracy in percent: compare the time that complete trainings take to it."
        ),
    ] = None
    to: Annotated[
        Literal["article"] | None,
        typer.Option(help="article: as --to-accuracy, with the accuracy of the article's recipe."),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Complete trainings per recipe and device; default: 3."),
    ] = None

    def read(self, layers: Sequence[Mapping[str, Any]]) -> Goal | None:
        """Return the goal; None if no option asks for one.

        Raises:
            ConfigError: The options contradict each other, or the accuracy is not one.
        """
        from vggnet.compare.plan import Goal
        from vggnet.recipes import resolve_config

        percent = self.to_accuracy
        if percent is None and self.to is None:
            if self.seeds is not None:
                raise ConfigError("--seeds needs --to-accuracy or --to article")
            return None
        if percent is not None:
            if self.to is not None:
                raise ConfigError("--to-accuracy and --to exclude each other")
            if not 0 < percent <= 100:
                raise ConfigError(f"--to-accuracy must be above 0 and at most 100, not {percent:g}")
        # The same network and images, trained as the article did.
        shared = [{key: one[key] for key in one if key in ("model", "data")} for one in layers]
        return Goal(
            target=None if percent is None else round(percent / 100, 10),  # 99.4 / 100 > 0.994
            seeds=self.seeds or 3,
            recipe=resolve_config(*layers),
            article=resolve_config(*shared, {"recipe": "article"}),
        )


@option_groups
@partial(config_flags, omit=_MEASURED)
def compare(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Result files of several machines, to report side by side.",
            metavar="[FILE.json]...",
        ),
    ] = None,
    *,
    devices: Annotated[
        str | None,
        typer.Option(help="Devices, such as cpu,cuda; default: every available kind."),
    ] = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    work: RowOptions,
    threads: Annotated[
        str | None,
        typer.Option(help="CPU thread counts, such as 1,2,4; default: 1, 2, 4 … all cores."),
    ] = None,
    sweep: Annotated[
        Literal["batch", "width", "none"] | None,
        typer.Option(
            help="Measure a range of batch sizes or network widths; "
            "default: batch without a GPU, otherwise none."
        ),
    ] = None,
    goal: GoalOptions,
    price: Annotated[
        str | None, typer.Option(help="Prices per hour, to report costs: cpu=0.10,cuda=1.80.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for compare.json, .md and .html.")
    ] = Path(),
    force: Force = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON instead of the table.")
    ] = False,
    **flags: Any,
) -> None:
    """Time the same training on every device, and report speedups and where the time goes.

    Without a GPU, compares CPU thread counts, kernels and batch sizes. With FILEs, measures
    nothing and reports the results of several machines side by side.
    """
    prices = _read_prices(price)
    if files:
        _report_files(context, files, prices, output, force)
        return
    layers = read_settings(config, recipe, flags)
    counts = _read_threads(threads) if threads is not None else None
    target = goal.read(layers)

    from vggnet.compare.plan import plan_comparison
    from vggnet.recipes import resolve_config

    plan = plan_comparison(
        resolve_config(*layers),
        devices=devices.split(",") if devices is not None else None,
        threads=counts,
        goal=target,
        sweep=sweep,
        **asdict(work),
    )
    plan = replace(plan, options=_same_work(context, plan), command=_command_line())
    _measure_and_report(plan, prices, output, [config] if config else [], force, as_json)


def _measure_and_report(
    plan: ComparisonPlan,
    prices: dict[str, float],
    output: Path,
    inputs: list[Path],
    force: bool,
    as_json: bool,
) -> None:
    """Measure, and write what was measured; exit with an error code if something ended it early."""
    from vggnet.artifacts.outputs import HTML, MARKDOWN, RESULT
    from vggnet.compare.report import build_report

    _check_outputs(output, ("compare", "compare-partial"), (RESULT, HTML, MARKDOWN), inputs, force)
    result, code = _measure(plan, quiet=as_json)
    stem = "compare" if result.complete else "compare-partial"
    report = build_report([("", result)], prices, output / f"{stem}.json")
    _write(report, result, output, stem, as_json)
    if as_json:
        print(json.dumps(result.model_dump(mode="json")))  # ASCII, for any terminal
    if code:
        raise typer.Exit(code)


def _report_files(
    context: typer.Context, files: list[Path], prices: dict[str, float], output: Path, force: bool
) -> None:
    """Report the results of several machines side by side."""
    from vggnet.artifacts.outputs import HTML, MARKDOWN
    from vggnet.compare.report import build_report
    from vggnet.compare.result import load_result

    if given := [flag for name, flag, _ in _given(context) if name not in _REPORT]:
        raise ConfigError(
            f"{', '.join(given)} cannot be used with result files: nothing is measured"
        )
    results = list(zip(_name_sources(files), map(load_result, files), strict=True))
    _check_outputs(output, ("compare",), (HTML, MARKDOWN), files, force)
    _write(build_report(results, prices, files[0]), None, output, "compare", quiet=False)


def _check_outputs(
    output: Path,
    stems: tuple[str, ...],
    kinds: tuple[Kind, ...],
    inputs: Sequence[Path],
    force: bool,
) -> None:
    """Create the folder, and refuse to overwrite files that vggnet did not write."""
    from vggnet.artifacts.atomic import make_folder
    from vggnet.artifacts.outputs import check_outputs

    make_folder(output)
    outputs = [(output / f"{stem}{kind.suffixes[0]}", kind) for stem in stems for kind in kinds]
    check_outputs(outputs, inputs, force)


def _given(context: typer.Context) -> Iterator[tuple[str, str, Any]]:
    """Yield the name, flag and value of every option on the command line."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source and source.name == "COMMANDLINE":
            value = context.params[option.name or ""]
            flags = option.secondary_opts if value is False else option.opts
            yield option.name or "", flags[0], value


def _same_work(context: typer.Context, plan: ComparisonPlan) -> str:
    """Return the flags that request the same work on another machine."""
    words = []
    for name, flag, value in _given(context):
        if name not in (*_LOCAL, "steps", "epochs", "repeats", "as_json"):
            values = (
                () if isinstance(value, bool) else value if isinstance(value, tuple) else (value,)
            )
            # The report prints these words as a command to copy: no value that needs quotes.
            plain = [text if re.fullmatch(_PLAIN, text) else "FILE" for text in map(str, values)]
            words.append(" ".join([flag, *plain]))
    words += [f"--steps {plan.steps}", f"--repeats {plan.repeats}"]
    return " ".join(words)


def _command_line() -> str:
    from vggnet.compare.result import printable

    return printable(quote(["vggnet", *sys.argv[1:]]))[:400]


def _measure(plan: ComparisonPlan, quiet: bool) -> tuple[Result, int]:
    """Run the comparison; if something ends it early, such as Ctrl-C, keep what is done.

    Returns:
        The result and the exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM arrived before the first result.
        VggnetError: An error occurred before the first result.
    """
    from vggnet.cli.compare_progress import TerminalObserver
    from vggnet.compare.comparison import Comparison

    with TerminalObserver(quiet) as observer, _terminable():
        comparison, code = Comparison(plan, observer), 0
        try:
            comparison.run()
        except (KeyboardInterrupt, VggnetError) as error:
            if comparison.result() is None:
                raise
            # 128 + SIGINT, as shells report it
            code = error.exit_code if isinstance(error, VggnetError) else 130
            observer.warned(f"{str(error) or 'interrupted'}; the measurements so far are kept")
        result = comparison.result()
    assert result is not None
    return result, code


def _write(report: Report, result: Result | None, output: Path, stem: str, quiet: bool) -> None:
    """Write the files, and print a summary."""
    from vggnet.artifacts.atomic import write_file
    from vggnet.report.html import render_html
    from vggnet.report.markdown import render_markdown
    from vggnet.report.terminal import print_report

    contents = {".md": render_markdown(report), ".html": render_html(report, "vggnet compare")}
    if result:
        contents = {".json": result.model_dump_json(indent=1) + "\n", **contents}
    paths = [output / f"{stem}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_file(path, content.encode())
    if not quiet:
        print_report(report, paths)


def _name_sources(files: list[Path]) -> list[str]:
    """Name each file; a compare.json takes the name of its folder."""
    names = [
        file.stem if file.stem != "compare" else file.resolve().parent.name or "compare"
        for file in files
    ]
    names = [re.sub(r"[^\w .+-]", "?", name)[:40] for name in names]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _read_prices(text: str | None) -> dict[str, float]:
    """Read "cpu=0.10,cuda=1.80"."""
    prices: dict[str, float] = {}
    for part in text.split(",") if text is not None else ():
        found = re.fullmatch(r"\s*(cpu|mps|(?:cuda|xpu)(?::\d+)?)\s*=\s*(\d+(?:\.\d+)?)\s*", part)
        if not found:
            raise ConfigError(f"--price {part!r}: write a device and its price, as in cpu=0.10")
        if found[1] in prices:
            raise ConfigError(f"--price names {found[1]} twice")
        prices[found[1]] = float(found[2])
    return prices


def _read_threads(text: str) -> tuple[int, ...]:
    """Read "1,2,4"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise ConfigError(f"--threads {text!r}: write counts from 1 to 4096, as in 1,2,4")
    counts = tuple(sorted(int(part) for part in parts))
    if len(set(counts)) < len(counts):
        raise ConfigError(f"--threads {text!r} names a count twice")
    return counts


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, which batch systems send, like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
