"""New processes: they compile once, fall back to torch, and train together."""

from __future__ import annotations

import mmap
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from vggnet.errors import KernelError
from vggnet.kernels import KernelStatus, accelerate, build, status
from vggnet.kernels.build import FLAGS, find_compiler, is_intact
from vggnet.kernels.library import Library
from vggnet.kernels.loading import check_library, find_processor, load_library, openmp_runtimes
from vggnet.kernels.network import AcceleratedNetwork

from .small import Network, use_kernels

Start = Callable[..., Callable[[], Any]]


def widest() -> Library:
    """Return the library for this machine's widest vectors."""
    return load_library(find_processor().widths[0])


def write_script(path: Path, *lines: str) -> str:
    """Write a shell script and return its path."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o700)
    return str(path)


@pytest.fixture(scope="module")
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compiler that copies the library compiled for this session, and notes each time."""
    folder = tmp_path_factory.mktemp("compiler")
    library = widest().build.path
    return write_script(
        folder / "compiler",
        'case "$*" in *--version) echo "copying compiler 1"; exit;; esac',
        f"echo compiled >> {folder}/notes; sleep 0.2",
        'while [ "$1" != -o ]; do shift; done',
        f'cp {library} "$2"',
    )


def notes(compiler: str) -> int:
    """Count how often the quick compiler was used since the last call."""
    file = Path(compiler).with_name("notes")
    text = file.read_text() if file.exists() else ""
    file.write_text("")
    return text.count("compiled")


def test_eight_processes_compile_once(tmp_path: Path, start: Start, quick_compiler: str) -> None:
    """Eight processes at once on an empty cache run the compiler once; a ninth not at all."""
    notes(quick_compiler)
    cache = tmp_path / "cache"
    waiting = [start(status, cache=cache, CXX=quick_compiler) for _ in range(8)]
    found = [wait() for wait in waiting]
    assert {one.in_use for one in found} == {"winograd"}
    assert [one.seconds_to_compile > 0 for one in found].count(True) == 1
    assert len({one.cache_path for one in found}) == 1
    late = start(status, cache=cache, CXX=quick_compiler)()
    assert (late.seconds_to_compile, late.cache_path) == (0.0, found[0].cache_path)
    assert notes(quick_compiler) == 1
    # No partial file is left, and only this user may write.
    (folder,) = cache.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".so", ".lock"}


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_a_damaged_library_is_not_loaded(tmp_path: Path, damage: str) -> None:
    """The hash of a cached file detects any change."""
    whole = widest().build.path.read_bytes()
    path = tmp_path / "library.so"
    path.write_bytes(whole)
    assert is_intact(path)
    path.write_bytes({
        "truncated": whole[: len(whole) // 2],
        "overwritten": whole[:5000] + b"\0" * 64 + whole[5064:],
        "empty": b"",
    }[damage])  # fmt: skip
    assert not is_intact(path)


def test_a_damaged_library_is_compiled_again(
    tmp_path: Path, start: Start, quick_compiler: str
) -> None:
    """A process that finds a damaged file replaces it."""
    path = start(status, cache=tmp_path, CXX=quick_compiler)().cache_path
    path.write_bytes(path.read_bytes()[:9000])
    found = start(status, cache=tmp_path, CXX=quick_compiler)()
    assert (found.in_use, found.cache_path) == ("winograd", path)
    assert found.seconds_to_compile > 0
    assert is_intact(path)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PATH": "/nowhere", "CXX": ""}, "install g++"),
        ({"CXX": "no-such-compiler"}, "CXX is 'no-such-compiler'"),
        ({"CXX": "false"}, "the compiler false failed"),
    ],
)
def test_the_reason_names_the_compiler(
    tmp_path: Path, start: Start, environment: dict[str, str], reason: str
) -> None:
    """Without a working compiler torch is used, and the status says what to do."""
    found: KernelStatus = start(status, cache=tmp_path, **environment)()
    assert found.in_use == "torch"
    assert reason in found.reason


# Ways in which a compiler fails: what it prints, how it ends, and what it leaves as a library.
PRINT = {
    "nothing": "",
    "spaces": "printf '  \\n \\n'",
    "not UTF-8": "printf 'error \\377\\376\\033[31m\\n' >&2",
    "text": "echo 'g++ 1'",
    "without end": "yes error",
}
END = {"success": "exit 0", "failure": "exit 3", "signal": "kill -9 $$"}
LEAVE = {
    "nothing": "",
    "no file": 'rm "$out"',
    "text": 'echo "int main() {}" > "$out"',
    "a program": 'cp /bin/sh "$out"',
    "another library": 'cp LIBRARY "$out"',
}


@pytest.fixture(scope="module")
def another_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library without the kernels."""
    source = tmp_path_factory.mktemp("another") / "another.cpp"
    source.write_text("int nothing() { return 0; }")
    build._run((*find_compiler().command, "-shared", str(source), "-o", f"{source}.so"), 60)
    return source.with_suffix(".cpp.so")


# Each example starts a process, and the failures of a compiler have few kinds.
@settings(max_examples=40)
@given(
    version=st.tuples(st.sampled_from(sorted(PRINT)), st.sampled_from(sorted(END))),
    compiling=st.tuples(
        st.sampled_from(sorted(PRINT)), st.sampled_from(sorted(LEAVE)), st.sampled_from(sorted(END))
    ),
)
def test_any_failure_of_a_compiler_means_torch(
    tmp_path_factory: pytest.TempPathFactory, start: Start, another_library: Path,
    version: tuple[str, str], compiling: tuple[str, str, str],
) -> None:  # fmt: skip
    """Whatever a compiler prints, writes and returns, torch is used, with one message."""
    folder = tmp_path_factory.mktemp("failing")
    output, left, end = compiling
    compiler = write_script(
        folder / "compiler",
        f'case "$*" in *--version) {PRINT[version[0]]}\n{END[version[1]]};; esac',
        'while [ "$1" != -o ]; do shift; done; out=$2',
        PRINT[output],
        LEAVE[left].replace("LIBRARY", str(another_library)),
        END[end],
    )
    check_fallback(start, folder, compiler)


@settings(max_examples=20)
@given(st.text(alphabet="\"'\\ \t\n~/.$-=äß\x7f", min_size=1, max_size=12))
def test_any_text_in_cxx_means_torch(
    tmp_path_factory: pytest.TempPathFactory, start: Start, command: str
) -> None:
    """CXX may have unbalanced quotes or name a folder: torch is used, with one message."""
    check_fallback(start, tmp_path_factory.mktemp("text"), command)


def check_fallback(start: Start, cache: Path, compiler: str) -> None:
    """Check that two networks are torch's, and that one message says why."""
    kernels, messages = start(use_kernels, 2, cache=cache, CXX=compiler)()
    assert kernels == "torch"
    (message,) = messages
    assert message.startswith("compiled kernels unavailable: ")
    assert message.endswith("; training takes about 2.3 times as long")
    assert message.isprintable()
    assert not list(cache.glob("kernels/*.tmp"))


def limit_compiler(seconds: float) -> tuple[str, list[str]]:
    """Use the kernels with a time limit for the compiler."""
    build._VERSION_SECONDS = seconds
    return use_kernels()


def test_a_compiler_that_hangs_is_ended(tmp_path: Path, start: Start) -> None:
    """A compiler that does not end is killed with all that it started."""
    script = f"sleep 1000 & echo $! > {tmp_path}/started; wait"
    compiler = write_script(tmp_path / "compiler", script)
    kernels, (message,) = start(limit_compiler, 1.0, cache=tmp_path, CXX=compiler)()
    assert kernels == "torch"
    assert "did not finish within 1 seconds" in message
    process = Path(f"/proc/{(tmp_path / 'started').read_text().strip()}/stat")
    # Killed; whoever inherits it may take a moment to reap it.
    assert not process.exists() or process.read_text().split()[2] == "Z"


def test_a_compiler_without_version_is_used(
    tmp_path: Path, start: Start, quick_compiler: str
) -> None:
    """An empty or unreadable `--version` does not matter if the library is right."""
    for name, version in (("empty", ""), ("not UTF-8", "printf 'g++ \\377\\376\\n'")):
        compiler = write_script(
            tmp_path / name.replace(" ", "-"),
            f'case "$*" in *--version) {version}\nexit;; esac',
            f'exec {quick_compiler} "$@"',
        )
        assert start(use_kernels, cache=tmp_path, CXX=compiler)() == ("winograd", [])


def map_and_use(path: bytes) -> tuple[str, list[str]]:
    """Use the kernels in a process that has mapped a file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):  # noqa: PTH123
        return use_kernels()


def test_mapped_files_may_have_any_name(tmp_path: Path, start: Start, quick_compiler: str) -> None:
    """A file whose name is not UTF-8, mapped by the process, does not disturb the kernels."""
    path = os.fsencode(tmp_path) + b"/libr\xff\xfe.so"
    with open(path, "wb") as file:  # noqa: PTH123 - a name in bytes
        file.write(b"content")
    assert start(map_and_use, path, cache=tmp_path, CXX=quick_compiler)() == ("winograd", [])


def test_files_of_killed_processes_are_deleted(
    tmp_path: Path, start: Start, quick_compiler: str
) -> None:
    """A temporary file older than any compilation goes; a newer one may be in use and stays."""
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    old, new = folder / "winograd-8-1.tmp", folder / "winograd-8-2.tmp"
    for file, age in ((old, 3600), (new, 5)):
        file.write_bytes(b"half a library")
        os.utime(file, (time.time() - age,) * 2)
    assert start(status, cache=tmp_path, CXX=quick_compiler)().in_use == "winograd"
    assert not old.exists()
    assert new.exists()


def test_a_failure_is_final(tmp_path: Path, start: Start) -> None:
    """A process asks a failing compiler once: training and validation use the same kernels."""
    compiler = write_script(
        tmp_path / "compiler",
        'case "$*" in *--version) echo "failing compiler 1"; exit;; esac',
        f"echo compiled >> {tmp_path}/notes; exit 1",
    )
    kernels, messages = start(use_kernels, 3, cache=tmp_path, CXX=compiler)()
    assert (kernels, len(messages)) == ("torch", 1)
    assert notes(compiler) == 1


def insist() -> str:
    """Ask for the kernels and nothing else."""
    try:
        accelerate(Network(), "winograd")
    except KernelError as error:
        return str(error)
    return "no error"


def test_insisting_without_a_compiler_is_an_error(tmp_path: Path, start: Start) -> None:
    """Mode "winograd" raises KernelError where "auto" falls back."""
    assert "CXX" in start(insist, cache=tmp_path, CXX="no-such-compiler")()


@pytest.mark.parametrize("modes", [(0o777, 0o700), (0o700, 0o777)], ids=["cache", "kernels"])
def test_a_folder_that_others_may_change_is_not_used(
    tmp_path: Path, start: Start, quick_compiler: str, modes: tuple[int, int]
) -> None:
    """A library in such a folder could be anyone's: a temporary folder is used instead."""
    cache = tmp_path / "cache"
    (cache / "kernels").mkdir(parents=True)
    cache.chmod(modes[0])
    (cache / "kernels").chmod(modes[1])
    found = start(status, cache=cache, CXX=quick_compiler)()
    assert found.in_use == "winograd"
    assert not found.cache_path.is_relative_to(cache)
    assert not list((cache / "kernels").iterdir())


def test_a_sticky_folder_is_used(tmp_path: Path, start: Start, quick_compiler: str) -> None:
    """In a folder such as /tmp only owners can rename, so a private folder in it is safe."""
    tmp_path.chmod(0o1777)
    found = start(status, cache=tmp_path, CXX=quick_compiler)()
    assert found.cache_path.is_relative_to(tmp_path)


def test_a_cache_that_cannot_be_written_means_torch(
    tmp_path: Path, start: Start, quick_compiler: str
) -> None:
    """If the library cannot be locked or stored, the status says where to store it."""
    path = start(status, cache=tmp_path, CXX=quick_compiler)().cache_path
    path.with_suffix(".lock").unlink()
    path.with_suffix(".lock").mkdir()
    path.unlink()
    found = start(status, cache=tmp_path, CXX=quick_compiler)()
    assert found.in_use == "torch"
    assert "set VGGNET_CACHE_DIR to a folder with free space" in found.reason


def count_runtimes() -> tuple[str, list[Path]]:
    """Use the kernels; return the OpenMP runtimes loaded."""
    return use_kernels()[0], openmp_runtimes()


def test_one_openmp_runtime(start: Start) -> None:
    """The kernels share torch's OpenMP: a process that uses both has loaded one runtime."""
    kernels, (runtime,) = start(count_runtimes)()
    assert kernels == "winograd"
    assert "torch" in str(runtime)


def test_no_fast_math() -> None:
    """The flags do not include -ffast-math, and denormals still work after loading."""
    assert not any("fast-math" in flag or flag == "-Ofast" for flag in FLAGS)
    widest()
    assert (torch.tensor([1e-40]) * 0.5).item() > 0


def test_the_self_test_detects_a_wrong_kernel() -> None:
    """A library that reads the weights in the wrong order fails the self-test."""

    class Wrong(Library):
        def forward(self, images, weight, bias, activation):  # type: ignore[no-untyped-def]
            return super().forward(images, weight.flip(2), bias, activation)

    good = widest()
    with pytest.raises(KernelError, match="something else than torch"):
        check_library(Wrong(good.build, good.lanes))


def train_rank(rank: int, rendezvous: str) -> list[torch.Tensor]:
    """Compute a rank's gradients under DistributedDataParallel with half of a batch."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2
    )
    torch.manual_seed(rank)  # DDP has to copy rank 0's parameters to rank 1
    network = Network()
    module = DistributedDataParallel(accelerate(network, "winograd"))
    images, labels = batch()
    half = slice(4 * rank, 4 * rank + 4)
    torch.nn.functional.cross_entropy(module(images[half]), labels[half]).backward()
    found = [parameter.grad.numpy() for parameter in network.parameters()]
    torch.distributed.destroy_process_group()
    return found


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return eight images and labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 12, 12, generator=generator), torch.arange(8)


def test_two_ranks_average_their_gradients(tmp_path: Path, start: Start) -> None:
    """Under DDP, two ranks with half a batch each get the gradients of the whole batch."""
    waiting = [start(train_rank, rank, str(tmp_path / "rendezvous")) for rank in (0, 1)]
    torch.manual_seed(0)
    network = Network()
    images, labels = batch()
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    for wait in waiting:
        for gradient, parameter in zip(wait(), network.parameters(), strict=True):
            torch.testing.assert_close(
                torch.from_numpy(gradient), parameter.grad, rtol=1e-3, atol=1e-5
            )


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")
def test_a_forked_child_computes() -> None:
    """After a fork, without OpenMP's threads, the child computes the same and ends."""
    torch.set_num_threads(2)
    network = accelerate(Network(), "winograd").eval()
    assert isinstance(network, AcceleratedNetwork)
    images = torch.randn(3, 1, 12, 12)

    def convolve() -> torch.Tensor:
        """Compute the convolutions; torch's own linear layers may hang in the child."""
        maps = images
        for step in network.steps:
            maps = step(maps)
        return maps

    with torch.no_grad():
        expected = convolve()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a hang ends with a signal
            os._exit(0 if torch.allclose(convolve(), expected, rtol=1e-4, atol=1e-4) else 1)
    assert os.waitpid(child, 0)[1] == 0
