"""One check of gpu_acceptance.py, in a process of its own: a JSON line for each result.

    python benchmarks/gpu_checks.py waits --device cuda --folder out --seconds 60

A line has `what` was checked, its `status` ("ok", "failed" or "skipped"), the `result` as text and
the figures behind it.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from time_to_accuracy import run_article, run_ours, write_torchvision_files

import vggnet
from vggnet.data.batches import Batches
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.device import (
    check_precision,
    computing,
    describe_gpu,
    own_random_numbers,
    synchronize,
)
from vggnet.engine.environment import describe_environment
from vggnet.engine.fit import TrainState, build_state, fit, train_step
from vggnet.engine.session import Session
from vggnet.engine.snapshot import restore_snapshot, take_snapshot
from vggnet.errors import DeviceError, VggnetError
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("fast", "article", "best")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
TIMELINE_STEPS = 20

Line = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """Where a check runs, and what it may take."""

    device: torch.device
    folder: Path
    """For files to keep."""
    deadline: float
    """Of time.monotonic."""
    quick: bool
    """Do the least that runs every line."""
    article: Path | None
    """The article's GPU script."""

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU of NVIDIA's or AMD's."""
        return self.device.type == "cuda"

    def is_short(self, recipe: str, precision: str = "fp32") -> bool:
        """Whether to do a few steps only: on a CPU, others than `fast` in fp32 take too long."""
        return self.quick or not (self.is_cuda or (recipe, precision) == ("fast", "fp32"))

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


def line(what: str, result: str, status: str = "ok", **figures: Any) -> Line:
    """Return a result."""
    return {"what": what, "result": result, "status": status, **figures}


def environment(context: Context) -> Iterator[Line]:
    """Describe hardware, driver and versions."""
    found = describe_environment()
    yield line("CPU", f"{found['cpu']}, {found['usable_cores']} cores", environment=found)
    yield line("versions", f"torch {found['torch']}, Python {platform.python_version()}")
    if not context.is_cuda:
        yield line("GPU", found["devices"]["cuda"], "skipped")
        return
    known = describe_gpu(context.device)
    properties = torch.cuda.get_device_properties(context.device)
    memory = round(properties.total_memory / 2**30, 1)
    text = f"{known['gpu']}, {memory} GiB, driver {known['driver']}, cuDNN {known['cudnn']}"
    capability = list(torch.cuda.get_device_capability(context.device))
    yield line("GPU", text, memory_gib=memory, capability=capability, **known)


def tests(context: Context) -> Iterator[Line]:
    """Run `pytest -m gpu`."""
    if missing := [one for one in ("pytest", "hypothesis") if not importlib.util.find_spec(one)]:
        yield line("pytest -m gpu", f"needs {' and '.join(missing)}", "skipped")
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests/engine", "tests/compare"]
    command += ["-o", "addopts=--strict-markers --import-mode=importlib", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=context.left, check=False
    )
    (context.folder / "pytest.txt").write_text(_without_paths(done.stdout), encoding="utf-8")
    last = (done.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
    passed = done.returncode == 0 and "passed" in last
    status = "failed" if done.returncode not in (0, 5) else "ok" if passed else "skipped"
    yield line("pytest -m gpu", last, status)


def trainings(context: Context) -> Iterator[Line]:
    """Train each recipe in each precision; a first one warms up."""
    with tempfile.TemporaryDirectory() as name:
        first = _train(context, Path(name), "fast", "fp32", epochs=0.02)
        seconds = first["seconds"]
        yield line("first training, 0.02 epochs", f"{seconds:.1f} s in all", seconds=seconds)
        for recipe in RECIPES:
            taken = 0.0
            for precision in PRECISIONS:
                what = f"{recipe}, {precision}"
                try:
                    check_precision(precision, context.device)
                    if context.left < 1.2 * taken:
                        yield line(what, "no time left", "skipped")
                        continue
                    found = _train(context, Path(name), recipe, precision)
                except DeviceError as error:
                    yield line(what, str(error), "skipped")
                    continue
                except VggnetError as error:
                    yield line(what, str(error), "failed")
                    continue
                taken = found["seconds"]
                is_short = context.is_short(recipe, precision)
                enough = is_short or found["accuracy"] >= 0.985
                text = (
                    f"{100 * found['accuracy']:.2f} %, {found['training_seconds']:.2f} s training"
                )
                if is_short:
                    text += f", {found['epochs']:g} epochs only"
                if found["peak_mib"]:
                    text += f", {found['peak_mib']:.0f} MiB"
                yield line(what, text, "ok" if enough else "failed", **found)


def _train(
    context: Context, folder: Path, recipe: str, precision: str, epochs: float | None = None
) -> dict[str, Any]:
    """Train, and return accuracy, seconds and the peak of the GPU's memory."""
    settings: dict[str, Any] = {"device": str(context.device), "precision": precision}
    if epochs or context.is_short(recipe, precision):
        settings["epochs"] = epochs or 0.02
    if context.is_cuda:
        torch.cuda.reset_peak_memory_stats(context.device)
    done = vggnet.train(
        recipe=recipe, output=folder / "model.pth", runs=folder / "runs", train=settings
    )
    seconds = sum(one.seconds for one in done.epochs)
    peak = torch.cuda.max_memory_allocated(context.device) / 2**20 if context.is_cuda else None
    return {
        "recipe": recipe,
        "precision": precision,
        "epochs": done.config.train.epochs,
        "accuracy": done.accuracy,
        "seconds": done.seconds,
        "training_seconds": seconds,
        "images_per_second": sum(one.images for one in done.epochs) / seconds,
        "peak_mib": peak,
    }


def _begin(context: Context, recipe: str, **train: Any) -> tuple[TrainState, Batches]:
    """Build a recipe's initial state on the device, and its batches."""
    config = resolve_config({"recipe": recipe}, {"train": train})
    network = build_network(config.model, 0)
    batches = Batches(
        vggnet.load_dataset("mnist").train,
        context.device,
        Preprocessing.from_config(config),
        batch_size=config.train.global_batch_size,
        augment=config.augment,
    )
    return build_state(network, config.train, context.device, Session()), batches


def waits(context: Context) -> Iterator[Line]:
    """Count with CUDA's own means how often a step waits for the GPU."""
    for recipe in RECIPES:
        for precision in ("fp32", "fp16"):
            what = f"waits within an epoch: {recipe}, {precision}"
            state, batches = _begin(context, recipe, precision=precision)
            given = batches.shuffled(0, 0)
            with computing(precision, 1), own_random_numbers(context.device):
                train_step(state, next(given))
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    torch.cuda.set_sync_debug_mode("warn")
                    for _ in range(20):
                        train_step(state, next(given))
                    torch.cuda.set_sync_debug_mode("default")
            count = sum("synchroniz" in str(one.message) for one in caught)
            yield line(what, f"{count} in 20 steps", "failed" if count else "ok", waits=count)


class _StopError(Exception):
    """Ends a training after some steps."""


def _run(state: TrainState, batches: Batches, last: int) -> TrainState:
    def on_step(state: TrainState) -> None:
        if state.step == last:
            raise _StopError

    with computing(state.config.precision, 1), own_random_numbers(state.device):
        try:
            list(fit(state, batches, on_step))
        except _StopError:
            synchronize(state.device)
    return state


def resume(context: Context) -> Iterator[Line]:
    """Train once at a stretch and once with a snapshot in between, and compare the bits."""
    for recipe in RECIPES:
        steps = 6 if context.is_short(recipe) else 200
        whole, first, second = (_begin(context, recipe) for _ in range(3))
        _run(*whole, steps)
        snapshot = take_snapshot(_run(*first, steps // 2))
        restore_snapshot(second[0], snapshot)
        _run(*second, steps)
        pairs = zip(
            whole[0].eval_model.state_dict().values(),
            second[0].eval_model.state_dict().values(),
            strict=True,
        )
        differing = sum(not torch.equal(one, other) for one, other in pairs)
        text = f"{differing} tensors differ" if differing else "same bits"
        text += f" after {steps} steps, resumed at {steps // 2}"
        yield line(f"resume: {recipe}", text, "failed" if differing else "ok")


def onnx(context: Context) -> Iterator[Line]:
    """Export a model trained on the device, and evaluate it on both devices."""
    with tempfile.TemporaryDirectory() as name:
        _train(context, Path(name), "fast", "fp32", epochs=0.02 if context.quick else 0.2)
        vggnet_command = [sys.executable, "-m", "vggnet"]
        accuracies = {}
        for device in dict.fromkeys(("cpu", str(context.device))):
            command = [*vggnet_command, "evaluate", "model.pth", "--json", "--device", device]
            done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=True)
            accuracies[device] = json.loads(done.stdout)["accuracy"]
        text = ", ".join(f"{key}: {100 * value:.2f} %" for key, value in accuracies.items())
        close = max(accuracies.values()) - min(accuracies.values()) <= 5e-4
        yield line("evaluate", text, "ok" if close else "failed", accuracies=accuracies)
        if not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
            yield line("export to ONNX", "needs pip install 'vggnet[export]'", "skipped")
            return
        command = [*vggnet_command, "export", "model.pth", "--format", "onnx"]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        lines = (done.stdout or done.stderr).strip().splitlines() or ["no output"]
        yield line("export to ONNX", lines[-1], "failed" if done.returncode else "ok")


def article(context: Context) -> Iterator[Line]:
    """Time the article's GPU script and `vggnet train` in turn, as whole processes."""
    what = "the article's GPU script against vggnet train"
    if not context.article:
        yield line(what, "needs --article vggnet_gpu.py", "skipped")
        return
    if not importlib.util.find_spec("torchvision"):
        yield line(what, "needs torchvision", "skipped")
        return
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as name:
        write_torchvision_files(Path(name))
        taken = 0.0
        while context.left > 1.2 * taken:
            started = time.monotonic()
            theirs.append(run_article(context.article, Path(name), epochs=2).seconds)
            ours.append(run_ours(Path(name), len(ours), Path(name, "cache")).seconds)
            ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
            text = f"{statistics.median(ratios):.1f} times faster (n = {len(ratios)})"
            taken = time.monotonic() - started
            yield line(what, text, article_seconds=theirs, vggnet_seconds=ours)


def compare(context: Context) -> Iterator[Line]:
    """Run `vggnet compare --to-accuracy`, CPU against GPU; a deadline keeps what is done."""
    what = "vggnet compare --to-accuracy 99, CPU against GPU"
    options = ["--to-accuracy", "99", "--seeds", "2", "--steps", "50", "--repeats", "3"]
    with tempfile.TemporaryDirectory() as name:
        process = subprocess.Popen(
            [sys.executable, "-m", "vggnet", "compare", *options, "--output", name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(context.left - 20)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(15)
        kept = sorted(Path(name).glob("compare*"))
        for path in kept:
            shutil.copy(path, context.folder)
    text = ", ".join(path.name for path in kept) or "no result"
    yield line(what, text, "ok" if kept else "failed", exit_code=process.returncode)


def timeline(context: Context) -> Iterator[Line]:
    """Record the kernels of 20 steps of each recipe, and keep the timeline of `fast`."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    for recipe in RECIPES:
        state, batches = _begin(context, recipe)
        given = batches.shuffled(0, 0)
        with computing("fp32", 1), own_random_numbers(context.device):
            for _ in range(10):
                train_step(state, next(given))
            synchronize(context.device)
            started = time.perf_counter()
            with torch.profiler.profile(activities=activities) as profile:
                for _ in range(TIMELINE_STEPS):
                    train_step(state, next(given))
                synchronize(context.device)
        seconds = time.perf_counter() - started
        kernels = [one for one in profile.events() if one.device_type.name == "CUDA"]
        busy = sum(one.time_range.elapsed_us() for one in kernels) / TIMELINE_STEPS / 1000
        count = len(kernels) / TIMELINE_STEPS
        longest: dict[str, float] = {}
        for one in kernels:
            spent = one.time_range.elapsed_us() / TIMELINE_STEPS
            longest[one.name[:80]] = longest.get(one.name[:80], 0) + spent
        top = dict(sorted(longest.items(), key=lambda item: -item[1])[:10])
        yield line(
            f"kernels of a step: {recipe}",
            f"{count:.0f}, {busy:.2f} ms on the GPU",
            **{"kernels": count, "busy_ms": busy, "microseconds": top, "traced_seconds": seconds},
        )
        if recipe == "fast":
            with tempfile.TemporaryDirectory() as name:
                profile.export_chrome_trace(f"{name}/timeline.json")
                text = Path(name, "timeline.json").read_bytes()
            (context.folder / "timeline.json.gz").write_bytes(gzip.compress(text))


def _without_paths(text: str) -> str:
    return text.replace(str(ROOT), ".").replace(str(Path.home()), "~")


CHECKS: dict[str, Callable[[Context], Iterator[Line]]] = {
    check.__name__: check
    for check in (
        *(environment, tests, waits, resume, timeline, trainings, onnx, article, compare),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--article", type=Path)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    device = vggnet.engine.device.choose_device(options.device)
    context = Context(device, options.folder, deadline, options.quick, options.article)
    try:
        for one in CHECKS[options.check](context):
            print(json.dumps(one), flush=True)
    except Exception as error:
        reason = _without_paths(str(error)).splitlines() or [""]
        text = f"{type(error).__name__}: {reason[0]}"
        print(json.dumps(line(options.check, text, "failed")), flush=True)
        raise


if __name__ == "__main__":
    main()
