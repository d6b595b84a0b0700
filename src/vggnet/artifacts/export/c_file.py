"""`.c`: one file of C99 without dependencies, for microcontrollers and for reading."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from vggnet.artifacts.export import c_source
from vggnet.artifacts.export.checked import write_checked
from vggnet.artifacts.export.program import (
    TOLERANCE,
    EndToEndModel,
    Outputs,
    Pixels,
    eager_program,
    run_batches,
)
from vggnet.artifacts.export.quantize import quantize_rows, round_weights
from vggnet.errors import ExportError

COMPILERS = ("cc", "gcc", "clang")

WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
"""The file compiles without any."""

MOST_WEIGHTS = 5_000_000
"""Compilers need minutes and gigabytes for more numbers in a source file."""

_LINE = 16


@dataclass(frozen=True)
class ExportedC:
    """What an exported C file computes, compared with the network."""

    bits: int
    """Of a weight: 32 in float, or 8."""
    runtime: str | None
    """The compiler; None if there is none here, and nothing was measured."""
    worst: float | None = None
    """Largest difference between two probabilities, with the same weights on both sides."""
    same: int | None = None
    """Images with the class that the network predicts with its weights in float."""


def export_c(model: EndToEndModel, path: Path, bits: int, pixels: Pixels, source: str) -> ExportedC:
    """Write a network as C99, and keep the file if it compiles and computes the same.

    Args:
        model: The network and its description.
        path: The file.
        bits: 32 for weights in float, 8 for whole numbers with one scale per output.
        pixels: Images to compare on, uint8, (N, C, H, W).
        source: What to call them.

    Raises:
        ExportError: It has more than `MOST_WEIGHTS` weights, does not compile, or computes
            something else.
        OutputError: The file cannot be written; an existing file is unchanged.
    """
    return write_checked(
        path,
        lambda made: write_c(made, model, bits),
        lambda made: _check(made, model, bits, pixels, source),
    )


def write_c(path: Path, model: EndToEndModel, bits: int = 32) -> None:
    """Write a network as C99.

    Args:
        path: The file.
        model: The network and its description.
        bits: 32 for weights in float, 8 for whole numbers with one scale per output.

    Raises:
        ExportError: It has more than `MOST_WEIGHTS` weights.
    """
    count = sum(one.numel() for one in model.network.parameters())
    if count > MOST_WEIGHTS:
        raise ExportError(
            f"the network has {count:,} weights; a C file holds at most {MOST_WEIGHTS:,}. Train "
            "a smaller one with --width, or use --format onnx"
        )
    path.write_text("\n".join(_lines(model, bits)) + "\n", encoding="ascii")


def _check(path: Path, model: EndToEndModel, bits: int, pixels: Pixels, source: str) -> ExportedC:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return ExportedC(bits, None)
    found = run_c(path, pixels, len(model.card.classes), [compiler])
    network = run_batches(eager_program(model), pixels, 128)
    exact = round_weights(model, 8) if bits == 8 else model
    expected = run_batches(eager_program(exact), pixels, 128)
    worst = float(np.abs(found.probabilities - expected.probabilities).max())
    same = found.probabilities.argmax(1) == network.logits.argmax(1)
    if not worst <= TOLERANCE or (bits == 32 and not same.all()):
        raise ExportError(
            f"the compiled file differs from the network: by up to {worst:.2g} in a probability "
            f"(limit {TOLERANCE:.0e}), and in the predicted class of {int((~same).sum()):,} of "
            f"{len(pixels):,} {source}; nothing was written"
        )
    return ExportedC(bits, Path(compiler).name, worst, int(same.sum()))


def run_c(
    path: Path,
    pixels: Pixels,
    num_classes: int,
    compiler: Sequence[str],
    emulator: Sequence[str] = (),
) -> Outputs:
    """Compile a file with a main function of its own, and run it on images.

    Args:
        path: The written file.
        pixels: uint8, (N, C, H, W).
        num_classes: Probabilities of each image.
        compiler: A C compiler and its options.
        emulator: What runs the program, if it is not for this machine.

    Returns:
        Probabilities; their logarithms in the place of the logits.

    Raises:
        ExportError: It does not compile or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        main, program = Path(folder, "main.c"), Path(folder, "program")
        main.write_text(c_source.MAIN.format(pixels=pixels[0].size, classes=num_classes))
        command = [*compiler, *WARNINGS, "-O2", str(path.resolve()), str(main), "-lm"]
        _run([*command, "-o", str(program)])
        printed = _run([*emulator, str(program)], pixels.tobytes())
    probabilities = np.frombuffer(printed, np.float32).reshape(len(pixels), num_classes)
    return Outputs(np.log(probabilities.clip(1e-38)), probabilities)


def _run(command: list[str], given: bytes = b"") -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise ExportError(f"{command[0]} failed on the C file: {said or done.returncode}")
    return done.stdout


def c_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return a command that compiles the file, and the function in it."""
    return f"cc -std=c99 -O2 -c {path}    # then link your program with it, and with -lm"


def _lines(model: EndToEndModel, bits: int) -> Iterator[str]:
    """Yield the parts of the file."""
    card, side = model.card, model.network.config.image_size
    channels, height, width = card.image_shape
    steps = list(_steps(model))
    kinds = {step.split("(")[0] for step in (one.call for one in steps)}
    sizes = [channels * side * side, *(one.size for one in steps)]
    buffers = max(sizes[0::2]), max(sizes[1::2])
    calls = "\n".join(f"    {one.call};" for one in _alternate(steps))
    last = "ab"[len(steps) % 2]
    calibration = card.calibration
    scale, curvature = (calibration.scale, calibration.curvature) if calibration else (1.0, 0.0)
    yield c_source.HEAD.format(
        name=model.network.config.name,
        shape=f"{channels} x {height} x {width}",
        pixels=channels * height * width,
        classes=len(card.classes),
        names=", ".join(_quote(name) for name in card.classes),
        kind="int8_t" if bits == 8 else "float",
        a=buffers[0],
        b=buffers[1],
        ram=-(-4 * sum(buffers) // 1024),
    )
    yield from _weights(model, bits)
    for kind, source in c_source.LAYERS.items():
        if kind in kinds:
            yield source
    yield c_source.PREDICT.format(
        pixels=channels * height * width, classes=len(card.classes), channels=channels,
        height=height, width=width, side=side, top=(side - height) // 2, left=(side - width) // 2,
        mean=_spread(card.mean, channels), std=_spread(card.std, channels), calls=calls, last=last,
        scale=_float(scale), curvature=_float(curvature),
    )  # fmt: skip


@dataclass(frozen=True)
class _Step:
    call: str
    """A call in C, with {0} for the buffer that it reads and {1} for the one it writes."""
    size: int
    """Values that it writes."""


def _alternate(steps: list[_Step]) -> Iterator[_Step]:
    for index, step in enumerate(steps):
        source, target = "ab" if index % 2 == 0 else "ba"
        yield _Step(step.call.format(source, target), step.size)


def _steps(model: EndToEndModel) -> Iterator[_Step]:
    """Yield the calls of the layers; a pool right after a convolution is part of its call."""
    config = model.network.config
    channels, side, number = config.in_channels, config.image_size, 0
    modules = [one for one in model.network.features if not isinstance(one, nn.ReLU)]
    for module, after in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Conv2d):
            pool = 2 if isinstance(after, nn.MaxPool2d) else 1
            arguments = f"{channels}, {side}, {module.kernel_size[0]}, {pool}"
            channels, side = module.out_channels, side // pool
            call = f"convolve({{0}}, {arguments}, {_names(number)}, {channels}, {{1}})"
            number += 1
            yield _Step(call, channels * side * side)
        elif isinstance(module, nn.LocalResponseNorm):
            yield _Step(f"normalize({{0}}, {channels}, {side}, {{1}})", channels * side * side)
            side //= 2  # only a pool follows: normalization ends a stage
            yield _Step(f"pool({{0}}, {channels}, {side}, {{1}})", channels * side * side)
    width = channels * side * side
    linears = [one for one in model.network.classifier if isinstance(one, nn.Linear)]
    for linear in linears:
        relu = int(linear is not linears[-1])
        outputs = linear.out_features
        call = f"connect({{0}}, {width}, {relu}, {_names(number)}, {outputs}, {{1}})"
        number, width = number + 1, outputs
        yield _Step(call, outputs)


def _names(number: int) -> str:
    return f"weights_{number}, scales_{number}, biases_{number}"


def _weights(model: EndToEndModel, bits: int) -> Iterator[str]:
    layers = (m for m in model.network.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    for number, layer in enumerate(layers):
        weights = layer.weight.detach().flatten(1).numpy()
        assert layer.bias is not None
        scales = np.ones(len(weights), np.float32)
        if bits == 8:
            weights, scales = quantize_rows(weights, bits)
        yield from _array("weight", f"weights_{number}", weights)
        yield from _array("float", f"scales_{number}", scales)
        yield from _array("float", f"biases_{number}", layer.bias.detach().numpy())


def _array(kind: str, name: str, values: npt.NDArray[np.generic]) -> Iterator[str]:
    flat = values.ravel()
    yield f"static const {kind} {name}[{flat.size}] = {{"
    write = str if flat.dtype == np.int8 else _float
    for start in range(0, flat.size, _LINE):
        yield f"    {', '.join(map(write, flat[start : start + _LINE].tolist()))},"
    yield "};\n"


def _float(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _spread(values: tuple[float, ...], channels: int) -> str:
    each = values if len(values) == channels else values * channels
    return ", ".join(_float(value) for value in each)


def _quote(name: str) -> str:
    """Return a name as a string literal, in ASCII."""
    safe = [chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:03o}" for b in name.encode()]
    return f'"{"".join(safe)}"'
