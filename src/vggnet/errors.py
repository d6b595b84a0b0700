"""What a user can get wrong: every message says what was wrong, where, and the way out.

The command line prints the message alone, without a traceback, and ends with
the error's `exit_code`: 2 for wrong usage, 1 for a failure.
"""

from __future__ import annotations


class VggnetError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 1


class ConfigError(VggnetError):
    """A setting that is unknown, out of range, or at odds with another."""

    exit_code = 2


class DeviceError(VggnetError):
    """A device or precision that this machine cannot give."""

    exit_code = 2


class OutOfMemoryError(VggnetError):
    """The memory of the device does not hold what was asked for."""


class KernelError(VggnetError):
    """Compiled convolutions were demanded and cannot be had."""

    exit_code = 2


class DataError(VggnetError):
    """A data file that is missing, damaged, or not what it claims to be."""


class ImageError(VggnetError):
    """An image that cannot be read, is too large, or is none."""


class ModelFileError(VggnetError):
    """A model file that is missing, damaged, or not a VGG network."""


class CheckpointError(VggnetError):
    """There is no whole checkpoint to go on from."""


class RunFinishedError(VggnetError):
    """A run that is to be resumed has nothing left to do; no failure."""

    exit_code = 0


class ConnectionLostError(VggnetError):
    """Another process of the same training ended, or cannot be reached."""


class ResultFileError(VggnetError):
    """A comparison's result file that is missing, damaged, or not believable."""


class ExportError(VggnetError):
    """An exported file that does not answer as its network does; it was not kept."""


class ServeError(VggnetError):
    """A server that cannot start."""


class OutputError(VggnetError):
    """A file that cannot be written; what stood there before is untouched."""


class TrainingDivergedError(VggnetError):
    """The loss, or the weights, became NaN or infinite.

    Args:
        what: Which became so, and when.
        step: Steps completed before that showed.
        lr: The learning rate then.
    """

    def __init__(self, what: str, step: int, lr: float) -> None:
        super().__init__(
            f"{what} (learning rate {lr:.2g}) and training stopped; try a smaller rate, for "
            f"example --lr {lr / 10:.1g}"
        )
        self.step = step


class InterruptedTrainingError(VggnetError):
    """Ctrl-C or SIGTERM ended training at a step boundary.

    Attributes:
        step: Steps that were taken.
    """

    exit_code = 130  # 128 + SIGINT, as shells report it

    def __init__(self, step: int) -> None:
        super().__init__(f"training was interrupted after step {step}")
        self.step = step
