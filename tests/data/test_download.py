"""Downloads from a real server on this machine: good ones, and every way in which they go wrong."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Outcome, Start, idx_bytes
from vggnet.data import download
from vggnet.data.catalog import CATALOG
from vggnet.data.known import load_entry
from vggnet.data.published import Archive, CatalogEntry, idx_pair
from vggnet.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 5), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


@dataclass
class Server:
    """A web server; what it answers can be changed while it runs."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    """By path, without the first slash."""
    cut: bool = False
    """Close the connection after half of a file."""
    page: bool = False
    """Answer everything with a web page."""
    stream: tuple[bytes, int] = (b"", 0)
    """Send these bytes this often, without a length."""
    pause: float = 0.0
    """Seconds after each time."""
    claim: int | None = None
    """Claim this length."""
    asked: list[str] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one GET."""
        path = handler.path.lstrip("/")
        self.asked.append(path)
        content = b"<!DOCTYPE html><p>Log in" if self.page else self.files.get(path)
        if content is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        part, times = self.stream
        if not times:
            handler.send_header("Content-Length", str(self.claim or len(content)))
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                handler.wfile.write(part)
                time.sleep(self.pause)
        handler.wfile.write(content[: len(content) // 2] if self.cut else content)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, and a cache folder of this test's own."""
    monkeypatch.setenv("VGGNET_CACHE_DIR", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state = Server(f"http://127.0.0.1:{running.server_port}/")
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def publish(server: Server, name: str) -> CatalogEntry:
    """Put tiny files on the server under a dataset's own names, with their hashes."""
    entry = CATALOG[name]
    splits = []
    for split in (entry.train, entry.test):
        images_file, labels_file = split
        labels = idx_bytes(LABELS + entry.first_label)
        if "idx2-int" in labels_file.name:  # eight columns, the first of which is the class
            table = np.repeat(LABELS[:, np.newaxis].astype(">i4"), 8, axis=1)
            table[:, 1:] = 77
            labels = bytes((0, 0, 12, 2)) + np.array((12, 8), ">u4").tobytes() + table.tobytes()
        packed = [gzip.compress(one, mtime=0) for one in (idx_bytes(IMAGES), labels)]
        for file, content in zip(split, packed, strict=True):
            server.files[f"{file.name}.gz"] = content
        md5 = [hashlib.md5(one).hexdigest() for one in packed]
        splits.append(idx_pair(images_file.name, labels_file.name, None, None, *md5))
    entry = replace(entry, train=splits[0], test=splits[1], mirrors=(server.address,), system=None)
    if not entry.archives:
        return entry
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file, packed_ in server.files.items():
            archive.writestr(f"gzip/{file}", packed_)
    server.files = {"gzip.zip": content.getvalue()}
    digest = hashlib.md5(content.getvalue()).hexdigest()
    return replace(entry, archives=(Archive("gzip.zip", digest, "gzip/"),))


@pytest.mark.parametrize("name", ["kmnist", "qmnist", "emnist-letters", "emnist-balanced"])
def test_published_files_are_downloaded_once(server: Server, name: str) -> None:
    """The files arrive, are verified, and the second time nothing is asked for.

    EMNIST stores images column by column, and its letters begin at label 1; QMNIST's
    labels are a table of int32. All come out upright, labelled from 0.
    """
    entry = publish(server, name)
    found = load_entry(entry)
    upright = IMAGES.transpose(0, 2, 1) if name.startswith("emnist") else IMAGES
    for examples in (found.train, found.test):
        assert (examples.images == upright[:, np.newaxis]).all()
        assert (examples.labels == LABELS).all()
    assert found.verified
    asked = len(server.asked)
    assert asked == len(server.files)
    again = load_entry(entry, download=False)
    assert again.sha256 == found.sha256
    assert len(server.asked) == asked


def test_the_files_stay_in_torchvisions_layout(server: Server, tmp_path: Path) -> None:
    """What was downloaded serves as --data-dir, packed or unpacked."""
    entry = publish(server, "kmnist")
    load_entry(entry)
    raw = tmp_path / "cache" / "datasets" / "KMNIST" / "raw"
    assert load_entry(entry, raw.parents[1], download=False).verified
    for packed in raw.glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert not load_entry(entry, raw.parents[1], download=False).verified


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("hash", "what came is not the published file: its MD5"),
        ("cut", "the connection was cut before the end"),
        ("page", "a web page came instead of the file"),
        ("missing", "the server answered 404"),
        ("dead", "the server cannot be reached"),
    ],
)
def test_a_bad_mirror_is_passed_over(server: Server, tmp_path: Path, harm: str, words: str) -> None:
    """Its fault is said in words and nothing stays on the disk; a good mirror after it serves."""
    entry = publish(server, "kmnist")
    good = server.files
    bad = {name: content[:-1] + b"?" for name, content in good.items()}
    server.files = {f"good/{name}": content for name, content in good.items()}
    server.files |= {f"bad/{name}": content for name, content in bad.items()}
    address = {"missing": f"{server.address}nowhere/", "dead": "http://127.0.0.1:9/"}
    first = address.get(harm, f"{server.address}bad/")
    server.cut, server.page = harm == "cut", harm == "page"
    with pytest.raises(DataError, match=words):
        load_entry(replace(entry, mirrors=(first,)), timeout=0)
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".lock"}
    server.cut = server.page = False
    assert load_entry(replace(entry, mirrors=(first, f"{server.address}good/"))).verified


def test_a_server_that_sends_without_end_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a false length nor none at all fills the disk."""
    entry = publish(server, "kmnist")
    server.claim = 99_999_999_999_999
    with pytest.raises(DataError, match="larger than the 1,073,741,824 bytes"):
        load_entry(entry, timeout=0)
    monkeypatch.setattr(download, "_MOST_BYTES", 1 << 20)  # or the test would send a gigabyte
    server.stream = bytes(1 << 16), 64
    with pytest.raises(DataError, match="larger than the 1,048,576 bytes"):
        load_entry(entry, timeout=0)
    assert {path.suffix for path in (tmp_path / "cache").rglob("*.*")} <= {".lock"}


def test_a_server_that_drips_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte now and then resets no time-out for ever."""
    entry = publish(server, "kmnist")
    monkeypatch.setattr(download, "_GRACE", 0.2)  # or the test would take half a minute
    server.stream, server.pause = (b"x", 60), 0.05
    with pytest.raises(DataError, match=r"the server is too slow: .* bytes per second"):
        load_entry(entry, timeout=0)


@pytest.mark.parametrize(
    "address",
    [
        "http://zoe:se@cret@127.0.0.1:9",
        "http://zoe:se@cret@[::1",
        "ftp://zoe:se@cret@127.0.0.1:9",
        "file:///tmp",
        "nowhere",
        "http://127.0.0.1:99999",
    ],
)
def test_addresses_are_shown_without_passwords(
    vggnet: Callable[..., Outcome],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    address: str,
) -> None:
    """Any address in VGGNET_MIRROR, good or bad, ends in a message without the password."""
    monkeypatch.setenv("VGGNET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VGGNET_MIRROR", address)
    listed = vggnet("data", "list")
    assert listed.code == 0
    with pytest.raises(DataError, match="cannot download qmnist-train-images") as caught:
        load_entry(CATALOG["qmnist"], timeout=0)
    shown = listed.out + listed.err + capsys.readouterr().err + str(caught.value)
    assert address.rpartition("@")[2] in shown
    assert "zoe" not in shown
    assert "cret" not in shown


def test_a_cut_connection_is_tried_again(server: Server) -> None:
    """A mirror that fails once and then answers is enough."""
    entry = publish(server, "kmnist")
    plain = server.answer

    def answer(handler: BaseHTTPRequestHandler) -> None:
        server.cut = not server.asked
        plain(handler)

    server.answer = answer  # type: ignore[method-assign]
    assert load_entry(entry).verified
    assert len(server.asked) == 5


def test_no_download_says_where_it_looked(server: Server, tmp_path: Path) -> None:
    """Nothing is asked for, and the error names the places and the ways out."""
    with pytest.raises(DataError, match=r"looked in .*KMNIST.raw; leave out --no-download") as e:
        load_entry(publish(server, "kmnist"), download=False)
    assert "--data-dir" in str(e.value)
    assert not server.asked


def test_mirrors_of_ones_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGGNET_MIRROR's servers, in torchvision's layout, replace the published addresses."""
    entry = replace(publish(server, "kmnist"), mirrors=("http://127.0.0.1:9/",))
    server.files = {f"d/KMNIST/raw/{name}": content for name, content in server.files.items()}
    monkeypatch.setenv("VGGNET_MIRROR", f"http://127.0.0.1:9/ {server.address}d")
    assert load_entry(entry).verified


WORKER = """
import pickle, sys
from vggnet.data.known import load_entry
print("ready", flush=True)
assert load_entry(pickle.load(sys.stdin.buffer)).verified
"""


def test_eight_processes_download_once(start: Start, server: Server) -> None:
    """When eight processes ask at the same moment, each file is fetched by one of them."""
    entry = pickle.dumps(publish(server, "kmnist"))
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": None, "text": False}
    workers: list[Any] = [start(sys.executable, "-c", WORKER, **options) for _ in range(8)]
    for worker in workers:
        assert worker.stdout.readline() == b"ready\n"
    for worker in workers:
        worker.stdin.write(entry)
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0] * 8
    assert sorted(server.asked) == sorted(server.files)


def test_a_full_disk_is_named(server: Server, tmp_path: Path) -> None:
    """A cache that cannot be written is said to be so, with the variable that moves it."""
    (tmp_path / "cache").write_text("a file where a folder must be")
    with pytest.raises(DataError, match="set VGGNET_CACHE_DIR to a folder with room"):
        load_entry(publish(server, "kmnist"))
