"""Several real processes train and evaluate as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")

SCRIPT = """
import os, sys
import numpy as np, torch
from kill_loop import fork
from resume_matrix import free_port
from vggnet.config import ModelConfig, TrainConfig
from vggnet.data.batches import Batches
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.catalog import CATALOG
from vggnet.data.known import load_test
from vggnet.engine.device import computing
from vggnet.engine.evaluate import evaluate
from vggnet.engine.fit import build_state, fit
from vggnet.engine.session import open_session
from vggnet.model.vgg import build_network

cpu = torch.device("cpu")
images, _ = load_test(CATALOG["mnist"])

def train():
  with open_session() as session, computing("fp32", 1):
    def batches(count):
        return Batches(
            images.take(np.arange(count), "some"), cpu, Preprocessing((0.5,), (0.5,), 28),
            batch_size=63, rank=session.rank, world_size=session.world_size,
        )
    model = ModelConfig(stages=((8,), (16,)), hidden=(16,), dropout=0.0)
    network = build_network(model, 0).double()
    network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    state = build_state(network, TrainConfig(epochs=4), cpu, session)
    results = list(fit(state, batches(300)))
    norm = model.model_copy(update={"batch_norm": True})
    averaging = build_state(build_network(norm, 0), TrainConfig(average_decay=0.9), cpu, session)
    next(fit(averaging, batches(300)))
    evaluations = [evaluate(state.replica, batches(n), session).logits for n in (1, 2, 63, 9_999)]
    torch.save(
        {
            "weights": [p.detach() for p in state.network.parameters()],
            "losses": [loss for result in results for loss in result.step_losses],
            "steps": state.step,
            "averaged": averaging.eval_model.state_dict(),
            "evaluations": [torch.from_numpy(logits) for logits in evaluations],
        },
        f"{sys.argv[1]}/{session.world_size}-{session.rank}.pt",
    )

children = [fork(train)]
codes = [os.waitpid(children[0], 0)[1]]
for world_size in (2, 3):
    port = free_port()
    children = []
    for rank in range(world_size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        place |= {"LOCAL_WORLD_SIZE": world_size, "MASTER_ADDR": "localhost"}
        os.environ.update({name: str(value) for name, value in place.items()})
        children.append(fork(train))
    codes += [os.waitpid(child, 0)[1] for child in children]
sys.exit(any(codes))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the same training by one, two and three processes, forked from one."""
    folder = tmp_path_factory.mktemp("trained")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    stress = Path(__file__).parents[2] / "benchmarks" / "stress"
    done = subprocess.run(
        [sys.executable, script, folder],
        env={**os.environ, "PYTHONPATH": str(stress)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_are_one(trained: Path, processes: int) -> None:
    """After 20 steps at one global batch the weights agree within 1e-6, on every rank.

    The network computes in float64 here: in float32 Adam turns a gradient that is all
    rounding into a whole step, and single weights differ by 1e-5. The short last batch
    weighs its share; evaluation at 1, 2, 63 and 9,999 images gives each its logits once.
    An average of the weights, and of what batch norm gathers, is the same on both.
    """
    one, *ranks = (
        torch.load(trained / f"{name}.pt", weights_only=True)
        for name in ["1-0", *(f"{processes}-{rank}" for rank in range(processes))]
    )
    assert one["steps"] == 20
    first = ranks[0]
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-5)
    for alone, a in zip(one["weights"], first["weights"], strict=True):
        assert (a - alone).abs().max() <= 1e-6
    for alone, a in zip(one["evaluations"], first["evaluations"], strict=True):
        assert torch.allclose(a, alone, atol=1e-4)
    for other in ranks[1:]:
        assert other["steps"] == 20
        for part in ("weights", "evaluations"):
            assert all(map(torch.equal, first[part], other[part]))
        for name, tensor in first["averaged"].items():
            assert torch.equal(tensor, other["averaged"][name]), name
