"""`vggnet export`: its files compute the same as the network, and nothing else is left."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file

import vggnet as package
from conftest import Outcome
from vggnet.artifacts.export import export_model
from vggnet.artifacts.export.hub import render_card
from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.model_file import load_model, save_model
from vggnet.data.dataset import Dataset
from vggnet.data.storage import load_dataset
from vggnet.errors import ExportError

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A small, briefly trained network; its batch norm is folded.

    Its dataset has 20 test images: exports compare on up to 1,000, one at a time, too.
    """
    folder = tmp_path_factory.mktemp("model")
    package.train(
        recipe="article",
        model={"stages": ((8,), (8,)), "hidden": (16,), "batch_norm": True},
        train={"epochs": 5, "threads": 1},
        data={"dataset": str(digits)},
        output=folder / "small.pth",
        runs=folder / "runs",
    )
    return folder / "small.pth"


@pytest.fixture(scope="module")
def expected(model: Path, mnist: Dataset) -> np.ndarray:
    """Probabilities of 20 test images, from the network itself."""
    return package.load(model, kernels="torch").predict(mnist.test.images[:20]).probabilities


def test_onnx(vggnet: Command, model: Path, mnist: Dataset, expected: np.ndarray) -> None:
    """One file takes uint8 of any batch size, and its metadata names the classes."""
    done = vggnet("export", model, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["path"], found["images"]) == ("small.onnx", 20)
    assert found["worst"] <= 1e-4
    assert sorted(path.name for path in Path().iterdir()) == ["small.onnx"]
    session = onnxruntime.InferenceSession("small.onnx")
    for count in (1, 3, 20):
        logits, shares = session.run(None, {"pixels": mnist.test.images[:count]})
        np.testing.assert_allclose(shares, expected[:count], atol=1e-5)
        np.testing.assert_array_equal(logits.argmax(1), shares.argmax(1))
    facts = {one.key: json.loads(one.value) for one in onnx.load("small.onnx").metadata_props}
    assert facts["classes"] == list("0123456789")
    assert (facts["mean"], facts["picture"]) == ([0.5], [1, 28, 28])
    assert str(Path(package.__file__).parent).encode() not in Path("small.onnx").read_bytes()


@pytest.mark.parametrize(("name", "kind"), [("vgg-a-lrn", "onnx"), ("vgg-d", "pt2")])
def test_the_larger_networks(vggnet: Command, digits: Path, name: str, kind: str) -> None:
    """Five pools, whose images are padded to 32, and local response normalization also export."""
    network = {"architecture": name, "width": 0.05}
    settings = {"epochs": 0.1, "threads": 1, "kernels": "torch"}
    data = {"dataset": str(digits)}
    package.train(recipe="article", model=network, train=settings, data=data, output="large.pth")
    done = vggnet("export", "large.pth", "--format", kind, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["worst"] <= 1e-4
    assert Path(f"large.{kind}").is_file()


def test_int8(vggnet: Command, model: Path, mnist: Dataset) -> None:
    """Accuracy before and after is reported; filters are 8-bit integers, logits are not.

    Filters use 7 of their bits, so that sums of two products fit 16 bits on every processor.
    """
    done = vggnet("export", model, "--int8")
    assert done.code == 0, done.err
    assert "of the test set" in done.out
    proto = onnx.load("small_int8.onnx")
    filters = [one for one in proto.graph.initializer if list(one.dims[2:]) == [3, 3]]
    kinds = {one.data_type for one in filters}
    assert kinds == {onnx.TensorProto.INT8}
    values = np.concatenate([onnx.numpy_helper.to_array(one).ravel() for one in filters])
    assert 32 < np.abs(values.astype(int)).max() <= 64
    session = onnxruntime.InferenceSession("small_int8.onnx")
    logits, _ = session.run(None, {"pixels": mnist.test.images[:500]})
    assert len(np.unique(logits)) > 1_000
    accuracy = float((logits.argmax(1) == mnist.test.labels[:500]).mean())
    exact = package.load(model, kernels="torch").predict(mnist.test.images[:500]).indices
    assert abs(accuracy - float((exact == mnist.test.labels[:500]).mean())) < 0.03


def test_int8_that_costs_accuracy_is_warned_of(vggnet: Command, model: Path) -> None:
    """One channel scaled by 1,000 leaves the others few of 8 bits; a warning gives the loss."""
    loaded = load_model(model)
    first, second = (m for m in loaded.network.features if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():  # in float, the function does not change
        first.weight[0] *= 1000
        first.bias[0] *= 1000
        second.weight[:, 0] /= 1000
    save_model(Path("loud.pth"), loaded.network, loaded.card)
    done = vggnet("export", "loud.pth", "--int8", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    lost = 100 * (found["accuracy_float"] - found["accuracy_int8"])
    assert lost > 1
    assert f"warning: 8 bits cost {lost:.2f} percentage points of accuracy" in done.err


def test_pt2(vggnet: Command, model: Path, mnist: Dataset, expected: np.ndarray) -> None:
    """A program of torch.export takes any batch size."""
    done = vggnet("export", model, "--format", "pt2", "-o", "net.pt2")
    assert done.code == 0, done.err
    network = torch.export.load("net.pt2").module()
    for count in (1, 20):
        _, shares = network(torch.tensor(mnist.test.images[:count]))
        np.testing.assert_allclose(shares.detach().numpy(), expected[:count], atol=1e-5)


def test_safetensors(vggnet: Command, model: Path, mnist: Dataset, expected: np.ndarray) -> None:
    """The file loads again, with its description."""
    assert vggnet("export", model, "--format", "safetensors").code == 0
    again = package.load("small.safetensors", kernels="torch")
    np.testing.assert_allclose(again.predict(mnist.test.images[:20]).probabilities, expected)


def test_hub(
    vggnet: Command, model: Path, digits: Path, mnist: Dataset, expected: np.ndarray
) -> None:
    """The card's results are measured, vggnet loads the folder, a second export replaces it."""
    assert vggnet("export", model, "--format", "hub", "-o", "hub").code == 0
    assert {path.name for path in Path("hub").iterdir()} == {
        "model.safetensors", "config.json", "README.md",
    }  # fmt: skip
    config = json.loads(Path("hub/config.json").read_text())
    assert config["id2label"]["7"] == "7"
    assert set(load_file("hub/model.safetensors")) >= {"features.0.weight", "classifier.0.weight"}
    head = Path("hub/README.md").read_text().split("---")[1]
    index = json.loads(next(row for row in head.splitlines() if row.startswith("model-index"))[13:])
    accuracy = index[0]["results"][0]["metrics"][0]["value"]
    test = load_dataset(str(digits)).test
    labels = package.load(model, kernels="torch").predict(test.images).indices
    assert accuracy == float((labels == test.labels).mean())
    again = package.load("hub", kernels="torch")
    np.testing.assert_allclose(again.predict(mnist.test.images[:20]).probabilities, expected)
    assert vggnet("export", model, "--format", "hub", "-o", "hub").code == 0


def test_the_head_of_the_hubs_card_is_yaml(model: Path) -> None:
    """A dataset's name may hold line breaks, control characters and emoji of Unicode."""
    name = "di\u2028gi\u2029ts\x85\x7f\ufeff\U0001f600"
    head = render_card(EndToEndModel(load_model(model), name)).split("---")[1]
    assert [line.split(":")[0] for line in head.strip().splitlines()] == [
        "license", "library_name", "pipeline_tag", "tags", "metrics", "model-index",
    ]  # fmt: skip
    assert yaml.safe_load(head)["model-index"][0]["results"][0]["dataset"]["name"] == name


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system here")
def test_a_link_to_another_disk_is_followed(vggnet: Command, model: Path) -> None:
    """The file is written on the disk of the link's target, and the link stays a link."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as there:
        Path("linked.safetensors").symlink_to(Path(there, "far.safetensors"))
        done = vggnet("export", model, "--format", "safetensors", "-o", "linked.safetensors")
        assert done.code == 0, done.err
        assert Path("linked.safetensors").is_symlink()
        assert [path.name for path in Path(there).iterdir()] == ["far.safetensors"]


def test_what_the_articles_script_saves(vggnet: Command, model: Path) -> None:
    """A plain state_dict without a description is exported; its normalization can be given."""
    weights = torch.load(model, weights_only=True)
    torch.save({name: tensor.clone() for name, tensor in weights.items()}, "plain.pth")
    done = vggnet("export", "plain.pth", "--format", "pt2", "--mean", "0", "--std", "1")
    assert done.code == 0, done.err
    assert "warning: plain.pth has no description of its weights; assuming images" in done.err
    _, found = torch.export.load("plain.pt2").module()(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    given = package.load("plain.pth", kernels="torch", mean=0, std=1)
    black = given.predict(np.zeros((2, 28, 28), np.uint8)).probabilities
    np.testing.assert_allclose(found.detach().numpy(), black, atol=1e-5)


def test_no_path_is_given_away(vggnet: Command, model: Path, mnist: Dataset) -> None:
    """The path of the training data is in no exported file."""
    loaded = load_model(model)
    config = loaded.card.config
    assert config is not None
    data = {**config["data"], "dataset": "/home/someone/digits", "data_dir": "/home/someone"}
    card = loaded.card.model_copy(update={"config": {**config, "data": data}})
    save_model(Path("own.v2.safetensors"), loaded.network, card)
    done = vggnet("export", "own.v2.safetensors", "--format", "hub")
    assert done.code == 0, done.err
    assert "the dataset was not found" in done.out
    for file in Path("own.v2_hub").iterdir():
        assert b"/home/someone" not in file.read_bytes()


def test_a_file_that_fails_is_not_left(model: Path, tmp_path: Path, mnist: Dataset) -> None:
    """If the outputs are NaN, nothing is written, and an existing file is unchanged."""
    path = tmp_path / "net.pt2"
    path.write_bytes(b"earlier")
    network = EndToEndModel(load_model(model))
    with torch.no_grad():
        network.network.get_parameter("classifier.0.bias").fill_(float("nan"))
    with pytest.raises(ExportError, match="NaN"):
        export_model(network, "pt2", path, mnist.test.images[:10], "images", 1)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_data_dir_is_named(vggnet: Command, model: Path) -> None:
    """A known dataset that is not in --data-dir ends the export, and leaves no file."""
    loaded = load_model(model)
    assert loaded.card.config is not None
    config = {**loaded.card.config, "data": {"dataset": "mnist"}}
    source = model.with_name("on_mnist.pth")
    save_model(source, loaded.network, loaded.card.model_copy(update={"config": config}))
    done = vggnet("export", source, "--data-dir", "nowhere")
    assert done.code == 1
    assert "nowhere" in done.err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--format", "tflite"], 2, "--format"),
        (["--int8", "--format", "pt2"], 2, "--int8 works with --format onnx"),
        (["-o", "net.pt2"], 2, ".onnx"),
        (["--data-dir", "nowhere"], 2, "leave out --data-dir"),
        (["--format", "pt2", "-o", "nowhere/net.pt2"], 1, "cannot write nowhere/net.pt2"),
        (["-o", f"{300 * 'x'}.onnx"], 1, "File name too long"),
    ],
)
def test_mistakes(
    vggnet: Command, model: Path, arguments: list[str], code: int, words: str
) -> None:
    """Each is reported in one sentence, and leaves no file."""
    done = vggnet("export", model, *arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert not list(Path().iterdir())


def test_a_missing_model_is_named(vggnet: Command, model: Path) -> None:
    """Also if the output exists, or the model's name is too long for the disk."""
    Path("there.onnx").write_bytes(b"earlier")
    for missing in ("typo.pth", f"{300 * 'x'}.pth"):
        done = vggnet("export", missing, "-o", "there.onnx")
        assert done.code == 1
        assert missing in done.err
        assert "Traceback" not in done.err
    assert Path("there.onnx").read_bytes() == b"earlier"


def test_without_the_extra(vggnet: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime, the command that installs it is printed."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = vggnet("export", model)
    assert done.code == 2
    assert "pip install 'vggnet[export]'" in done.err
    assert not list(Path().iterdir())
