"""Models that many clients use at once: request bodies in, predictions out, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from vggnet.artifacts.evidence_plot import overlay
from vggnet.engine.device import computing
from vggnet.errors import ConfigError
from vggnet.inference.predict import Classifier
from vggnet.inference.predictions import DEFAULT_REJECT, Predictions
from vggnet.inference.read import choose_reading
from vggnet.serve.batching import Admission, Batcher, Images
from vggnet.serve.intake import encode_png
from vggnet.serve.limits import Limits
from vggnet.serve.metrics import Metrics
from vggnet.serve.pixels import InputError
from vggnet.serve.workers import Workers

_IMAGES_PER_THREAD = 32
"""Images in a batch for each further thread. With fewer, threads mostly wait for each other, and
spin: beside other programs, two threads took at least 4 times the CPU time of one for 8 images (two
runs, not interleaved)."""

_NUMBER_BYTES = 26
"""At most, of a probability in JSON with its separators."""

_IMAGE_BYTES = 170
"""At most, of the rest of a prediction in JSON: the names of its fields and two numbers."""


class Prediction(BaseModel):
    """The prediction for one image; all fields are null if the image is blank."""

    model_config = ConfigDict(populate_by_name=True)

    label: str | None = Field(alias="class")
    """The most likely class."""
    probability: float | None
    """Its probability, 0 to 1."""
    probabilities: dict[str, float] | None
    """Of all classes, in the order of the network's outputs."""
    typicality: float | None = None
    """Of images like the training images, the share that are as unusual as this one or more."""
    unlike_training: bool | None = None
    """Whether that is below the rate that the server rejects. Null, as above, if the model's file
    has no statistics of its training images."""


class Answer(BaseModel):
    """The predictions for one request, in the order of its images."""

    predictions: list[Prediction]
    seen: str | None = None
    """What the network sees of an image file: a PNG of the network's size, in base64. Null for
    arrays and for several files."""


class Evidence(BaseModel):
    """Where in an image the evidence for its prediction lies; all null if the image is blank."""

    model_config = ConfigDict(populate_by_name=True)

    label: str | None = Field(None, alias="class")
    """The most likely class."""
    method: str | None = None
    """"occlusion" or "Grad-CAM"."""
    image: str | None = None
    """The network's input with the evidence painted over it, orange for the class and blue
    against it: a PNG in base64."""


NOTHING_DRAWN = Prediction(label=None, probability=None, probabilities=None)


class Model:
    """A classifier under a name.

    Args:
        name: In URLs.
        classifier: What predicts.
        limits: Of a request and a response.
        reject: The rate for `unlike_training`.

    Raises:
        ConfigError: The response to one image would exceed its limit.
    """

    def __init__(
        self,
        name: str,
        classifier: Classifier,
        limits: Limits,
        reject: float = DEFAULT_REJECT,
    ) -> None:
        self.name, self.classifier = name, classifier
        self.classes, self.reject = classifier.classes, reject
        self.image_shape = classifier.card.image_shape
        self.reading = choose_reading(classifier.trained_on)
        names = [len(to_json(name)) for name in self.classes]
        size = sum(names) + max(names) + _NUMBER_BYTES * len(names) + _IMAGE_BYTES
        self.most_images = min(limits.request_images, limits.response_bytes // size)
        """Images of a request, so that its response does not exceed its limit either."""
        if not self.most_images:
            raise ConfigError(
                f"cannot serve {name[:100]}: the probabilities of {len(names):,} classes for one "
                f"image need {size:,} bytes, and a response has {limits.response_bytes:,} at most; "
                "give the classes shorter names, or use vggnet predict"
            )

    def task(self, **fields: object) -> dict[str, object]:
        """Return what a worker must know to read a body for this model."""
        most, reading = self.most_images, self.reading.value
        return {"shape": self.image_shape, "reading": reading, "most": most, **fields}


class Service:
    """Models, their queues and their counters. Use it as an asynchronous context.

    Args:
        classifiers: By name; the first one is the default.
        limits: What is accepted.
        threads: CPU threads for one batch, and worker processes.
        reject: The rate for `unlike_training`.
    """

    def __init__(
        self,
        classifiers: Mapping[str, Classifier],
        limits: Limits,
        threads: int,
        reject: float = DEFAULT_REJECT,
    ) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.models = {
            name: Model(name, classifier, limits, reject)
            for name, classifier in classifiers.items()
        }
        self.default = next(iter(self.models.values()))
        self.closing = False
        """Whether the server was asked to stop."""
        self.workers = Workers(min(threads, limits.workers), limits)
        self._threads = threads
        self._admission = Admission(limits.waiting_images)
        self._batchers: dict[str, Batcher] = {}

    async def __aenter__(self) -> Service:
        """Start the workers and the computing thread."""
        async with AsyncExitStack() as stack:
            self._thread = stack.enter_context(ThreadPoolExecutor(1, "vggnet-compute"))
            for name, model in self.models.items():
                batcher = Batcher(
                    self._compute(model), self._thread, self.limits, self.metrics.batch_size.observe
                )
                self._batchers[name] = await stack.enter_async_context(batcher)
            await stack.enter_async_context(self.workers)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Answer what was accepted, then stop."""
        await self._stack.aclose()

    async def predict(self, model: Model, body: bytes, content_type: str) -> Answer:
        """Answer the body of a `/predict` request.

        Raises:
            InputError: The body holds no images for this model.
            OverloadedError: Too much is waiting.
        """
        task = model.task(kind="predict", content_type=content_type)
        fields, found = await self._answer(model, task, body)
        rows = iter(_describe(found, model))
        predictions = [NOTHING_DRAWN if blank else next(rows) for blank in fields["blank"]]
        return Answer(predictions=predictions, seen=fields["seen"])

    async def explain(self, model: Model, body: bytes, content_type: str) -> Evidence:
        """Answer the body of an `/explain` request, which holds one image.

        It costs as much as many predictions, and counts as a whole batch of them.

        Raises:
            InputError: The body does not hold one image for this model.
            OverloadedError: Too much is waiting.
        """
        task = model.task(kind="predict", content_type=content_type)
        with self._admission.accept(self.limits.body_weight):
            fields, data = await self.workers.read(task, body)
        if len(fields["blank"]) != 1:
            raise InputError(f"send one image to explain, not {len(fields['blank'])}")
        if fields["blank"][0]:
            return Evidence()
        image = np.frombuffer(data, np.uint8).reshape(fields["shape"])[0]
        with self._admission.accept(self.limits.batch_images):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._explain, model, image)

    def _explain(self, model: Model, image: Images) -> Evidence:
        with computing("fp32", self._threads):
            found = model.classifier.explain(image)
        painted = encode_png(np.moveaxis(overlay(image, found.heat), -1, 0))
        return Evidence(label=model.classes[found.index], method=found.method, image=painted)

    async def infer(self, model: Model, body: bytes) -> tuple[dict[str, Any], Predictions]:
        """Answer the body of an `infer` request.

        Returns:
            The fields of `Intake`, and the predictions.

        Raises:
            InputError: The body is no request of the protocol for this model.
            OverloadedError: Too much is waiting.
        """
        return await self._answer(model, model.task(kind="infer"), body)

    async def _answer(
        self, model: Model, task: dict[str, object], body: bytes
    ) -> tuple[dict[str, Any], Predictions]:
        with self._admission.accept(self.limits.body_weight):
            fields, data = await self.workers.read(task, body)
        images = np.frombuffer(data, np.uint8).reshape(fields["shape"])
        if not len(images):
            nothing = np.empty((0, len(model.classes)), np.float32)
            return fields, Predictions(model.classes, nothing, images)
        with self._admission.accept(len(images)):
            return fields, await self._batchers[model.name].predict(images)

    def _compute(self, model: Model) -> Any:
        def compute(images: Images) -> Predictions:
            threads = min(self._threads, 1 + len(images) // _IMAGES_PER_THREAD)
            with computing("fp32", threads):
                return model.classifier.predict(images)

        return compute


def _describe(found: Predictions, model: Model) -> list[Prediction]:
    unlike = found.unlike_training(model.reject)
    return [
        Prediction(
            label=label,
            probability=float(row.max()),
            probabilities=dict(zip(model.classes, row.tolist(), strict=True)),
            typicality=None if found.typicality is None else float(found.typicality[number]),
            unlike_training=None if unlike is None else bool(unlike[number]),
        )
        for number, (label, row) in enumerate(zip(found.classes, found.probabilities, strict=True))
    ]
