"""No response exceeds its limit, whatever the classes of the models are called."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError
from vggnet.inference.predict import Classifier
from vggnet.model.vgg import build_network
from vggnet.serve.access import Access
from vggnet.serve.app import create_app
from vggnet.serve.inference_protocol import InferResponse, Tensor
from vggnet.serve.limits import Limits
from vggnet.serve.service import Answer, Model, Service

from .conftest import ask

LIMITS = Limits(response_bytes=100_000)

NAMING = st.tuples(
    st.text(max_size=4), st.integers(0, 240), st.integers(1, 40) | st.integers(1, 3000)
)
"""Arguments of `name_classes`."""

LONGEST = 1.3700724593945779e-05
"""The longest number in JSON of 45,000 random float32, with 23 characters."""


def name_classes(text: str, times: int, count: int) -> tuple[str, ...]:
    """Return names for some classes, the last one of which is the longest."""
    return tuple(f"{text * times}{number}" for number in range(count))


def build_classifier(names: tuple[str, ...]) -> Classifier:
    """Return an untrained network for classes of these names."""
    config = ModelConfig(stages=((4,),), hidden=(), num_classes=len(names))
    card = ModelCard(classes=names, image_shape=(1, 28, 28))
    return Classifier(LoadedModel(build_network(config, 0), card), "cpu", "torch")


def largest_responses(names: tuple[str, ...], number: float, images: int) -> list[int]:
    """Return the sizes of the largest responses of both APIs to some images.

    Args:
        names: Of the classes.
        number: Takes the place of every number.
        images: How many; sizes beyond two are extrapolated.
    """
    one, two = (_render(names, number, count) for count in (1, 2))
    return [a + (images - 1) * (b - a) for a, b in zip(one, two, strict=True)]


def _render(names: tuple[str, ...], number: float, images: int) -> list[int]:
    values = {
        "class": names[-1],
        "probability": number,
        "probabilities": dict.fromkeys(names, number),
        "typicality": number,
        "unlike_training": False,
    }
    answer = Answer.model_validate({"predictions": [values] * images})
    shape, data = [images, len(names)], [number] * images * len(names)
    tensors = [
        Tensor(name="probabilities", datatype="FP32", shape=shape, data=data),
        Tensor(name="classes", datatype="BYTES", shape=shape[:1], data=[names[-1]] * images),
    ]
    protocol = InferResponse(model_name="m" * 255, id="\x01" * 1000, outputs=tensors)
    texts = answer.model_dump_json(by_alias=True), protocol.model_dump_json(exclude_none=True)
    return [len(text.encode()) for text in texts]


@given(NAMING, st.just(LONGEST) | st.floats(0, 1, width=32))
def test_a_request_has_no_more_images_than_its_response_may(
    naming: tuple[str, int, int], number: float
) -> None:
    """A model whose response to one image is too large is refused, and only such a model."""
    names = name_classes(*naming)
    classifier = build_classifier(names)
    try:
        images = Model("m", classifier, LIMITS).most_images
    except ConfigError:
        assert 1.1 * max(largest_responses(names, LONGEST, 1)) > LIMITS.response_bytes
    else:
        assert max(largest_responses(names, number, images)) <= LIMITS.response_bytes


# Each example builds an application, which takes 0.1 s.
@settings(max_examples=20)
@given(NAMING, st.integers(1, 60))
def test_the_list_of_the_models_is_within_the_limit(
    naming: tuple[str, int, int], count: int
) -> None:
    """Models whose class names together are too long are refused at the start.

    The name of a model, which is the name of a file, may be no valid Unicode.
    """
    names = name_classes(*naming)
    models = dict.fromkeys((f"\udcff{number}" for number in range(count)), build_classifier(names))
    try:
        app = create_app(Service(models, LIMITS, 1), Access("localhost"))
    except ConfigError:
        sizes = [count * len(json.dumps(names)), *largest_responses(names, LONGEST, 1)]
        assert 1.1 * max(sizes) > LIMITS.response_bytes
        return
    answer = ask(app, "/models")
    assert len(answer.content) <= LIMITS.response_bytes
    assert answer.json() == [
        {"name": name, "classes": list(names), "image_shape": [1, 28, 28]} for name in models
    ]
