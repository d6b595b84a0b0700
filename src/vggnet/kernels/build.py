"""Compile the kernels once per machine and keep the library in the user's cache folder.

A library's name is a hash of everything that determines its code: sources, flags, compiler and
processor. It is written under a temporary name, then renamed, and ends with its own SHA-256, so
a truncated file is detected and compiled again.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from vggnet.data.lock import one_at_a_time
from vggnet.errors import KernelError

SOURCE = Path(__file__).parent / "source"

# -ffp-contract=fast allows one instruction for a * b + c, and nothing else. Never add -ffast-math:
# it breaks NaN, and linking with it disables denormals in the whole process. macOS has libdispatch
# instead of OpenMP.
FLAGS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=fast",
    *(["-fopenmp"] if sys.platform != "darwin" else []),
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
    "-Wno-psabi",
)

# Compiling takes 3 s on two Zen 4 cores, and `g++ --version` 2 ms.
_COMPILE_SECONDS, _VERSION_SECONDS = 60.0, 20.0

# Bytes that a compiler may print.
_MAX_OUTPUT = 1 << 20


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its command and the first line of its `--version`."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Build:
    """A compiled library."""

    path: Path
    compiler: Compiler
    seconds: float
    """Time spent compiling in this process; 0.0 if the library was in the cache."""


@cache
def find_compiler() -> Compiler:
    """Find a C++ compiler: the command in CXX if it is set, otherwise g++, c++ or clang++.

    Raises:
        KernelError: There is none, or it does not run.
    """
    chosen = os.environ.get("CXX")
    try:
        commands = [shlex.split(chosen)] if chosen else [["g++"], ["c++"], ["clang++"]]
    except ValueError as error:
        raise KernelError(f"CXX is {chosen!r}: {error}; quote it as in a shell") from error
    for command in commands:
        if command and shutil.which(command[0]):
            lines = _run((*command, "--version"), _VERSION_SECONDS).splitlines()
            return Compiler(tuple(command), lines[0] if lines else "unknown version")
    raise KernelError(
        f"CXX is {chosen!r}, which is not a program; set it to a C++ compiler or unset it"
        if chosen
        else "no C++ compiler found; install g++ (Debian: apt install g++) or set CXX"
    )


def build_library(lanes: int, flag: str, processor: str, openmp: Path | None) -> Build:
    """Return the library for vectors of `lanes` floats, from the cache or compiled now.

    Args:
        lanes: Floats in a vector.
        flag: The flag that selects this processor's instructions.
        processor: Description of the processor; decides what `flag` means.
        openmp: The OpenMP runtime that torch has loaded; the library is linked with it.

    Raises:
        KernelError: There is no compiler, or it fails.
    """
    compiler = find_compiler()
    flags = (*FLAGS, flag, f"-DVGGNET_LANES={lanes}")
    # --as-needed: torch's runtime comes first, so the system's is not linked as well.
    link = ("-Wl,--as-needed", str(openmp)) if openmp else ()
    openmp_name = openmp.name if openmp else ""
    key = _key(*compiler.command, compiler.version, *flags, processor, openmp_name)
    try:
        folder, seconds = library_folder(), 0.0
        _remove_abandoned(folder)
        path = folder / f"winograd-{lanes}-{key}.so"
        if not is_intact(path):
            with one_at_a_time(path.with_suffix(".lock")):
                if not is_intact(path):  # another process may have compiled it meanwhile
                    started = time.perf_counter()
                    source = str(SOURCE / "winograd.cpp")
                    _compile((*compiler.command, *flags, source, *link), path)
                    seconds = time.perf_counter() - started
        return Build(path, compiler, seconds)
    except OSError as error:
        raise KernelError(
            f"cannot store the compiled kernels: {error.strerror or error}; "
            "set VGGNET_CACHE_DIR to a folder with free space"
        ) from error


@cache
def library_folder() -> Path:
    """Return a folder that only this user can write to, because its files are executed.

    It is in the folder that VGGNET_CACHE_DIR names, or else in the platform's cache folder. If
    that is unusable, it is a temporary folder, deleted when this process ends.

    Raises:
        OSError: There is no usable folder.
    """
    named = os.environ.get("VGGNET_CACHE_DIR")
    # RuntimeError: the user has no home.
    with contextlib.suppress(OSError, RuntimeError):
        base = Path(named) if named else platformdirs.user_cache_path("vggnet")
        folder = base / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder) and _keeps_its_folders(base) and os.access(folder, os.W_OK):
            return folder
    temporary = Path(tempfile.mkdtemp(prefix="vggnet-kernels-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _is_private(folder: Path) -> bool:
    if sys.platform == "win32":  # has no user ids
        return False
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others


def _keeps_its_folders(parent: Path) -> bool:
    """Whether no other user can replace a folder in this one."""
    if sys.platform == "win32":
        return False
    found = parent.stat()
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.getuid()) and not open_to_all


def is_intact(path: Path) -> bool:
    """Whether the file ends with the SHA-256 of the rest, as a complete library does."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    digest = hashlib.sha256().digest_size
    return len(content) > digest and hashlib.sha256(content[:-digest]).digest() == content[-digest:]


def _key(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass"))
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _remove_abandoned(folder: Path) -> None:
    """Delete temporary files of processes that were killed while compiling."""
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 10 * _COMPILE_SECONDS:
                path.unlink()


def _compile(command: tuple[str, ...], path: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    os.close(descriptor)
    part = Path(name)
    try:
        _run((*command, "-o", name), _COMPILE_SECONDS)
        library = part.read_bytes() if part.exists() else b""
        if not library:
            raise KernelError(f"the compiler {command[0]} wrote no library")
        # Loaders ignore what follows the last section.
        part.write_bytes(library + hashlib.sha256(library).digest())
        part.chmod(0o700)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _run(command: tuple[str, ...], seconds: float) -> str:
    """Run a compiler and return what it printed, at most `_MAX_OUTPUT` bytes.

    Raises:
        KernelError: It does not start, fails, exceeds the time limit or prints too much.
    """
    name = command[0]
    try:
        # A process group of its own: a time limit also has to end what a wrapper script started.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise KernelError(f"cannot run the compiler {name}: {error}") from error
    expired = threading.Event()

    def end() -> None:
        expired.set()
        _kill_group(process)

    timer = threading.Timer(seconds, end)
    with process:
        timer.start()
        try:
            assert process.stdout is not None
            printed = process.stdout.read(_MAX_OUTPUT)
            if len(printed) < _MAX_OUTPUT:
                process.wait()
        finally:
            timer.cancel()
            _kill_group(process)
    text = printed.decode(errors="replace").strip()
    if expired.is_set():
        raise KernelError(f"the compiler {name} did not finish within {seconds:g} seconds")
    if len(printed) == _MAX_OUTPUT:
        raise KernelError(f"the compiler {name} printed more than {_MAX_OUTPUT >> 20} MiB")
    if process.returncode:
        lines = [line for line in text.splitlines() if line.strip()]
        lines = lines or [f"exit status {process.returncode}"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise KernelError(f"the compiler {name} failed: {reason[:300]}")
    return text


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":  # has no process groups
        process.kill()
        return
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
