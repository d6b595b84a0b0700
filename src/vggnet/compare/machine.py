"""What is measured on, for the result file."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch
from torch.utils import collect_env

from vggnet.compare.energy import describe_accelerator
from vggnet.compare.result import Machine
from vggnet.engine.environment import describe_environment


def describe_machine(devices: Sequence[torch.device]) -> Machine:
    """Describe this machine and its devices; takes a second or two for collect_env."""
    found = describe_environment()
    return Machine(
        host=platform.node(),
        system=found["system"],
        cpu=found["cpu"],
        cpu_isa=found["cpu_isa"],
        cpus=found["cpus"],
        usable_cores=found["usable_cores"],
        memory_gib=found["memory_gib"],
        accelerators=tuple(describe_accelerator(one) for one in devices if one.type != "cpu"),
        python=found["python"],
        torch=found["torch"],
        cuda=torch.version.cuda,
        tf32=_describe_tf32(),
        vggnet=found["vggnet"],
        collect_env=collect_env.get_pretty_env_info(),  # type: ignore[no-untyped-call]
    )


def _describe_tf32() -> str:
    convolutions = "on" if torch.backends.cudnn.allow_tf32 else "off"
    products = torch.get_float32_matmul_precision()
    return (
        f"torch's own setting here: convolutions {convolutions}, products {products}; "
        "set off for fp32 rows and on for tf32 rows"
    )
