"""Python programs in processes that are forked from one that has imported torch.

Starting Python and importing torch, matplotlib and this package takes 4 to 6 seconds of CPU time,
a fork less than 0.1. What Python itself does at the start and end of a program, as with closed
standard streams, is tested in processes that are started.

Run as a script, this module is the process that is forked.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PRELOADED = ("vggnet.cli.progress", "vggnet.run", "vggnet.serve.server")
"""With what they import: torch, NumPy, SciPy."""


def save_pixel(figure: Figure, file: IO[bytes], format: str, metadata: dict[str, str]) -> None:
    """Save one pixel in place of a figure: drawing takes two thirds of the time of a tiny run."""
    info = PngInfo()
    for name, text in metadata.items():
        info.add_text(name, text)
    Image.new("L", (1, 1)).save(file, format, pnginfo=info)


class ForkServer:
    """The process that is forked. It ends with the process that started it."""

    def __init__(self) -> None:
        self._control, other = socket.socketpair()
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()])

    def close(self) -> None:
        """End it; its forks live on."""
        self._control.close()
        self._process.wait()

    def start(
        self,
        arguments: list[str],
        *,
        env: dict[str, str],
        cwd: os.PathLike[str] | str = ".",
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> Fork:
        """Run Python with `arguments`: `-c PROGRAM ...`, `-m MODULE ...` or `SCRIPT ...`."""
        pipes: dict[int, IO[str]] = {}
        given: list[int] = []
        for number, target in enumerate((stdin, stdout, stderr)):
            if target == subprocess.PIPE:
                reading, writing = os.pipe()
                pipes[number] = open(reading)  # noqa: SIM115
                given.append(writing)
            elif target == subprocess.DEVNULL:
                given.append(os.open(os.devnull, os.O_RDWR))
            else:
                file = number if target is None else target
                given.append(os.dup(file if isinstance(file, int) else file.fileno()))
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"."], [*given, theirs.fileno()])
        for descriptor in given:
            os.close(descriptor)
        request = {"arguments": arguments, "folder": os.path.abspath(cwd), "environment": env}
        ours.sendall(json.dumps(request).encode() + b"\n")
        return Fork(ours, pipes)


class Fork:
    """A forked process, with what tests use of the interface of `subprocess.Popen`."""

    def __init__(self, link: socket.socket, pipes: dict[int, IO[str]]) -> None:
        self._link, self._answers = link, link.makefile()
        self.pid = int(self._answers.readline())
        self.stdout, self.stderr = pipes.get(1), pipes.get(2)
        self.returncode: int | None = None

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdout, self.stderr):
            if pipe:
                pipe.close()
        self.wait()
        self._answers.close()
        self._link.close()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or the negative number of the signal that killed it."""
        if self.returncode is None:
            if not select.select([self._link], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = int(self._answers.readline())
        return self.returncode

    def poll(self) -> int | None:
        """Return the same, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return all that it writes to its pipes, after its end."""
        texts = {}

        def read(pipe: IO[str]) -> None:
            with pipe:
                texts[pipe] = pipe.read()

        pipes = [one for one in (self.stdout, self.stderr) if one and not one.closed]
        readers = [threading.Thread(target=read, args=(pipe,)) for pipe in pipes]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return texts.get(self.stdout, ""), texts.get(self.stderr, "")


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request; return it in the new process. The old one ends with `control`."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the forks
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1, 4)
        if not message:
            os._exit(0)
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    *streams, number = descriptors
    link = socket.socket(fileno=number)
    request: dict[str, Any] = json.loads(link.makefile().readline())
    if child := os.fork():  # this process waits for it
        for descriptor in streams:
            os.close(descriptor)
        link.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    link.close()
    for standard, descriptor in enumerate(streams):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    return request


def main() -> None:
    """Import what is preloaded; in each fork, do what `python ARGUMENTS` does."""
    for name in PRELOADED:
        with suppress(ImportError):  # of an extra
            importlib.import_module(name)
    Figure.savefig = save_pixel
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin = open(0)  # noqa: SIM115
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(open(number, "wb"), write_through=at_once) for number in (1, 2)
    )
    first, *rest = request["arguments"]
    if first == "-m":
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path[0] = os.path.dirname(first)  # noqa: PTH120
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
