"""DistributedDataParallel trains an accelerated network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, torch, torch.distributed as dist, torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, {tests!r})
from kernels.conftest import Network
from vggnet.kernels import accelerate

rank, rendezvous = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{{rendezvous}}", rank=rank, world_size=2)
torch.set_num_threads(1)
torch.manual_seed(rank)  # DDP must bring rank 0's parameters to rank 1
network = Network()
module = DistributedDataParallel(accelerate(network, mode="winograd"))
images = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
labels = torch.arange(8)
mine = slice(4 * rank, 4 * rank + 4)
F.cross_entropy(module(images[mine]), labels[mine]).backward()
found = [parameter.grad.clone() for parameter in network.parameters()]
network.zero_grad()
F.cross_entropy(network(images), labels).backward()  # torch, both halves at once
for parameter, gradient in zip(network.parameters(), found, strict=True):
    torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5)
dist.destroy_process_group()
"""


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    """Two ranks with half a batch each get the gradients of the whole batch."""
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(tmp_path / "rendezvous")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
