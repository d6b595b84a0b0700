"""`vggnet compare`: the same training timed on each device, and results side by side."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.errors import ConfigError, VggnetError

if TYPE_CHECKING:
    from vggnet.compare.plan import Plan
    from vggnet.compare.result import Result
    from vggnet.compare.section import Report

_PLAIN = r"[A-Za-z0-9._=,/:+-]{1,200}"
DEFAULT_STEPS = 100
DEFAULT_REPEATS = 5


def compare(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results of several machines, to report side by side.", metavar="[FILE.json]..."
        ),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="cpu,cuda or the like; default: every kind that is here.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Settings to start from: fast (the default), best or article."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of settings to lay over the recipe's.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=10**6, help=f"Steps a row; default: {DEFAULT_STEPS}.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs a row, instead of --steps.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Times each row is measured; default: 5.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="CPU threads to try: 1,2,4; default: up to all cores.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", help="Images a step, common to all rows.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Member of the VGG family.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder that holds the dataset in torchvision's layout.")
    ] = None,
    sweep: Annotated[
        Literal["batch", "width", "none"] | None,
        typer.Option(
            help="Find from which batch size or network width a device wins; "
            "default: batch where there is no GPU, else none."
        ),
    ] = None,
    price: Annotated[
        str | None, typer.Option(help="Of an hour, to state costs: cpu=0.10,cuda=1.80.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for compare.json, .md and .html.")
    ] = Path(),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON instead of the table.")
    ] = False,
) -> None:
    """Time the same training on every device, and say how much faster which is, and why.

    Without a GPU, thread counts and batch sizes of the CPU are compared. With FILEs,
    nothing is measured: results of several machines are reported side by side.
    """
    from vggnet.artifacts.atomic import check_writable, make_folder
    from vggnet.compare.report import build_report
    from vggnet.compare.result import load_result

    prices = _read_prices(price)
    measuring = {
        "--devices": devices,
        "--recipe": recipe,
        "--config": config,
        "--steps": steps,
        "--epochs": epochs,
        "--repeats": repeats,
        "--threads": threads,
        "--batch-size": batch_size,
        "--model": model,
        "--sweep": sweep,
    }
    if files:
        if given := [flag for flag, value in measuring.items() if value is not None]:
            raise ConfigError(f"{', '.join(given)} and result files exclude each other")
        if as_json:
            raise ConfigError("--json prints what is measured; result files are JSON already")
        results = list(zip(_name_sources(files), map(load_result, files), strict=True))
        make_folder(output)
        _write(build_report(results, prices, files[0]), None, output, "compare", quiet=False)
        return
    layers = _settings(recipe, config, model, data_dir, batch_size)
    plan = _plan(layers, devices, threads, steps, epochs, repeats or DEFAULT_REPEATS, sweep)
    make_folder(output)
    check_writable(output / "compare.json")
    result, code = _measure(plan, quiet=as_json)
    stem = "compare" if result.complete else "compare-partial"
    report = build_report([("", result)], prices, output / f"{stem}.json")
    _write(report, result, output, stem, as_json)
    if as_json:
        print(json.dumps(result.model_dump(mode="json")))  # ASCII, whatever the terminal takes
    if code:
        raise typer.Exit(code)


def _settings(
    recipe: str | None,
    config: Path | None,
    model: str | None,
    data_dir: Path | None,
    batch_size: int | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return layers of settings over the recipe's, and the flags that stand for them."""
    from vggnet.recipes import load_overrides

    flags = {"--recipe": recipe, "--config": config, "--model": model, "--batch-size": batch_size}
    values: dict[str, dict[str, Any]] = {
        "model": {"architecture": model},
        "data": {"data_dir": data_dir},
        "train": {"global_batch_size": batch_size},
    }
    given: dict[str, Any] = {
        section: {name: value for name, value in fields.items() if value is not None}
        for section, fields in values.items()
    }
    if recipe is not None:
        given["recipe"] = recipe
    layers = [load_overrides(config) if config else {}, given]
    words = [
        # Only what needs no quoting: the report prints these words as a command to copy.
        f"{flag} {value if re.fullmatch(_PLAIN, str(value)) else 'FILE'}"
        for flag, value in flags.items()
        if value is not None
    ]
    return layers, words


def _plan(
    layers: tuple[list[dict[str, Any]], list[str]],
    devices: str | None,
    threads: str | None,
    steps: int | None,
    epochs: float | None,
    repeats: int,
    sweep: Literal["batch", "width", "none"] | None,
) -> Plan:
    """Settle what is compared, and refuse what cannot be before anything is measured."""
    from vggnet.recipes import resolve_config

    config = resolve_config(*layers[0])
    if steps is not None and epochs is not None:
        raise ConfigError("--steps and --epochs exclude each other")
    if epochs is not None and not 0 < epochs <= 1000:
        raise ConfigError(f"--epochs must lie above 0 and not above 1000, not {epochs:g}")
    counts = _read_threads(threads) if threads is not None else None

    from vggnet.compare.plan import Plan, choose_devices, default_threads
    from vggnet.data.dataset import hold_out
    from vggnet.data.storage import load_configured
    from vggnet.engine.schedule import count_steps
    from vggnet.engine.session import Session
    from vggnet.run import fit_to_data

    chosen = choose_devices(devices.split(",") if devices is not None else None)
    dataset = load_configured(config.data)
    config = fit_to_data(config, dataset, Session())
    train, _ = hold_out(dataset.train, config.data.validation_size, config.train.seed)
    dataset = replace(dataset, train=train)
    size = config.train.global_batch_size
    if epochs is not None:
        steps = count_steps(epochs, -(-len(dataset.train) // size))
    steps = steps or DEFAULT_STEPS
    only_cpu = all(device.type == "cpu" for device in chosen)
    kind = sweep or ("batch" if only_cpu else "none")
    words = [*layers[1], f"--steps {steps}", f"--repeats {repeats}"]
    return Plan(
        config=config,
        dataset=dataset,
        devices=chosen,
        threads=counts or default_threads(),
        steps=steps,
        repeats=repeats,
        sweep=None if kind == "none" else kind,
        options=" ".join(words),
    )


def _measure(plan: Plan, quiet: bool) -> tuple[Result, int]:
    """Carry the comparison out; what ends it early, as Ctrl-C does, leaves what is done.

    Returns:
        The result, and the exit code.

    Raises:
        KeyboardInterrupt: There is none yet, when Ctrl-C or SIGTERM comes.
        VggnetError: Nor when something goes wrong.
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
            observer.warned(f"{str(error) or 'interrupted'}; what was measured so far is kept")
        result = comparison.result()
    assert result is not None
    return result, code


def _write(report: Report, result: Result | None, output: Path, stem: str, quiet: bool) -> None:
    """Write the files, and print what a terminal has room for."""
    from vggnet.artifacts.atomic import write_file
    from vggnet.compare.markdown import render_markdown
    from vggnet.compare.page import render_html

    contents = {".md": render_markdown(report), ".html": render_html(report)}
    if result:
        contents = {".json": result.model_dump_json(indent=1) + "\n", **contents}
    paths = [output / f"{stem}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_file(path, content.encode())
    if not quiet:
        from vggnet.cli.compare_progress import print_report

        print_report(report, paths)


def _name_sources(files: list[Path]) -> list[str]:
    """Call each file by its name, or by its folder where that is compare.json."""
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
            raise ConfigError(
                f"--price {part!r}: write a device and its price an hour, as cpu=0.10"
            )
        if found[1] in prices:
            raise ConfigError(f"--price names {found[1]} twice")
        prices[found[1]] = float(found[2])
    return prices


def _read_threads(text: str) -> tuple[int, ...]:
    """Read "1,2,4"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise ConfigError(f"--threads {text!r}: write counts from 1 to 4096, as 1,2,4")
    counts = tuple(sorted(int(part) for part in parts))
    if len(set(counts)) < len(counts):
        raise ConfigError(f"--threads {text!r} names a count twice")
    return counts


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, as a batch system sends it, do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
