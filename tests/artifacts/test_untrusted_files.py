"""Model files from elsewhere: no description misleads, no declared size exhausts memory."""

from __future__ import annotations

import json
import math
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conftest import Start
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import load_model, save_model
from vggnet.artifacts.model_page import describe_model
from vggnet.config import ModelConfig
from vggnet.engine.typicality import EncodedArray, layer_sizes
from vggnet.errors import ModelFileError
from vggnet.model.vgg import build_network, padded_size

Measure = Callable[[Path], tuple[str, int]]

SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4,), num_classes=3, image_size=8)
CARD = json.loads(
    ModelCard(classes=("a", "b", "c"), image_shape=(1, 8, 8)).model_dump_json(by_alias=True)
)


@pytest.fixture(scope="module")
def state() -> OrderedDict[str, Tensor]:
    """Weights of a small network."""
    return build_network(SMALL, 0).state_dict()


def describe(path: Path, state: OrderedDict[str, Tensor], description: object) -> Path:
    """Save weights with any description, as vggnet does."""
    described = OrderedDict(state)
    described._metadata = OrderedDict({"": {"vggnet": description}})  # type: ignore[attr-defined]
    torch.save(described, path)
    return path


numbers = st.floats() | st.integers(-(2**70), 2**70)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(
    field=st.sampled_from([*CARD, "image_shape"]),
    value=anything
    | st.lists(numbers, max_size=4)
    | st.lists(st.text(max_size=2), max_size=4)
    | st.dictionaries(st.sampled_from(["recipe", "x"]), anything),
)
def test_a_description_is_valid_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    state: OrderedDict[str, Tensor],
    field: str,
    value: object,
) -> None:
    """With any value in any field, a model fits its network and normalizes, or is refused."""
    path = tmp_path_factory.mktemp("card") / "model.pth"
    describe(path, state, json.dumps({**CARD, field: value}))
    try:
        card = load_model(path).card
    except ModelFileError:
        return
    channels, *sides = card.image_shape
    assert len(set(card.classes)) == SMALL.num_classes
    assert channels == 1
    assert padded_size(SMALL, max(sides)) == SMALL.image_size
    assert all(map(math.isfinite, (*card.mean, *card.std)))
    assert min(card.std) > 0
    assert len(card.mean) == len(card.std) == 1
    assert card.data.dataset is None or "\0" not in card.data.dataset
    json.dumps(card.model_dump(), allow_nan=False)
    json.dumps(describe_model(load_model(path).network, card), allow_nan=False)
    save_model(path.with_suffix(".safetensors"), build_network(SMALL, 0), card)


@given(
    field=st.sampled_from(["config", "environment"]),
    value=st.sampled_from([math.nan, math.inf, -math.inf, "\ud800"]),
    keys=st.lists(st.sampled_from(["recipe", "x"]), min_size=1, max_size=5),
)
def test_what_json_cannot_hold_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    state: OrderedDict[str, Tensor],
    field: str,
    value: object,
    keys: list[str],
) -> None:
    """NaN, infinity and half a surrogate pair are refused at any depth of a free-form field."""
    path = tmp_path_factory.mktemp("card") / "model.pth"
    for key in keys:
        value = {key: value}
    describe(path, state, json.dumps({**CARD, field: value}))
    with pytest.raises(ModelFileError, match=f"its description is not valid: {field}"):
        load_model(path)


def nested(levels: int) -> list[Any]:
    """Return a list in a list in a list, ..."""
    values: list[Any] = []
    for _ in range(levels):
        values = [values]
    return values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": []}, "mean: Tuple should have at least 1 item"),
        ({"std": [0.0]}, "std.0: Input should be greater than 0"),
        ({"mean": [math.nan]}, "mean.0: Input should be a finite number"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, "mean has 3 values for 1 channels"),
        ({"picture": [1, 100_000, 100_000]}, "less than or equal to 1024"),
        ({"picture": [1, -5, 8]}, "greater than or equal to 1"),
        ({"picture": [1, 4, 4]}, "says 4 pixels per side after padding, but its tensors are for 8"),
        ({"picture": [3, 8, 8]}, "says 3 channels, but its tensors are for 1"),
        ({"classes": ["a", "b"]}, "says 2 classes, but its tensors are for 3"),
        ({"classes": ["a", "b", "a"]}, "two classes have the same name, 'a'"),
        ({"classes": ["x" * 1_000_000, "b", "c"]}, "at most 1000 characters"),
        ({"config": "x"}, "config: Input should be a valid dictionary"),
        ({"config": {"data": "x"}}, "should be a valid dictionary"),
        ({"config": {"data": {"dataset": 5}}}, "dataset"),
        ({"config": {"data": {"dataset": "a\0b"}}}, "dataset"),
        ({"test": {"accuracy": math.nan}}, "test.accuracy: Input should be a finite number"),
        ({"format": 2}, "newer"),
        ({"config": {"recipe": math.nan}}, "config: Out of range float values"),
        ({"config": {"recipe": "\ud800"}}, "config: Error serializing to JSON"),
        ({"environment": {"x": ["\udfff"]}}, "environment: Error serializing to JSON"),
        ({"config": {"x": nested(300)}}, "Maximum serialization depth exceeded"),
    ],
)
def test_a_refusal_names_the_field(
    tmp_path: Path, state: OrderedDict[str, Tensor], changes: dict[str, Any], words: str
) -> None:
    """The message says which value of the description is wrong, and how."""
    path = describe(tmp_path / "model.pth", state, json.dumps({**CARD, **changes}))
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1_000


def encode(*shape: int) -> dict[str, object]:
    """Return an array of zeros as descriptions hold it."""
    return EncodedArray.encode(torch.zeros(shape)).model_dump(mode="json")


@given(
    classes=st.integers(1, 5),
    directions=st.integers(1, 3),
    shares=st.integers(1, 3),
    scores=st.lists(st.floats(-10, 10, width=16), max_size=4),
)
def test_statistics_belong_to_the_network_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
    state: OrderedDict[str, Tensor],
    classes: int,
    directions: int,
    shares: int,
    scores: list[float],
) -> None:
    """Statistics of more classes than the network's are refused, and scores that do not ascend.

    The first would take memory without limit, the second would flag any image.
    """
    layers = [
        {
            "unit": 1.0,
            "center": encode(size),
            "directions": encode(size, directions),
            "means": encode(classes, directions),
            "whitening": encode(shares, directions * (directions + 1) // 2),
        }
        for size in layer_sizes(SMALL)
    ]
    ones = [1.0] * len(layers)
    stored = EncodedArray.encode(torch.tensor(scores)).model_dump(mode="json") if scores else None
    statistics = {"layers": layers, "offsets": ones, "scales": ones, "scores": stored}
    path = tmp_path_factory.mktemp("card") / "model.pth"
    describe(path, state, json.dumps({**CARD, "typicality": statistics}))
    fits = classes <= SMALL.num_classes and shares in (1, classes)
    if fits and scores and scores == sorted(scores):
        ranked = load_model(path).card.typicality.rank(  # type: ignore[union-attr]
            [torch.ones(2, size) for size in layer_sizes(SMALL)]
        )
        assert ((ranked > 0) & (ranked <= 1)).all()
    else:
        with pytest.raises(ModelFileError, match="its description"):
            load_model(path)


@pytest.mark.parametrize(
    "description",
    [5, [1], "null", "[" * 100_000, '{"format":' + "9" * 5_000 + "}", torch.zeros(3)],
)
def test_a_description_of_another_type_is_refused(
    tmp_path: Path, state: OrderedDict[str, Tensor], description: object
) -> None:
    """Whatever is in the place of the description's JSON, the error says that it is not valid."""
    path = describe(tmp_path / "model.pth", state, description)
    with pytest.raises(ModelFileError, match="its description is not valid"):
        load_model(path)


@pytest.mark.parametrize("metadata", ["x", {"": "x"}, {"": None}, {"": [1]}, [], None])
def test_foreign_metadata_is_no_description(
    tmp_path: Path, state: OrderedDict[str, Tensor], metadata: object
) -> None:
    """Metadata without vggnet's entry is ignored."""
    plain = OrderedDict(state)
    plain._metadata = metadata  # type: ignore[attr-defined]
    torch.save(plain, tmp_path / "model.pth")
    assert load_model(tmp_path / "model.pth").card.classes == ("0", "1", "2")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, state: OrderedDict[str, Tensor], value: float
) -> None:
    """One NaN or infinity among the weights is found when the file is loaded."""
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["classifier.0.weight"][1, 2] = value
    torch.save(broken, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match=r"classifier\.0\.weight contains NaN or infinity"):
        load_model(tmp_path / "model.pth")


LIMITED = """
import resource, sys
from pathlib import Path
from vggnet.artifacts.model_file import load_model
from vggnet.errors import ModelFileError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_model(Path(sys.argv[1]))
except ModelFileError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.fixture
def load_and_measure(fork: Start) -> Callable[[Path], tuple[str, int]]:
    """Load a file in a new process; returns the error and the MiB that it took."""
    pytest.importorskip("resource")

    def load(path: Path) -> tuple[str, int]:
        error, megabytes = fork("-c", LIMITED, path).communicate()[0].splitlines()
        return error, int(megabytes)

    return load


def test_repeated_values_take_no_memory(tmp_path: Path, load_and_measure: Measure) -> None:
    """Few kilobytes whose stride of 0 makes a network of gigabytes are refused unread."""
    width = 100_000
    shapes = {
        "features.0.weight": (width, 1, 3, 3),
        "features.0.bias": (width,),
        "features.2.weight": (width, width, 3, 3),
        "features.2.bias": (width,),
        "classifier.1.weight": (10, width * 14 * 14),
        "classifier.1.bias": (10,),
    }
    path = tmp_path / "bomb.pth"
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, path)
    assert path.stat().st_size < 10_000
    error, megabytes = load_and_measure(path)
    assert "features.0.weight repeats few stored values" in error
    assert megabytes < 50


def test_a_compressed_archive_is_not_unpacked(
    tmp_path: Path, state: OrderedDict[str, Tensor], load_and_measure: Measure
) -> None:
    """A deflated .pth, here of 200 MB of zeros in 0.2 MB, is refused before it is unpacked."""
    save_model(tmp_path / "small.pth", build_network(SMALL, 0), ModelCard.model_validate(CARD))
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as small,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for entry in small.infolist():
            bomb.writestr(entry.filename, small.read(entry))
        bomb.writestr("archive/data/99", bytes(200_000_000))
    error, megabytes = load_and_measure(tmp_path / "bomb.pth")
    assert "is a compressed archive" in error
    assert megabytes < 50


def test_a_sparse_file_is_not_read(
    tmp_path: Path, state: OrderedDict[str, Tensor], load_and_measure: Measure
) -> None:
    """60 GB of a file that the disk does not even hold are refused by their size."""
    path = tmp_path / "legacy.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with path.open("r+b") as file:
        file.truncate(60 * 10**9)
    error, megabytes = load_and_measure(path)
    assert "60.0 GB" in error
    assert megabytes < 50
