"""Composition: settings to data, to a network, to training, to the files it leaves."""

from vggnet.run.options import Options
from vggnet.run.plan import Plan, Reporter, TrainResult, fit_to_data
from vggnet.run.start import resume_run, run, train

__all__ = [
    "Options",
    "Plan",
    "Reporter",
    "TrainResult",
    "fit_to_data",
    "resume_run",
    "run",
    "train",
]
