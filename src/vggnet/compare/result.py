"""The versioned result file: what was measured, where and how; no torch.

docs/compare-schema.md describes the format for other readers.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from vggnet.config import Config
from vggnet.data.files import open_regular
from vggnet.errors import ResultFileError

SCHEMA_VERSION = 2
_MAX_BYTES = 64 * 2**20
"""Ten rows of ten epochs take 2 MB."""

# Control characters could drive the reader's terminal; bidirectional ones reorder a page.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069"
Text = Annotated[str, StringConstraints(max_length=400, pattern=f"^[^{_CONTROLS}]*$")]
Lines = Annotated[str, StringConstraints(max_length=200_000)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Positive = Annotated[float, Field(gt=0, le=1e18)]
Amount = Annotated[float, Field(ge=0, le=1e18)]


def printable(name: str) -> str:
    """Replace the characters that a result must not contain."""
    return re.sub(f"[{_CONTROLS}]", "?", name)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Setting(_Record):
    """A device and how it computes."""

    device: Annotated[str, StringConstraints(pattern=r"^(cpu|mps|(cuda|xpu):\d{1,4})$")]
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    global_batch_size: Count
    threads: Count | None
    """CPU threads; None for other devices."""
    kernels: Literal["torch", "winograd"]
    """3×3 convolutions: PyTorch's, or the compiled CPU kernels."""

    @property
    def kind(self) -> str:
        """The device type without the index."""
        return self.device.partition(":")[0]

    @property
    def label(self) -> str:
        """The setting as reports write it."""
        parts = [self.device]
        if self.threads:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        parts += [self.precision, f"batch {self.global_batch_size}"]
        if self.kernels == "winograd":
            parts.append("compiled kernels")
        return " · ".join(parts)


class Timing(_Record):
    """Repeated trainings on the same images."""

    setting: Setting
    images: Count
    """Images trained on in one repeat."""
    seconds: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=10_000)]
    """Duration of each repeat; the device is synchronized at both ends."""

    @property
    def images_per_second(self) -> tuple[float, float, float]:
        """Median, minimum and maximum over the repeats."""
        rates = [self.images / seconds for seconds in self.seconds]
        return statistics.median(rates), min(rates), max(rates)


class SweepPoint(Timing):
    """One point of a curve over batch size or network width."""

    sweep: Literal["batch", "width"]
    x: Positive
    """Batch size, or width as a multiple of the network's own."""


PARTS = {
    "batch": "batch assembly",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "other",
}
"""The parts of a step in order, and their names in a report."""


class Parts(_Record):
    """Where a step's time goes: medians in ms, with a synchronization after each part."""

    batch_ms: Amount
    """Choosing, gathering and normalizing the images."""
    forward_ms: Amount
    backward_ms: Amount
    """Loss and gradients."""
    optimizer_ms: Amount
    other_ms: Amount
    """Bookkeeping of the training loop."""
    step_ms: Positive
    """Whole steps, synchronized only at their ends."""

    @property
    def milliseconds(self) -> tuple[float, ...]:
        """The parts in the order of `PARTS`."""
        return tuple(getattr(self, f"{part}_ms") for part in PARTS)


class ColdStart(_Record):
    """`vggnet train` in a fresh process, for the same number of steps."""

    seconds: Positive
    """The whole process: imports, data, training, evaluation, files."""
    training_seconds: Positive
    """The training steps alone, by the process's own clock."""


class FullRun(ColdStart):
    """`vggnet train` of a complete recipe with one seed, in a fresh process."""

    seed: Annotated[int, Field(ge=0)]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    """Fraction of the test images classified correctly."""
    joules: Amount | None = None
    """Energy of the whole process by the device's own counter."""


def _check_printable(config: Config) -> Config:
    for name in (config.recipe, config.data.dataset):
        if name != printable(name):
            raise ValueError(f"control characters in {name!r}")
    return config


PrintableConfig = Annotated[Config, AfterValidator(_check_printable)]


class FullTraining(_Record):
    """A complete recipe on one device."""

    setting: Setting
    config: PrintableConfig
    """The setting and each run's seed override it."""
    runs: Annotated[tuple[FullRun, ...], Field(min_length=1, max_length=1000)]


class ToAccuracy(_Record):
    """The time that complete trainings take to an accuracy."""

    target: Annotated[float, Field(gt=0, le=1)] | None
    """Test accuracy; None: the article's recipe's mean."""
    trainings: Annotated[tuple[FullTraining, ...], Field(min_length=1, max_length=1000)]


class Row(Timing):
    """One setting, measured in full."""

    strict: bool
    """PyTorch's own kernels in full fp32 at the common batch size."""
    best: bool
    """The fastest setting found for its device."""
    steps: Count
    passes: Count = 1
    """Trainings in each repeat; `seconds` and `joules` are per training."""
    warmup_seconds: Annotated[tuple[Positive, ...], Field(max_length=1000)]
    """Duration of each warm-up step."""
    step_losses: Annotated[tuple[Amount, ...], Field(max_length=10**6)]
    """Mean loss of each step's batch in the first repeat, nats."""
    mistakes: tuple[Annotated[int, Field(ge=0)], ...]
    """Indices of the test images that are classified wrong after the first repeat."""
    test_images: Count
    peak_flops_per_second: Positive | None = None
    """Rate of a large matrix product in this precision with these threads."""
    parts: Parts | None = None
    cold: ColdStart | None = None
    joules: Annotated[tuple[Amount, ...], Field(max_length=10_000)] | None = None
    """Energy of each repeat by the device's own counter; None if it is too slow for a repeat."""
    clock_mhz: Annotated[tuple[Amount, ...], Field(max_length=10_000)] | None = None
    """Clock rate right after each repeat: the fastest core's or the SMs'."""

    @property
    def accuracy(self) -> float:
        """Fraction of the test images classified correctly, 0 to 1."""
        return 1 - len(self.mistakes) / self.test_images

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.images > self.steps * self.setting.global_batch_size:
            raise ValueError("more images than the steps can process")
        if len(self.step_losses) != self.steps:
            raise ValueError(f"{len(self.step_losses)} step losses for {self.steps} steps")
        if list(self.mistakes) != sorted(set(self.mistakes)):
            raise ValueError("mistakes must be in ascending order without repeats")
        if self.mistakes and self.mistakes[-1] >= self.test_images:
            raise ValueError(f"mistake {self.mistakes[-1]} of only {self.test_images} test images")
        for name in ("joules", "clock_mhz"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.seconds):
                raise ValueError(f"{len(values)} {name} for {len(self.seconds)} repeats")
        return self


class Accelerator(_Record):
    """A device other than the CPU."""

    device: Text
    name: Text
    memory_gib: Amount | None = None
    driver: Text | None = None
    power_limit_watts: Amount | None = None
    clock_mhz: Amount | None = None
    """SM clock right after the repeats."""
    highest_clock_mhz: Amount | None = None
    """Highest SM clock that the device supports."""


class Machine(_Record):
    """The machine of a comparison."""

    host: Text
    system: Text
    cpu: Text
    cpu_isa: Text
    """Widest vector instructions that torch uses."""
    cpus: Count
    usable_cores: Count
    memory_gib: Amount | None
    accelerators: tuple[Accelerator, ...]
    python: Text
    torch: Text
    cuda: Text | None
    """CUDA version that torch was built with."""
    tf32: Text
    """torch's TF32 settings; strict rows switch TF32 off."""
    vggnet: Text
    collect_env: Lines
    """Output of torch.utils.collect_env."""


class Result(_Record):
    """One machine's comparison."""

    schema_version: Literal[1, 2] = 2
    complete: bool
    """Whether everything requested was measured."""
    created: Text
    """Local time with offset, ISO 8601."""
    command: Text | None = None
    """The command that was run; None in files of schema 1."""
    options: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._=,/:+-]{0,400}$")]
    """Flags of `vggnet compare` that request the same work on another machine."""
    machine: Machine
    config: PrintableConfig
    """The training's configuration; a row's setting overrides it."""
    dataset_sha256: Text
    images_per_epoch: Count
    recipe_epochs: Positive
    """Epochs of the complete recipe; rows train for fewer steps."""
    flops_per_image: Positive
    """FLOP of forward and backward with direct convolution; a multiply-add counts as two."""
    counted_flops_per_image: Positive
    """The same by torch.utils.flop_counter."""
    energy_source: Text | None
    """The CPU's energy counter, or None."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=1000)]
    trials: tuple[Timing, ...] = ()
    """Short runs that chose each device's best setting."""
    sweep: tuple[SweepPoint, ...] = ()
    to_accuracy: ToAccuracy | None = None


def load_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ResultFileError: The file is missing, damaged, not a result or of a newer schema, or
            contains impossible values.
    """
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ResultFileError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ResultFileError(f"{path} is too large for a result of `vggnet compare`")
    return _read(content, path)


def _read(content: bytes, path: Path) -> Result:
    try:
        values: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
        if content.lstrip()[:1] == b"{":
            what = "is incomplete; copy it again" if cut else f"is damaged: {error}"
        else:
            what = "is not a result of `vggnet compare`; pass a compare.json file"
        raise ResultFileError(f"{path} {what}") from None
    if not isinstance(values, dict) or type(values.get("schema_version")) is not int:
        raise ResultFileError(f"{path} is not a result of `vggnet compare`")
    if values["schema_version"] > SCHEMA_VERSION:
        raise ResultFileError(
            f"{path} has schema {values['schema_version']}, but this vggnet reads up to "
            f"{SCHEMA_VERSION}; upgrade vggnet"
        )
    try:
        return Result.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise ResultFileError(f"{path} is not a valid result: {where}: {message}") from None
