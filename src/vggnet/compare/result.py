"""The versioned result file: what was measured, on what, and how; no torch.

docs/compare-schema.md describes it for those who read it with other tools.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from vggnet.config import Config
from vggnet.errors import ResultFileError

SCHEMA_VERSION = 1
_MOST_BYTES = 64 * 2**20
"""A comparison of ten rows over ten epochs takes 2 MB; more than this is no result."""

# Control characters would reach the reader's terminal, bidirectional ones reorder a page.
_CONTROLS = "\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069"
Text = Annotated[str, StringConstraints(max_length=400, pattern=f"^[^{_CONTROLS}]*$")]
Lines = Annotated[str, StringConstraints(max_length=200_000)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Positive = Annotated[float, Field(gt=0, le=1e18)]
Amount = Annotated[float, Field(ge=0, le=1e18)]


def printable(name: str) -> str:
    """Replace what no result may hold."""
    return re.sub(f"[{_CONTROLS}]", "?", name)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Setting(_Record):
    """How a device was used."""

    device: Annotated[str, StringConstraints(pattern=r"^(cpu|mps|(cuda|xpu):\d{1,4})$")]
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    global_batch_size: Count
    threads: Count | None
    """CPU threads; None where the computing is done elsewhere."""
    kernels: Literal["torch", "winograd"]
    """Who computes 3×3 convolutions: PyTorch, or the kernels compiled for this CPU."""

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    @property
    def label(self) -> str:
        """The setting in a few words."""
        parts = [self.device]
        if self.threads:
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        parts += [self.precision, f"batch {self.global_batch_size}"]
        if self.kernels == "winograd":
            parts.append("compiled kernels")
        return " · ".join(parts)


class Timing(_Record):
    """Some images trained on, several times."""

    setting: Setting
    images: Count
    """Images trained on in one repeat."""
    seconds: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=10_000)]
    """Of each repeat, the device having been waited for at both ends."""


class SweepPoint(Timing):
    """One point of a curve over batch sizes or widths."""

    sweep: Literal["batch", "width"]
    x: Positive
    """Batch size, or width as a multiple of the network's own."""


class Parts(_Record):
    """Where a step's time goes: medians in ms, the device waited for after each part."""

    batch_ms: Amount
    """Choosing, gathering and normalizing the images."""
    forward_ms: Amount
    backward_ms: Amount
    """Loss and gradients."""
    optimizer_ms: Amount
    other_ms: Amount
    """The loop's own book-keeping."""
    step_ms: Positive
    """Whole steps in between, waited for at their ends alone."""


PARTS = ("batch", "forward", "backward", "optimizer", "other")
"""What a step is split into, in the order of time."""


class Cold(_Record):
    """`vggnet train` in a fresh process, for as many steps."""

    seconds: Positive
    """From starting the process to its end: imports, data, training, evaluation, files."""
    training_seconds: Positive
    """The steps in it, by its own clock."""


class Row(Timing):
    """One setting, measured in full."""

    strict: bool
    """PyTorch's own operations in full fp32 at the common batch size."""
    best: bool
    """The fastest setting found for its device."""
    steps: Count
    warmup_seconds: Annotated[tuple[Positive, ...], Field(max_length=1000)]
    """Each step before the first repeat, on its own."""
    step_losses: Annotated[tuple[Amount, ...], Field(max_length=10**6)]
    """Mean loss of each step's batch in the first repeat, nats."""
    mistakes: tuple[Annotated[int, Field(ge=0)], ...]
    """Test images classified wrong after the first repeat, by index."""
    test_images: Count
    peak_flops_per_second: Positive | None = None
    """Of a large matrix product in this precision, with these threads."""
    parts: Parts | None = None
    cold: Cold | None = None
    joules: Annotated[tuple[Amount, ...], Field(max_length=10_000)] | None = None
    """Of each repeat, as the device's own counter tells."""

    @property
    def accuracy(self) -> float:
        """Share of the test images classified right, 0 to 1."""
        return 1 - len(self.mistakes) / self.test_images

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.images > self.steps * self.setting.global_batch_size:
            raise ValueError("more images than the steps can hold")
        if len(self.step_losses) != self.steps:
            raise ValueError(f"{len(self.step_losses)} step losses for {self.steps} steps")
        if list(self.mistakes) != sorted(set(self.mistakes)):
            raise ValueError("mistakes are not in order, each once")
        if self.mistakes and self.mistakes[-1] >= self.test_images:
            raise ValueError(f"a mistake numbered {self.mistakes[-1]} of {self.test_images}")
        if self.joules is not None and len(self.joules) != len(self.seconds):
            raise ValueError(f"{len(self.joules)} energies for {len(self.seconds)} repeats")
        return self


class Accelerator(_Record):
    """A device other than the CPU."""

    device: Text
    name: Text
    memory_gib: Amount | None = None
    driver: Text | None = None
    power_limit_watts: Amount | None = None
    clock_mhz: Amount | None = None
    """Of the streaming multiprocessors, right after the repeats."""
    highest_clock_mhz: Amount | None = None


class Machine(_Record):
    """What was measured on."""

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
    """The CUDA that torch was built with."""
    tf32: Text
    """Where TF32 may replace fp32; strict rows switch it off."""
    vggnet: Text
    collect_env: Lines
    """torch.utils.collect_env's own account."""


class Result(_Record):
    """One machine's comparison."""

    schema_version: Literal[1] = 1
    complete: bool
    """Whether everything that was asked for was measured."""
    created: Text
    """Local time with offset, ISO 8601."""
    options: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._=,/:+-]{0,400}$")]
    """Flags of `vggnet compare` that ask for the same work elsewhere."""
    machine: Machine
    config: Config
    """Of the training, but for what a row's setting says."""
    dataset_sha256: Text
    images_per_epoch: Count
    recipe_epochs: Positive
    """Epochs that the recipe trains for, of which the rows are an excerpt."""
    flops_per_image: Positive
    """Of direct convolution, forward and backward, a multiply-add as two."""
    counted_flops_per_image: Positive
    """The same by torch.utils.flop_counter."""
    energy_source: Text | None
    """What counted the CPU's joules, or None."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=1000)]
    trials: tuple[Timing, ...] = ()
    """Short runs that chose the rows called best."""
    sweep: tuple[SweepPoint, ...] = ()

    @field_validator("config")
    @classmethod
    def _printable(cls, config: Config) -> Config:
        for name in (config.recipe, config.data.dataset):
            if name != printable(name):
                raise ValueError(f"control characters in {name!r}")
        return config


def load_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ResultFileError: It is missing, no result, damaged, of a newer schema, or holds
            values that no measurement gives.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ResultFileError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise ResultFileError(f"{path} is larger than any result of `vggnet compare`")
    return _read(content, path)


def _read(content: bytes, path: Path) -> Result:
    try:
        values: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
        if content.lstrip()[:1] == b"{":
            what = "ends too early; copy it again" if cut else f"is damaged: {error}"
        else:
            what = "is no result of `vggnet compare`; name the compare.json file"
        raise ResultFileError(f"{path} {what}") from None
    if not isinstance(values, dict) or type(values.get("schema_version")) is not int:
        raise ResultFileError(f"{path} is no result of `vggnet compare`")
    if values["schema_version"] > SCHEMA_VERSION:
        raise ResultFileError(
            f"{path} has schema {values['schema_version']}, newer than this vggnet reads "
            f"({SCHEMA_VERSION}); upgrade vggnet"
        )
    try:
        return Result.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise ResultFileError(f"{path} is not a valid result: {where}: {message}") from None
