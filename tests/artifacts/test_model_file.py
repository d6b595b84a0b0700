"""Model files: the article's contract, what they carry, and what is refused."""

from __future__ import annotations

import contextlib
import pickle
import resource
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from vggnet.artifacts.atomic import check_writable, write_file
from vggnet.artifacts.model_file import ModelCard, check_suffix, load_model, save_model
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ModelFileError, OutputError
from vggnet.model.vgg import VGG, build_network

SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4,))
CARD = ModelCard(
    classes=tuple("abcdefghij"),
    image_shape=(1, 28, 28),
    mean=(0.25,),
    std=(0.75,),
    test={"accuracy": 0.5, "loss": 1.0, "count": 2},
)


@pytest.fixture
def network() -> VGG:
    """A small network."""
    return build_network(SMALL, 0).eval()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".PTH"])
def test_weights_and_meaning_come_back(tmp_path: Path, network: VGG, suffix: str) -> None:
    """Both formats give back equal weights, and the description with them."""
    path = tmp_path / f"model{suffix}"
    save_model(path, network, CARD)
    found = load_model(path)
    assert found.card == CARD
    assert not found.network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor)


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path: Path, network: VGG) -> None:
    """A network is built on the way, but nothing is drawn from the caller's generator."""
    save_model(tmp_path / "model.pth", network, CARD)
    before = torch.get_rng_state()
    load_model(tmp_path / "model.pth")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pth_is_a_plain_state_dict(tmp_path: Path) -> None:
    """`net.load_state_dict(torch.load(path))` is all that a stranger's class needs."""
    network = build_network(ModelConfig(), 0)
    save_model(tmp_path / "model.pth", network, CARD)
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    assert type(state) is OrderedDict
    assert list(state) == list(network.state_dict())
    twin = VGG(ModelConfig())
    twin.load_state_dict(state, strict=True)


def test_what_the_articles_script_saves_is_read(tmp_path: Path) -> None:
    """A state_dict without description is digits, 28×28, scaled to [-1, 1]."""
    features = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    features += [nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()]
    net = nn.Module()
    net.features = nn.Sequential(*features)
    net.classifier = nn.Sequential(
        nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)
    )
    torch.save(net.state_dict(), tmp_path / "mnist_vggnet.pth")
    found = load_model(tmp_path / "mnist_vggnet.pth")
    assert found.network.config == ModelConfig()
    assert found.card.classes == tuple("0123456789")
    assert (found.card.image_shape, found.card.mean, found.card.std) == (
        (1, 28, 28),
        (0.5,),
        (0.5,),
    )


class Malice:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "is no model file"),
        (lambda path: path.write_text("<html>not found</html>"), "is no model file"),
        (lambda path: torch.save(Malice(), path), "could run code; refused"),
        (lambda path: path.write_bytes(pickle.dumps(Malice(), 2)), "could run code; refused"),
        (lambda path: torch.save(nn.Linear(2, 2), path), "could run code; refused"),
        (lambda path: torch.save([1, 2], path), "holds no state_dict"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no state_dict"),
        (lambda path: torch.save({}, path), "not those of a VGG network"),
        (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "not those of a VGG"),
        (lambda path: save_file({"weight": torch.ones(2)}, path), "not those of a VGG"),
        (lambda path: path.write_bytes(b"\xff" * 8 + b"{" + b"x" * 99), "damaged safetensors"),
        (lambda path: path.write_bytes(b"PK\3\4" + b"x" * 99), "damaged PyTorch file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, make: object, words: str) -> None:
    """Whatever is no VGG's weights is named for what it is, and no code of it runs."""
    path = tmp_path / "model.pth"
    make(path)  # type: ignore[operator]
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_and_surplus_tensors_are_refused(tmp_path: Path, network: VGG) -> None:
    """A VGG with a bias too few or a tensor too many does not load."""
    state = network.state_dict()
    path = tmp_path / "model.pth"
    torch.save({name: t for name, t in state.items() if name != "features.0.bias"}, path)
    with pytest.raises(ModelFileError, match=r"Missing key.*features\.0\.bias"):
        load_model(path)
    torch.save({**state, "surplus": torch.ones(1)}, path)
    with pytest.raises(ModelFileError, match="surplus"):
        load_model(path)


def test_a_description_of_other_tensors_is_refused(tmp_path: Path, network: VGG) -> None:
    """Class names and weights must belong together, and the format must be known."""
    for changes, words in (
        ({"classes": ("a", "b")}, "2 classes"),
        ({"image_shape": (3, 28, 28)}, "3 channels"),
        ({"format": 2}, "newer"),
    ):
        for path in (tmp_path / "model.pth", tmp_path / "model.safetensors"):
            save_model(path, network, CARD.model_copy(update=changes))
            with pytest.raises(ModelFileError, match=words):
                load_model(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, network: VGG, suffix: str) -> None:
    """Cut at 60 lengths, a model file never loads and never raises another error."""
    path = tmp_path / f"model{suffix}"
    save_model(path, network, CARD)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            load_model(path)


@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_a_changed_byte_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, position: float, value: int
) -> None:
    """Damage anywhere ends in a model or a ModelFileError, never in another exception."""
    folder = tmp_path_factory.mktemp("damage")
    for name in ("model.pth", "model.safetensors"):
        path = folder / name
        save_model(path, build_network(SMALL, 0), CARD)
        content = bytearray(path.read_bytes())
        content[int(position * len(content))] ^= value
        path.write_bytes(content)
        with contextlib.suppress(ModelFileError):
            load_model(path)


def test_every_damaged_pickle_loads_or_is_refused(tmp_path: Path) -> None:
    """Each byte of a .pth file's pickle turned over: torch may raise anything, we one error."""
    path = tmp_path / "model.pth"
    save_model(path, build_network(SMALL, 0), CARD)
    content = bytearray(path.read_bytes())
    refused = 0
    for position in range(content.index(b"data.pkl"), content.index(b".format_version")):
        content[position] ^= 0xFF
        path.write_bytes(content)
        content[position] ^= 0xFF
        try:
            load_model(path)
        except ModelFileError:
            refused += 1
    assert refused > 500


def test_only_known_endings_are_written() -> None:
    """A name that says no format is refused before training."""
    with pytest.raises(ConfigError, match=r"ends with \.pth, \.pt, \.safetensors"):
        check_suffix(Path("model.onnx"))


def test_places_that_cannot_be_written_are_found_out_early(tmp_path: Path) -> None:
    """A folder, a missing folder, and a file in place of a folder."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "missing" / "a.pth", tmp_path / "file" / "a.pth"):
        with pytest.raises(OutputError, match="cannot write"):
            check_writable(path)
        with pytest.raises(OutputError, match="cannot write"):
            write_file(path, b"content")
    check_writable(tmp_path / "new.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from vggnet.artifacts.model_file import ModelCard, save_model
from vggnet.config import ModelConfig
from vggnet.errors import OutputError
from vggnet.model.vgg import build_network

network = build_network(ModelConfig(), 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_model(Path(sys.argv[1]), network, ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28)))
except OutputError as error:
    print(error)
"""  # noqa: E501


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit here")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_disk_that_takes_no_more_leaves_the_earlier_file_whole(
    tmp_path: Path, network: VGG, suffix: str
) -> None:
    """A write that the system refuses halfway is an error, and nothing is left of it."""
    path = tmp_path / f"model{suffix}"
    save_model(path, network, CARD)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "an existing file is unchanged" in done.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
