"""A classifier made ready for many clients: images in, answers out, bounded on the way."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vggnet.data.decode import decode_image
from vggnet.engine.device import computing
from vggnet.inference.predict import Classifier
from vggnet.inference.read import choose_reading
from vggnet.inference.reading import decoding_side, see
from vggnet.serve.batching import Batcher, Images, Probabilities
from vggnet.serve.limits import Limits
from vggnet.serve.metrics import Metrics
from vggnet.serve.pixels import PixelsError


class Prediction(BaseModel):
    """The answer for one image; every field is null where nothing is drawn on it."""

    model_config = ConfigDict(populate_by_name=True)

    label: str | None = Field(alias="class")
    """The likeliest class."""
    probability: float | None
    """Its probability, 0 to 1."""
    probabilities: dict[str, float] | None
    """Of every class, in the order of the network's outputs."""


class Answer(BaseModel):
    """The answers to one request, in the order of its images."""

    predictions: list[Prediction]
    seen: str | None = None
    """What the network saw of an image file: a PNG of the network's size, in base64."""


NOTHING_DRAWN = Prediction(label=None, probability=None, probabilities=None)


class Service:
    """One classifier, its queue and its counters. Use it as an asynchronous context.

    Args:
        classifier: What answers.
        limits: What is taken on at most.
        threads: CPU threads for one batch.
    """

    def __init__(self, classifier: Classifier, limits: Limits, threads: int) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.classes = classifier.classes
        self.image_shape = classifier.card.image_shape
        self.closing = False
        """Whether the server has been asked to stop."""
        self._classifier, self._threads = classifier, threads
        self._reading = choose_reading(classifier.learnt)
        self._batcher = Batcher(self._compute, limits, self.metrics.batch_size.observe)
        # One at a time, so that at most one image stands unpacked in the memory.
        self._images = ThreadPoolExecutor(1, thread_name_prefix="vggnet-images")

    async def __aenter__(self) -> Service:
        """Start computing."""
        await self._batcher.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Answer what was accepted, then stop."""
        self._images.shutdown()
        await self._batcher.__aexit__(*exception)

    async def answer_file(self, data: bytes) -> Answer:
        """Answer for one PNG, JPEG, WebP or BMP file.

        Raises:
            ImageError: It is none, or has too many pixels.
            OverloadedError: Too much is waiting already.
        """
        with self._batcher.accept(self.limits.file_weight):
            loop = asyncio.get_running_loop()
            seen = await loop.run_in_executor(self._images, self._read, data)
            if seen is None:
                return Answer(predictions=[NOTHING_DRAWN])
            probabilities = await self._batcher.predict(seen[np.newaxis])
        return Answer(predictions=self._describe(probabilities), seen=_as_png(seen))

    async def answer_pixels(self, images: Images) -> Answer:
        """Answer for images as the network takes them, uint8 (N, C, H, W).

        Raises:
            PixelsError: There are more than one request may have.
            OverloadedError: Too much is waiting already.
        """
        return Answer(predictions=self._describe(await self.predict(images)))

    async def predict(self, images: Images) -> Probabilities:
        """Return the probabilities of the classes, (N, num_classes).

        Raises:
            PixelsError: There are more images than one request may have.
            OverloadedError: Too much is waiting already.
        """
        most = self.limits.request_images
        if len(images) > most:
            raise PixelsError(f"send at most {most} images at a time, not {len(images)}")
        with self._batcher.accept(len(images)):
            return await self._batcher.predict(images)

    def _compute(self, images: Images) -> Probabilities:
        with computing("fp32", self._threads):
            return self._classifier.predict(images).probabilities

    def _read(self, data: bytes) -> npt.NDArray[np.uint8] | None:
        """Return what the network is to see of a file, (C, H, W), or None for a blank digit."""
        side = decoding_side(self._reading, self.image_shape)
        image = decode_image(data, max_pixels=self.limits.pixels, side=side)
        seen = see(image, self._reading, self.image_shape)
        return seen[0] if seen else None

    def _describe(self, probabilities: Probabilities) -> list[Prediction]:
        return [
            Prediction(
                label=self.classes[row.argmax()],
                probability=float(row.max()),
                probabilities=dict(zip(self.classes, row.tolist(), strict=True)),
            )
            for row in probabilities
        ]


def _as_png(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a (C, H, W) image as a PNG file in base64."""
    file = BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.save(file, "PNG")
    return b64encode(file.getvalue()).decode("ascii")
