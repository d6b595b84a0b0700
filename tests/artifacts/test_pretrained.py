"""ImageNet weights are downloaded on request, checked and kept."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vggnet.artifacts import pretrained
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, DataError

VGG16 = ModelConfig(architecture="vgg-d")


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and counts requests."""

    requests: list[str] = []  # noqa: RUF012 (cleared by the fixture)

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine with a small file in the place of VGG-16's weights."""
    monkeypatch.setenv("VGGNET_CACHE_DIR", str(tmp_path / "cache"))
    content = b"weights"
    name = f"vgg16-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / name).write_bytes(content)
    monkeypatch.setitem(pretrained._FILES, ("vgg-d", False), name)
    Handler.requests.clear()
    handler = functools.partial(Handler, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server: str, tmp_path: Path) -> None:
    """The second call finds it in the cache, also without permission to download."""
    with pytest.raises(DataError, match="--no-download forbids"):
        pretrained.fetch_imagenet(VGG16, download=False, server=server)
    assert not Handler.requests
    path = pretrained.fetch_imagenet(VGG16, download=True, server=server)
    assert path.parent == tmp_path / "cache" / "weights"
    assert path.read_bytes() == b"weights"
    assert pretrained.fetch_imagenet(VGG16, download=False, server=server) == path
    assert len(Handler.requests) == 1


def test_another_file_is_not_kept(server: str, tmp_path: Path) -> None:
    """A file whose hash is not the published one is refused, and the cache stays empty."""
    (file,) = (tmp_path / "www").iterdir()
    file.write_bytes(b"other weights")
    with pytest.raises(DataError, match="is not the published file: its SHA-256 begins with"):
        pretrained.fetch_imagenet(VGG16, download=True, server=server)
    assert not list((tmp_path / "cache" / "weights").glob("*.pth"))


def test_the_table_is_torchvisions() -> None:
    """Each file has torchvision's address, and its name the hash that torchvision checks."""
    vgg = pytest.importorskip("torchvision.models.vgg")
    numbers = {"vgg-a": 11, "vgg-b": 13, "vgg-d": 16, "vgg-e": 19}
    for (name, batch_norm), file in pretrained._FILES.items():
        weights = getattr(vgg, f"VGG{numbers[name]}{'_BN' * batch_norm}_Weights").DEFAULT
        assert weights.url == pretrained._SERVER + file
        transform = weights.transforms()
        assert (tuple(transform.mean), tuple(transform.std)) == (pretrained.MEAN, pretrained.STD)


def test_networks_without_published_weights_are_refused() -> None:
    """The message names the networks that have weights."""
    for config in (ModelConfig(), ModelConfig(architecture="vgg-d", width=0.5)):
        with pytest.raises(ConfigError, match="use --model vgg-a, vgg-b, vgg-d or vgg-e"):
            pretrained.fetch_imagenet(config, download=True)
