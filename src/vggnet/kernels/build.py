"""Compile the kernels for this machine, once, into the user's cache folder.

A library is keyed by everything that decides its bytes: sources, flags, compiler, CPU.
It is written beside its place and renamed, and ends in its own SHA-256, so that a
library cut short is compiled again and never loaded.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from vggnet.data.lock import one_at_a_time
from vggnet.errors import KernelError

SOURCE = Path(__file__).parent / "source"

# -ffp-contract=fast lets a * b + c become one instruction and nothing else. -ffast-math must
# never stand here: it breaks NaN, and linking with it turns denormals off in the whole process.
FLAGS = (
    "-std=c++17",
    "-O2",
    "-march=native",
    "-ffp-contract=fast",
    "-fopenmp",
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
    "-Wno-psabi",
)

# vgg-mini's kernels take 3 s on two Zen 4 cores; twenty times that is a compiler that hangs.
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its command and what it says of itself."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Build:
    """A compiled library."""

    path: Path
    compiler: Compiler
    seconds: float
    """Time that compiling took in this process; 0.0 if it was found in the cache."""


@cache
def find_compiler() -> Compiler:
    """Find a C++ compiler: what CXX names, else g++, c++ or clang++.

    Raises:
        KernelError: There is none, or it does not run.
    """
    chosen = os.environ.get("CXX")
    commands = [tuple(shlex.split(chosen))] if chosen else [("g++",), ("c++",), ("clang++",)]
    for command in commands:
        if command and shutil.which(command[0]):
            return Compiler(command, _run((*command, "--version")).splitlines()[0])
    raise KernelError(
        f"CXX names {chosen!r}, which is not a program; set it to a C++ compiler or unset it"
        if chosen
        else "no C++ compiler was found; install g++ (Debian: apt install g++) or set CXX"
    )


def build_library(lanes: int, cpu: str, openmp: Path | None) -> Build:
    """Return the library for vectors of `lanes` floats, compiled now or earlier.

    Args:
        lanes: Floats in a vector: 8 for AVX2, 16 for AVX-512.
        cpu: What `-march=native` depends on, part of the cache's key.
        openmp: The OpenMP runtime that torch has loaded, to link with that one.

    Raises:
        KernelError: There is no compiler, or it fails.
    """
    compiler = find_compiler()
    flags = (*FLAGS, f"-DVGGNET_LANES={lanes}")
    key = _key(compiler, flags, cpu, openmp.name if openmp else "")
    try:
        return _find_or_compile(compiler, flags, openmp, cache_folder(), f"winograd-{lanes}-{key}")
    except OSError as error:
        raise KernelError(
            f"the compiled kernels have no place: {error.strerror or error}; "
            "set VGGNET_CACHE_DIR to a folder with room"
        ) from error


def _find_or_compile(
    compiler: Compiler, flags: tuple[str, ...], openmp: Path | None, folder: Path, name: str
) -> Build:
    path = folder / f"{name}.so"
    if is_intact(path):
        return Build(path, compiler, 0.0)
    with one_at_a_time(folder / f"{name}.lock"):
        if is_intact(path):  # another process compiled it meanwhile
            return Build(path, compiler, 0.0)
        started = time.perf_counter()
        _compile(compiler, flags, openmp, path)
        return Build(path, compiler, time.perf_counter() - started)


@cache
def cache_folder() -> Path:
    """Return a folder that only this user can write: what is in it will be run.

    VGGNET_CACHE_DIR names it, else it is the platform's cache folder. Where that cannot
    be had, a temporary folder serves this process alone.

    Raises:
        OSError: Nor can that.
    """
    named = os.environ.get("VGGNET_CACHE_DIR")
    # RuntimeError: the user has no home.
    with contextlib.suppress(OSError, RuntimeError):
        base = Path(named) if named else platformdirs.user_cache_path("vggnet")
        folder = base / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder) and _is_safe_within(base) and os.access(folder, os.W_OK):
            return folder
    temporary = Path(tempfile.mkdtemp(prefix="vggnet-kernels-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _is_private(folder: Path) -> bool:
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others


def _is_safe_within(parent: Path) -> bool:
    """Whether no stranger can put another folder in the place of one that is in it."""
    found = parent.stat()
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.getuid()) and not open_to_all


def is_intact(path: Path) -> bool:
    """Whether the file is a library that was written to its end."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    digest = hashlib.sha256().digest_size
    return len(content) > digest and hashlib.sha256(content[:-digest]).digest() == content[-digest:]


def _key(compiler: Compiler, flags: tuple[str, ...], cpu: str, openmp: str) -> str:
    parts = [*compiler.command, compiler.version, *flags, cpu, openmp]
    parts += [source.read_text() for source in sorted(SOURCE.iterdir())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _compile(compiler: Compiler, flags: tuple[str, ...], openmp: Path | None, path: Path) -> None:
    # --as-needed: with torch's runtime given first, the system's is not linked as well.
    link = ("-Wl,--as-needed", str(openmp)) if openmp else ()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    os.close(descriptor)
    part = Path(name)
    try:
        _run((*compiler.command, *flags, str(SOURCE / "winograd.cpp"), "-o", name, *link))
        library = part.read_bytes()
        # Loaders ignore what follows the last section.
        part.write_bytes(library + hashlib.sha256(library).digest())
        part.chmod(0o700)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _run(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "no message").strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise KernelError(f"the compiler {command[0]} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"the compiler {command[0]} did not run: {error}") from error
    return done.stdout
