"""Python programs in processes that are forked from one that has imported torch.

Starting Python and importing torch, matplotlib and this package takes 4 to 6 seconds of CPU time,
a fork less than 0.1. What Python itself does at the start and end of a program, as with closed
standard streams, is tested in processes that are started.

Run as a script, this module is the process that is forked.
"""

from __future__ import annotations

import importlib
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
from pathlib import Path
from typing import IO, Any, NoReturn

from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PRELOADED = ("vggnet.cli.progress", "vggnet.run", "vggnet.serve.server")
"""With what they import: torch, NumPy, SciPy."""

PYTHON = """\
#!{python} -IS
import json, os, signal, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
socket.send_fds(link, [b"."], [0, 1, 2])
request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
link.sendall(json.dumps(request).encode() + b"\\n")
answers = link.makefile()
fork = int(answers.readline())
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(one) != signal.SIG_IGN:
        signal.signal(one, lambda number, frame: os.kill(fork, number))
code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
"""A program that does what Python does, in a fork: signals are passed on, and so is its end."""


def save_pixel(figure: Figure, file: IO[bytes], format: str, metadata: dict[str, str]) -> None:
    """Save one pixel in place of a figure: drawing takes two thirds of the time of a tiny run."""
    info = PngInfo()
    for name, text in metadata.items():
        info.add_text(name, text)
    Image.new("L", (1, 1)).save(file, format, pnginfo=info)


class ForkServer:
    """The process that is forked.

    Args:
        folder: For its socket, and for `python`: an executable for programs under test that start
            Python themselves.
        within: Command that runs it, as in another network namespace.
    """

    def __init__(self, folder: Path, *within: str) -> None:
        self._address = str(folder / "socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._address)
        self._listener.listen()
        number = self._listener.fileno()
        self._process = subprocess.Popen(
            [*within, sys.executable, __file__, str(number)],
            pass_fds=[number],
            stdin=subprocess.PIPE,
        )
        self.python = folder / "python"
        self.python.write_text(PYTHON.format(python=sys.executable, address=self._address))
        self.python.chmod(0o755)

    def close(self) -> None:
        """End it."""
        self._listener.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(
        self,
        arguments: list[str],
        *,
        env: dict[str, str],
        cwd: Path | str = ".",
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> Fork:
        """Run Python with `arguments`: `-c PROGRAM`, `-m MODULE` or `SCRIPT`, and more."""
        pipes: dict[int, IO[str]] = {}
        given: list[int] = []
        for number, target in enumerate((stdin, stdout, stderr)):
            if target == subprocess.PIPE:
                reading, writing = os.pipe()
                pipes[number] = os.fdopen(reading, errors="backslashreplace")
                given.append(writing)
            elif target == subprocess.DEVNULL:
                given.append(os.open(os.devnull, os.O_RDWR))
            else:
                file = number if target is None else target
                given.append(os.dup(file if isinstance(file, int) else file.fileno()))
        link = socket.socket(socket.AF_UNIX)
        link.connect(self._address)
        socket.send_fds(link, [b"."], given)
        for descriptor in given:
            os.close(descriptor)
        folder = str(Path(cwd).absolute())
        request = {"arguments": arguments, "folder": folder, "environment": env}
        link.sendall(json.dumps(request).encode() + b"\n")
        return Fork(link, pipes)


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


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each request, and return it in the new process; end with standard input."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if sys.stdin in ready:
            os._exit(0)
        link, _ = listener.accept()
        if not os.fork():
            break
        link.close()
    listener.close()
    _, streams, *_ = socket.recv_fds(link, 1, 3)
    request: dict[str, Any] = json.loads(link.makefile().readline())
    if child := os.fork():
        for descriptor in streams:
            os.close(descriptor)
        link.sendall(f"{child}\n".encode())
        watch(child, link)
    link.close()
    for standard, descriptor in enumerate(streams):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    return request


def watch(child: int, link: socket.socket) -> NoReturn:
    """Wait for a fork and send its exit code; end it if nobody is there to receive that."""

    def end_with_link() -> None:
        link.recv(1)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    threading.Thread(target=end_with_link, daemon=True).start()
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Have a session, folder, environment and standard streams as if just started."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    while request["arguments"][0].startswith(("-u", "-X")):
        if request["arguments"].pop(0) == "-u":
            os.environ["PYTHONUNBUFFERED"] = "1"
    at_once = 1 if os.environ.get("PYTHONUNBUFFERED") else -1
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", at_once)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace")


def main() -> None:
    """Import what is preloaded; in each fork, do what `python ARGUMENTS` does."""
    for name in PRELOADED:
        with suppress(ImportError):  # of an extra
            importlib.import_module(name)
    Figure.savefig = save_pixel
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    become(request)
    first, *rest = request["arguments"]
    if first == "-m":
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
