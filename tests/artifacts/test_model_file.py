"""Model files: the article's contract, what they contain, and what is refused."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import Start
from vggnet.artifacts.atomic import check_writable, write_file
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import Overrides, check_suffix, load_model, save_model
from vggnet.config import ModelConfig
from vggnet.engine.calibration import Calibration
from vggnet.engine.features import trace
from vggnet.engine.typicality import fit_typicality, layer_values
from vggnet.errors import ConfigError, ModelFileError, OutputError
from vggnet.model.vgg import VGG, build_network

resource = pytest.importorskip("resource")

SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4,))
CARD = ModelCard(
    classes=tuple("abcdefghij"),
    image_shape=(1, 28, 28),
    mean=(0.25,),
    std=(0.75,),
    test={"accuracy": 0.5, "loss": 1.0, "count": 2},
    calibration=Calibration(scale=2.0, curvature=0.125, images=300),
)


@pytest.fixture
def network() -> VGG:
    """A small network."""
    return build_network(SMALL, 0).eval()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".PTH"])
def test_weights_and_description_are_saved(tmp_path: Path, network: VGG, suffix: str) -> None:
    """Both formats return equal weights and an equal description."""
    path = tmp_path / f"model{suffix}"
    save_model(path, network, CARD)
    found = load_model(path)
    assert found.card == CARD
    assert not found.network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor)


def test_weights_stay_when_the_file_changes(tmp_path: Path, network: VGG) -> None:
    """A loaded network does not read its file again: writing into it changes no weight."""
    path = tmp_path / "model.pth"
    save_model(path, network, CARD)
    found = load_model(path).network
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_loading_leaves_random_numbers_alone(tmp_path: Path, network: VGG) -> None:
    """Building the network draws nothing from the global generator."""
    save_model(tmp_path / "model.pth", network, CARD)
    before = torch.get_rng_state()
    load_model(tmp_path / "model.pth")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pth_is_a_plain_state_dict(tmp_path: Path) -> None:
    """Another class needs only `net.load_state_dict(torch.load(path))`."""
    network = build_network(ModelConfig(), 0)
    save_model(tmp_path / "model.pth", network, CARD)
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    assert type(state) is OrderedDict
    assert list(state) == list(network.state_dict())
    twin = VGG(ModelConfig())
    twin.load_state_dict(state, strict=True)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_statistics_of_the_training_images_are_no_weights(
    tmp_path: Path, network: VGG, suffix: str
) -> None:
    """They are in the description, so other classes still load the file; a wrong one is refused."""
    images = torch.randn(600, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        values = layer_values(trace(network, images))
    typicality = fit_typicality(values, np.arange(600) % 10, values)
    card = CARD.model_copy(update={"typicality": typicality})
    path = tmp_path / f"model{suffix}"
    save_model(path, network, card)
    found = load_model(path)
    assert found.card == card
    assert found.card.typicality is not None
    assert np.array_equal(found.card.typicality.rank(values), typicality.rank(values))
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert set(state) == set(network.state_dict())
    VGG(SMALL).load_state_dict(state, strict=True)
    save_model(path, build_network(SMALL.model_copy(update={"hidden": (5,)}), 0), card)
    with pytest.raises(ModelFileError, match="statistics of another network"):
        load_model(path)


def test_other_inputs_end_the_calibration(tmp_path: Path, network: VGG) -> None:
    """With another normalization the file's numbers do not hold; other names change nothing."""
    path = tmp_path / "model.pth"
    save_model(path, network, CARD)
    assert load_model(path, Overrides(mean=(0.1,))).card.calibration is None
    names = tuple("klmnopqrst")
    assert load_model(path, Overrides(classes=names)).card.calibration == CARD.calibration


def test_files_of_version_01_load(tmp_path: Path, network: VGG) -> None:
    """Version 0.1 calls the image shape "picture", and so do today's files."""
    path = tmp_path / "model.safetensors"
    save_model(path, network, CARD)
    assert rb"\"picture\":[1,28,28]" in path.read_bytes()
    description = {"format": 1, "classes": list("abcdefghij"), "picture": [1, 28, 28]}
    save_file(network.state_dict(), path, {"vggnet": json.dumps(description)})
    assert load_model(path).card.image_shape == (1, 28, 28)


class Malice:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def save_script(path: Path) -> None:
    """Write a TorchScript archive."""
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated in all versions
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder without model.safetensors or pytorch_model.bin"),
        (lambda path: path.write_bytes(b""), "is not a model file"),
        (lambda path: path.write_text("<html>not found</html>"), "is not a model file"),
        (lambda path: torch.save(Malice(), path), "could run code; refused"),
        (lambda path: torch.save({"state_dict": Malice()}, path), "could run code; refused"),
        (lambda path: path.write_bytes(pickle.dumps(Malice(), 2)), "could run code; refused"),
        (lambda path: torch.save(nn.Linear(2, 2), path), "whole module (torch.nn.modules.linear"),
        (lambda path: torch.save({"model": nn.Linear(2, 2)}, path), "whole module"),
        (save_script, "TorchScript"),
        (lambda path: torch.save([1, 2], path), "holds no state_dict"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no state_dict"),
        (lambda path: torch.save({}, path), "not those of a VGG"),
        (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "not those of a VGG"),
        (lambda path: save_file({"weight": torch.ones(2)}, path), "not those of a VGG"),
        (lambda path: path.write_bytes(b"\xff" * 8 + b"{" + b"x" * 99), "damaged safetensors"),
        (lambda path: path.write_bytes(b"PK\3\4" + b"x" * 99), "damaged PyTorch file"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    """The message says what a file is that holds no weights of a VGG, and no code in it runs."""
    path = tmp_path / "model.pth"
    make(path)
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(not hasattr(Path, "is_fifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe without a writer is refused at once."""
    import os

    os.mkfifo(tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="not a regular file"):
        load_model(tmp_path / "model.pth")


def test_missing_and_surplus_tensors_are_refused(tmp_path: Path, network: VGG) -> None:
    """A VGG with a missing bias or an additional tensor does not load."""
    state = network.state_dict()
    path = tmp_path / "model.pth"
    torch.save({name: t for name, t in state.items() if name != "features.0.bias"}, path)
    with pytest.raises(ModelFileError, match=r"Missing key.*features\.0\.bias"):
        load_model(path)
    torch.save({**state, "surplus": torch.ones(1)}, path)
    with pytest.raises(ModelFileError, match="surplus"):
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
    """With any byte of the pickle inverted, torch may raise anything, and vggnet one error."""
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


def test_only_known_suffixes_are_written() -> None:
    """A name from which no format follows is refused before training."""
    with pytest.raises(ConfigError, match=r"must end with \.pth, \.pt, \.safetensors"):
        check_suffix(Path("model.onnx"))


def test_unwritable_paths_are_reported_early(tmp_path: Path) -> None:
    """A folder, a file in a missing folder, and a file inside a file cannot be written."""
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
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.config import ModelConfig
from vggnet.errors import OutputError
from vggnet.model.vgg import build_network

network = build_network(ModelConfig(), 1)
card = ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_model(Path(sys.argv[1]), network, card)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_full_disk_leaves_the_earlier_file_whole(
    fork: Start, tmp_path: Path, network: VGG, suffix: str
) -> None:
    """A write that fails halfway is an error and leaves no partial file."""
    path = tmp_path / f"model{suffix}"
    save_model(path, network, CARD)
    before = path.read_bytes()
    out, _ = fork("-c", FULL_DISK, path).communicate()
    assert "an existing file is unchanged" in out
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
