"""One training from settings to files: load the data, train with checkpoints, save the results."""

from vggnet.run.api import resume_run, run, train
from vggnet.run.plan import Options, Plan, Reporter
from vggnet.run.preflight import fit_to_data
from vggnet.run.results import TrainResult

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
