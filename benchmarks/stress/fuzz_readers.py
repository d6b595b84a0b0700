"""Feed mutated files to vggnet's readers: none may crash one, hang it, or fill the memory.

    pip install atheris
    python benchmarks/stress/fuzz_readers.py --reader images --seconds 600

Atheris (libFuzzer for Python) mutates small valid files, guided by the lines of vggnet and Pillow
that a case reaches. Half of the mutations keep the structure: they change one chunk of a PNG, one
entry of a zip or npz or .pth, what a gzip file packs, or the header of a safetensors file, and
repair lengths and checksums. A process runs cases until one of them fails: by an exception that
is not one of vggnet's errors, more than `--case-seconds`, or more than `MEMORY_MIB`. Then the
file is kept, and the next process continues.

Readers: images (the server's), idx, csv, npz, zip (of class folders), models, checkpoints. Each
result is a row of `--output`; the exit code is 1 if any case failed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import mmap
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

sys.path.append(str(Path(__file__).parents[1]))
from measuring import build_parser, render_machine, write_report

from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import load_model, save_model
from vggnet.config import Config, ModelConfig, TrainConfig
from vggnet.data.decode import decode_image
from vggnet.data.memory import MemoryBudget
from vggnet.data.storage import load_dataset
from vggnet.engine.fit import TrainState, build_state
from vggnet.engine.session import Session
from vggnet.engine.snapshot import Snapshot, restore_snapshot, take_snapshot
from vggnet.errors import CheckpointError, VggnetError
from vggnet.model.vgg import build_network
from vggnet.run.checkpointing import History
from vggnet.run.resume import load_checkpoint
from vggnet.serve.limits import Limits

LIMITS = Limits()
MEMORY_MIB = 1536
"""Above what the process has when it starts; the server allows 512 for an image."""
SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4,), num_classes=3, image_size=8)
CASE_SECONDS = 60
"""Real time, on a machine that may be busy; the slowest case is in the report."""
HERE = Path(__file__).parent
CHILD = """
import sys, atheris
with atheris.instrument_imports(include=["vggnet", "PIL"]):
    import fuzz_readers
_, reader, counters, *arguments = sys.argv
fuzz_readers.run_cases(reader, fuzz_readers.Counters(fuzz_readers.Path(counters)), arguments)
"""
PNG_START = b"\x89PNG\r\n\x1a\n"

Unpacked = tuple[list[bytes], Callable[[list[bytes]], bytes]]
"""Parts of a file, and what makes a file of such parts."""


def read_image(data: bytes, folder: Path) -> None:
    """Decode an image within the server's limits."""
    budget = MemoryBudget(LIMITS.worker_bytes // 2)
    decode_image(data, max_pixels=LIMITS.pixels, side=28, budget=budget)


def read_file(name: str) -> Callable[[bytes, Path], None]:
    """Return a function that loads a file of some name as a dataset."""

    def read(data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)
        load_dataset(folder / name, cache=False)

    return read


def read_pair(data: bytes, folder: Path) -> None:
    """Load IDX files; the data are the labels if they say so, else the images."""
    given = {"train-images-idx3-ubyte": idx((4, 3, 3)), "train-labels-idx1-ubyte": idx((4,))}
    raw = data
    with suppress(OSError, EOFError, zlib.error):
        raw = gzip.GzipFile(fileobj=io.BytesIO(data)).read(4)
    given[list(given)[raw[3:4] == b"\1"]] = data
    for name, content in given.items():
        (folder / name).write_bytes(content)
    load_dataset(folder, cache=False)


def read_model(data: bytes, folder: Path) -> None:
    """Load a model file."""
    (folder / "model.pth").write_bytes(data)
    load_model(folder / "model.pth")


def read_checkpoint(data: bytes, folder: Path) -> None:
    """Restore a checkpoint whose manifest matches it, whatever it holds."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    state = checkpoints / "step-0000000001.safetensors"
    state.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    manifest = {"format": 1, "file": state.name, "bytes": len(data), "sha256": sha256}
    state.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n")
    checkpoint = load_checkpoint(folder, lambda warning: None)
    record, tensors = checkpoint.record, dict(checkpoint.tensors)
    try:  # as vggnet.run.resume.restore does
        History.from_checkpoint(tensors.pop("history", torch.empty(0)), record.epochs)
        restore_snapshot(make_state(), Snapshot(tensors, record.model_dump()))
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(str(error)) from None


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "images": read_image,
    "idx": read_pair,
    "csv": read_file("train.csv"),
    "npz": read_file("data.npz"),
    "zip": read_file("data.zip"),
    "models": read_model,
    "checkpoints": read_checkpoint,
}


def make_state() -> TrainState:
    """Return the state of a training of a small network."""
    config = TrainConfig(kernels="torch")
    return build_state(build_network(SMALL, 0), config, torch.device("cpu"), Session())


def idx(shape: tuple[int, ...]) -> bytes:
    """Return an IDX file."""
    values = np.arange(np.prod(shape), dtype=np.uint8) % 2
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + values.tobytes()


def zipped(entries: dict[str, bytes], packed: bool = False) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else 0) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def image_seeds() -> list[bytes]:
    """Small images of every format and mode that is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    whole = Image.fromarray(pixels, "RGBA")
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *(("PNG", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "I;16")),
        *(("TIFF", "L", {"compression": one}) for one in ("raw", "tiff_lzw", "packbits")),
        *(("TIFF", mode, {}) for mode in ("RGBA", "F", "I;16")),
        *(("JPEG", "RGB", {"progressive": one}) for one in (False, True)),
        *(("JPEG", mode, {}) for mode in ("L", "CMYK")),
        *(("WEBP", "RGBA", {"lossless": one}) for one in (False, True)),
        *(("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "1", {})),
        *(("PPM", mode, {}) for mode in ("1", "L", "RGB")),
    ]
    seeds = []
    for kind, mode, options in kinds:
        file = io.BytesIO()
        grey = whole.convert("L")
        image = Image.new(mode, grey.size, 7) if mode == "I;16" else whole.convert(mode)
        image.save(file, kind, **options)
        seeds.append(file.getvalue())
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        file = io.BytesIO()
        frames = [whole.convert("L").rotate(90 * turn) for turn in range(3)]
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {} if kind == "GIF" else {"exif": exif}
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
        seeds.append(file.getvalue())
    return seeds


def array_seeds() -> list[bytes]:
    """NumPy archives under several names."""
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5), np.uint8)
    labels = np.array([0, 1] * 3)
    variants: list[dict[str, Any]] = [
        {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels},
        {"images": images[..., None].repeat(3, 3), "labels": labels[:, None]},
        {"data": images.reshape(6, 25) / 255.0, "target": labels.astype(str)},
        {"train_images": images.astype("f4") / 255, "train_labels": labels.astype("u1")},
    ]
    seeds = []
    for arrays in variants:
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)
            seeds.append(file.getvalue())
    return seeds


def folder_seeds() -> list[bytes]:
    """Zip archives of class folders, with and without splits."""
    png, gif = image_seeds()[1], image_seeds()[16]
    plain = {f"{one}/{n}.png": png for one in ("cat", "dog") for n in range(3)}
    split = {f"{part}/{one}/1.gif": gif for part in ("train", "test") for one in ("0", "1", "10")}
    odd = {"./a//1.png": png, "a\\2.png": png, "b/": b"", "b/1.png": gif, "b/.x/y": b"", "é/1": png}
    return [zipped(plain), zipped(split, packed=True), zipped(odd), zipped({"top/" + k: v for k, v
            in plain.items()}, packed=True)]  # fmt: skip


def table_seeds() -> list[bytes]:
    """CSV files with and without header, several separators, numbers or names as labels."""
    rows = [[n % 2, *[(n * k) % 256 for k in range(16)]] for n in range(6)]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    header = "label," + ",".join(f"pixel{n}" for n in range(16))
    named = text.replace("\n1,", "\ndog,").replace("\n0,", '\n"the cat",')
    seeds = [text, f"{header}\n{text}\n", f"{header}\r\n" + text.replace("\n", "\r\n")]
    seeds += [text.replace(",", "\t"), text.replace(",", ";"), "\ufeff" + text, named]
    return [seed.encode() for seed in seeds]


def model_seeds() -> list[bytes]:
    """Model files of all formats that are read, ours and others'."""
    network = build_network(SMALL, 0)
    card = ModelCard(classes=("a", "b", "c"), image_shape=(1, 8, 8))
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".pth", ".safetensors"):
            save_model(Path(folder, f"m{suffix}"), network, card)
            seeds.append(Path(folder, f"m{suffix}").read_bytes())
    state = network.state_dict()
    objects: list[Any] = [OrderedDict(state), {"state_dict": dict(state), "epoch": 3, "acc": 0.5}]
    for saved in objects:
        for zip_format in (True, False):
            file = io.BytesIO()
            torch.save(saved, file, _use_new_zipfile_serialization=zip_format)
            seeds.append(file.getvalue())
    return seeds


def checkpoint_seeds() -> list[bytes]:
    """Checkpoints: without an epoch, and after one."""
    state = make_state()
    for parameter in state.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    snapshot = take_snapshot(state)
    config = Config(model=SMALL).model_dump(mode="json")
    start = {
        **snapshot.values,
        **{"config": config, "dataset_sha256": "0" * 64, "output": "m.pth", "epochs": []},
        "circumstances": {"processes": 1, "threads": 1, "device": "cpu"},
    }
    score = {"epoch": 1.0, "step": 2, "images": 9, "loss": 0.5, "accuracy": 0.5, "lr": 0.1}
    epoch = {**score, "seconds": 1.0, "validation": None}
    history = torch.zeros(2, 2, dtype=torch.float64)
    later = {**start, "step": 3, "epochs": [epoch]}
    contents = (
        (start, {"history": history[:0]}),
        (later, {"history": history, "sums": torch.zeros(1, 2)}),
    )
    return [
        save_safetensors({**snapshot.tensors, **tensors}, {"vggnet": json.dumps(values)})
        for values, tensors in contents
    ]


def build_seeds(reader: str) -> list[bytes]:
    """Return small valid files for a reader."""
    both = [idx((4, 3, 3)), idx((4,))]
    builders: dict[str, Callable[[], list[bytes]]] = {
        "images": image_seeds,
        "idx": lambda: [*both, *map(gzip.compress, both)],
        "csv": lambda: [*table_seeds(), gzip.compress(table_seeds()[0])],
        "npz": array_seeds,
        "zip": folder_seeds,
        "models": model_seeds,
        "checkpoints": checkpoint_seeds,
    }
    return builders[reader]()


def unpack(data: bytes) -> Unpacked | None:
    """Take a file apart whose parts have lengths and checksums; None for any other."""
    if data[:2] == b"PK":
        return _unpack_zip(data)
    if data[:8] == PNG_START:
        return _unpack_png(data)
    if data[:2] == b"\x1f\x8b":
        return [gzip.decompress(data)], lambda parts: gzip.compress(b"".join(parts), 1)
    if data[8:9] == b"{":
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        texts = [json.dumps(value).encode() for pair in header.items() for value in pair]
        return [*texts, data[end:]], _pack_safetensors
    return None


def _pack_safetensors(parts: list[bytes]) -> bytes:
    *texts, values = parts
    pairs = zip(texts[::2], texts[1::2], strict=False)
    header = b"{" + b",".join(b"%s:%s" % pair for pair in pairs) + b"}"
    return len(header).to_bytes(8, "little") + header + values


def _unpack_zip(data: bytes) -> Unpacked:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size < 100_000]
        packed = any(entry.compress_type for entry in entries)
        contents = [archive.read(entry) for entry in entries]
    names = [entry.filename.encode("utf-8", "replace") for entry in entries]

    def pack(parts: list[bytes]) -> bytes:
        given = {
            name.decode("utf-8", "replace"): content
            for name, content in zip(parts[::2], parts[1::2], strict=False)
        }
        return zipped(given, packed)

    return [part for pair in zip(names, contents, strict=True) for part in pair], pack


def _unpack_png(data: bytes) -> Unpacked:
    parts, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        with suppress(zlib.error):
            content = (
                zlib.decompressobj().decompress(content, 1 << 16) if kind == b"IDAT" else content
            )
        parts.append(kind + content)
        at += 12 + length

    def pack(parts: list[bytes]) -> bytes:
        whole = [PNG_START]
        for part in parts:
            kind, content = part[:4], part[4:]
            content = zlib.compress(content, 1) if kind == b"IDAT" else content
            crc = zlib.crc32(kind + content)
            whole.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc))
        return b"".join(whole)

    return parts, pack


def build_mutator(change: Callable[[bytes, int], bytes]) -> Callable[[bytes, int, int], bytes]:
    """Return a mutator for Atheris: half of the time within the file's structure."""

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        unpacked = None
        if rng.random() < 0.6:
            with suppress(Exception):  # a file that an earlier mutation broke
                unpacked = unpack(data)
        if unpacked is None or not unpacked[0]:
            return change(data, longest)
        parts, pack = unpacked
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        action = rng.randrange(10)
        if action == 0:
            parts[at], parts[other] = parts[other], parts[at]
        elif action == 1:
            parts.insert(at, parts[other])
        elif action == 2 and len(parts) > 1:
            del parts[at]
        else:
            parts[at] = change(parts[at], len(parts[at]) + 40)
        with suppress(Exception):
            return pack(parts)[:longest]
        return change(data, longest)

    return mutate


class Counters:
    """Numbers that a process that dies leaves behind.

    Args:
        path: A file that holds them.
    """

    NAMES = ("accepted", "refused", "peak_mib", "slowest_ms")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8 * len(self.NAMES)))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)
        self.values = np.frombuffer(self._shared, np.int64)

    def as_dict(self) -> dict[str, int]:
        """Return the numbers by name."""
        return dict(zip(self.NAMES, self.values.tolist(), strict=True))


def run_cases(reader: str, counters: Counters, arguments: list[str]) -> None:
    """Run cases in this process until one fails, or the time is up."""
    import resource

    import atheris

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + (MEMORY_MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    folder = Path(tempfile.mkdtemp(dir=os.environ["FUZZ_FOLDER"]))
    read, values = READERS[reader], counters.values

    def run(data: bytes) -> None:
        started = time.perf_counter()
        try:
            read(data, folder)
            values[0] += 1
        except VggnetError:
            values[1] += 1
        values[2] = max(values[2], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
        values[3] = max(values[3], round(1000 * (time.perf_counter() - started)))

    logging.disable()
    warnings.simplefilter("ignore")

    def change(data: bytes, longest: int) -> bytes:
        return bytes(atheris.Mutate(data, longest))  # another function once `Fuzz` runs

    atheris.Setup([sys.argv[0], *arguments], run, custom_mutator=build_mutator(change))
    atheris.Fuzz()


def fuzz(reader: str, seconds: int, case_seconds: int, kept: Path) -> dict[str, Any]:
    """Run cases for some time, in one process after the other.

    Args:
        reader: Its name.
        seconds: How long.
        case_seconds: Of one case; longer is a hang.
        kept: Folder for files that fail, and for the corpus; a later run continues it.
    """
    corpus, failed = kept / "corpus", kept / "failed"
    for folder in (corpus, failed):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(build_seeds(reader)):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    failures: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch:
        counters = Path(scratch, "counters")
        values = Counters(counters)
        environment = {**os.environ, "FUZZ_FOLDER": scratch, "OMP_NUM_THREADS": "1"}
        while (left := round(end - time.monotonic())) > 0:
            done = subprocess.run(
                [
                    *(sys.executable, "-c", CHILD, reader, str(counters), str(corpus)),
                    *(f"-max_total_time={left}", f"-timeout={case_seconds}", "-max_len=100000"),
                    *("-rss_limit_mb=0", f"-artifact_prefix={failed}/", "-print_final_stats=0"),
                ],
                env=environment | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
                stderr=subprocess.PIPE,
                check=False,
            )
            if done.returncode:
                failures[
                    describe_failure(done.returncode, done.stderr.decode(errors="replace"))
                ] += 1
        return {
            **values.as_dict(),
            "corpus": len(list(corpus.iterdir())),
            "failures": dict(failures),
        }


def describe_failure(code: int, log: str) -> str:
    """Return why a process ended, in one line."""
    if code == 70:
        kind, pattern = "hang", r'File ".*?vggnet/(.*?)", line (\d+)'
    else:
        kind, pattern = f"crash (exit code {code})", r'File ".*?vggnet/(.*?)", line (\d+)'
    places = re.findall(pattern, log)
    raised = re.findall(r"(?m)^(\w[\w.]*(?:Error|Exception|Interrupt)\b.*)$", log)
    reason = (raised or log.strip().splitlines()[-1:] or [""])[-1][:200]
    where = f" at {places[-1][0]}:{places[-1][1]}" if places else ""
    return f"{kind}: {reason}{where}"


def render(results: dict[str, dict[str, Any]]) -> str:
    """Render the results of all readers as a Markdown page."""
    rows = "\n".join(
        f"| {reader} | {one['seconds']} | {one['accepted'] + one['refused']:,} | "
        f"{one['accepted']:,} | {one['refused']:,} | {sum(one['failures'].values())} | "
        f"{one['slowest_ms']:,} | {one['peak_mib']:,} | {one['corpus']:,} |"
        for reader, one in results.items()
    )
    failures = "".join(
        f"- {reader}: {reason} ({count} times)\n"
        for reader, one in results.items()
        for reason, count in one["failures"].items()
    )
    return f"""# Mutated files

What vggnet's readers make of files that Atheris mutates, guided by coverage. "Refused" is one of
vggnet's own errors. "Failed" is any other exception, a case longer than {CASE_SECONDS} s, or memory
beyond {MEMORY_MIB:,} MiB above the start. The peak includes PyTorch and the instrumentation.

| reader | seconds | cases | accepted | refused | failed | slowest, ms | peak MiB | corpus |
|---|---|---|---|---|---|---|---|---|
{rows}

{failures or "No case failed."}

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--reader", choices=READERS, help="default: all, one after the other")
    parser.add_argument("--seconds", type=int, default=600, help="for each reader")
    parser.add_argument("--kept", type=Path, default=Path("fuzz"), help="corpora, failed files")
    options = parser.parse_args()
    record = options.output and options.output.with_suffix(".json")
    known = json.loads(record.read_text())["readers"] if record and record.exists() else {}
    results = {}
    for reader in [options.reader] if options.reader else READERS:
        found = fuzz(reader, options.seconds, CASE_SECONDS, options.kept / reader)
        results[reader] = {"seconds": options.seconds, **found}
        ordered = {one: both[one] for one in READERS if one in (both := known | results)}
        write_report(options.output, render(ordered), {"readers": ordered})
    sys.exit(any(one["failures"] for one in results.values()))


if __name__ == "__main__":
    main()
