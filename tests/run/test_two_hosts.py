"""Two hosts train together; one loses its network, and both resume when it is back.

The hosts are two network namespaces of this machine, connected by a pair of virtual network
cards, which can be disconnected.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from safetensors.torch import load_file
from torch import distributed, equal

from conftest import owned_processes
from forked import ForkServer

from .conftest import TRAIN

LIMIT = 10
"""Seconds that a host waits for the other one."""


class Host:
    """A network namespace, a folder, and a process with torch that programs are forked from."""

    def __init__(self, number: int, folder: Path, digits: Path) -> None:
        self.name, self.address = f"vggnet-{os.getpid()}-{number}", f"10.77.0.{number}"
        self.is_first = number == 1
        self.card, self.folder = f"vgg{os.getpid()}-{number}"[-15:], folder
        self.errors = folder.with_suffix(".err")
        folder.mkdir()
        (folder / "digits").symlink_to(digits)
        ip("netns", "add", self.name)

    def connect(self) -> None:
        """Assign its card and address."""
        ip("link", "set", self.card, "netns", self.name)
        ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", self.card)
        for card in ("lo", self.card):
            ip("-n", self.name, "link", "set", card, "up")

    def plug(self, state: str) -> None:
        """Disconnect ("down") or connect ("up") its network card."""
        ip("-n", self.name, "link", "set", self.card, state)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run programs until the end of the context."""
        with (
            TemporaryDirectory() as folder,
            closing(ForkServer(Path(folder), "ip", "netns", "exec", self.name)) as server,
            owned_processes(server.start) as self._fork,
        ):
            self._python = server.python
            yield

    def torchrun(self, *arguments: str) -> subprocess.Popen[str]:
        """Start this host's process, with the command in docs/training.md."""
        launch = ["-m", "torch.distributed.run"]
        launch += ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "digits"]
        launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400"]
        launch += ["--local-addr", self.address]
        launch += ["--rdzv-conf", f"is_host={str(self.is_first).lower()}"]
        command = [*launch, "-m", "vggnet", *arguments]
        settings = {"GLOO_SOCKET_IFNAME": self.card, "PYTHON_EXEC": str(self._python)}
        with self.errors.open("w") as errors:
            return self._fork(*command, cwd=self.folder, stderr=errors, env=settings)

    def remove(self) -> None:
        """Delete it."""
        ip("netns", "delete", self.name)


def ip(*arguments: str) -> None:
    """Call `ip`, which makes namespaces and network cards."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts(tmp_path: Path, digits: Path) -> Iterator[tuple[Host, Host]]:
    """Two connected hosts."""
    if not distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    if not shutil.which("ip"):
        pytest.skip("`ip`, which makes network namespaces, is not installed")
    made: list[Host] = []
    try:
        first = Host(1, tmp_path / "first", digits)
        made.append(first)
        second = Host(2, tmp_path / "second", digits)
        made.append(second)
        ip("link", "add", first.card, "type", "veth", "peer", "name", second.card)
        for host in made:
            host.connect()
    except subprocess.CalledProcessError as error:
        for host in made:
            host.remove()
        pytest.skip(f"cannot make network namespaces here: {error.stderr.strip()}")
    with first.running(), second.running():
        yield first, second
    for host in made:
        host.remove()


def test_two_hosts_train_lose_their_connection_and_resume(
    hosts: tuple[Host, Host], unbroken: Path
) -> None:
    """Disconnected, both end with an error; resumed, they end equal to an uninterrupted run.

    Only the first host writes.
    """
    first, second = hosts
    options = ("--name", "cut", "--checkpoint-every", "10", "--timeout", str(LIMIT))
    parts = [host.torchrun(*TRAIN, *options) for host in hosts]
    assert parts[0].stdout is not None
    assert parts[0].stdout.readline().startswith("custom on digits")
    while not list(first.folder.glob("runs/cut/checkpoints/*.json")):
        assert parts[0].poll() is None
        time.sleep(0.005)
    second.plug("down")
    disconnected = time.monotonic()
    parts[0].communicate(timeout=90)
    err = first.errors.read_text()
    assert time.monotonic() - disconnected < 60
    assert parts[0].returncode == 1, err
    assert "another process of this training exited or cannot be reached" in err
    assert "Resume from the last checkpoint: torchrun" in err
    # The second one reports the same; its launcher ignores SIGTERM while it looks for the first.
    while "cannot be reached" not in second.errors.read_text():
        assert time.monotonic() - disconnected < 90, second.errors.read_text()
        time.sleep(0.1)
    parts[1].kill()
    parts[1].wait()

    second.plug("up")
    parts = [host.torchrun("train", "--resume", "runs/cut") for host in hosts]
    for host, part in zip(hosts, parts, strict=True):
        part.communicate(timeout=120)
        assert part.returncode == 0, host.errors.read_text()
    assert (first.folder / "digits_vggnet.pth").is_file()
    assert [path.name for path in second.folder.iterdir()] == ["digits"]
    one, other = load_file(unbroken), load_file(first.folder / "runs/cut/model.safetensors")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert equal(tensor, other[name]), name
