"""Errors that a user can cause. Each message says what is wrong, where, and what to do.

The command line prints the message without a traceback and exits with the error's `exit_code`:
2 for wrong usage, 1 for a failure.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence


def quote(words: Sequence[str]) -> str:
    """Join the words of a command for the user's shell, so that a message can be copied."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


class VggnetError(Exception):
    """Base class of all errors that a user can cause and fix.

    Examples:
        >>> try:
        ...     vggnet.load("missing.pth")
        ... except vggnet.VggnetError as error:
        ...     print(type(error).__name__)
        ModelFileError
    """

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message, as the command line does."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(VggnetError):
    """A setting is unknown, out of range, or contradicts another."""

    exit_code = 2


class DeviceError(VggnetError):
    """This machine does not have the device, or the device does not support the precision."""

    exit_code = 2


class OutOfMemoryError(VggnetError):
    """The device does not have enough memory."""


class KernelError(VggnetError):
    """Compiled kernels are required, but unavailable."""

    exit_code = 2


class DataError(VggnetError):
    """A data file is missing, damaged, or not what it claims to be."""


class ImageError(VggnetError):
    """A file is not an image, cannot be read, or is too large."""


class ModelFileError(VggnetError):
    """A model file is missing, damaged, or not a VGG network."""


class CheckpointError(VggnetError):
    """There is no complete checkpoint to resume from."""


class RunFinishedError(VggnetError):
    """The run to resume is finished; not a failure."""

    exit_code = 0


class ConnectionLostError(VggnetError):
    """Another process of the same training exited or cannot be reached."""


class ResultFileError(VggnetError):
    """The result file of a comparison is missing, damaged, or implausible."""


class ExportError(VggnetError):
    """An exported file does not compute what its network computes; it was deleted."""


class ServeError(VggnetError):
    """The server cannot start."""


class OutputError(VggnetError):
    """A file cannot be written; the file that was there before is untouched."""


class TrainingDivergedError(VggnetError):
    """The loss or the weights are NaN or infinite.

    Args:
        what: Which of them, and when.
        step: Steps completed before this was noticed.
        lr: The learning rate then.
    """

    def __init__(self, what: str, step: int, lr: float) -> None:
        super().__init__(
            f"{what} (learning rate {lr:.2g}), so training stopped; try a smaller learning "
            f"rate, for example --lr {lr / 10:.1g}"
        )
        self.step = step


class InterruptedTrainingError(VggnetError):
    """Ctrl-C, SIGTERM or SIGHUP stopped training after a step.

    Attributes:
        step: Steps taken.
    """

    exit_code = 130  # 128 + SIGINT, as shells report it

    def __init__(self, step: int) -> None:
        super().__init__(f"training was interrupted after step {step}")
        self.step = step
