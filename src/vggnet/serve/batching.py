"""Images of several requests are computed together, by one thread behind a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggnet.inference.predictions import Predictions
from vggnet.serve.limits import Limits

Images = npt.NDArray[np.uint8]


class OverloadedError(Exception):
    """The server has too much to do."""


class Admission:
    """Counts the images that are accepted and not yet answered, over all models.

    Args:
        most: Images at a time.
    """

    def __init__(self, most: int) -> None:
        self._most, self._accepted = most, 0

    @contextmanager
    def accept(self, images: int) -> Iterator[None]:
        """Accept some images for as long as the context lasts.

        Raises:
            OverloadedError: Too many are waiting.
        """
        if self._accepted + images > self._most:
            raise OverloadedError
        self._accepted += images
        try:
            yield
        finally:
            self._accepted -= images


@dataclass(frozen=True)
class _Request:
    images: Images
    answer: asyncio.Future[Predictions]


class Batcher:
    """Computes images in batches, in the order of their requests.

    Everything but `compute` runs in the event loop, so nothing needs a lock. Use it as an
    asynchronous context; leaving it answers what is waiting.

    Args:
        compute: Predicts images (N, C, H, W).
        thread: Runs `compute`.
        limits: Size of a batch, and how long its first image waits.
        observe: Called with the number of images in each batch.
    """

    def __init__(
        self,
        compute: Callable[[Images], Predictions],
        thread: Executor,
        limits: Limits,
        observe: Callable[[float], None],
    ) -> None:
        self._compute, self._thread, self._limits = compute, thread, limits
        self._observe = observe
        self._queue: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._left_over: _Request | None = None

    async def __aenter__(self) -> Batcher:
        """Start computing."""
        self._work = asyncio.create_task(self._answer_all())
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Answer what is waiting, then stop."""
        self._queue.put_nowait(None)
        await self._work

    async def predict(self, images: Images) -> Predictions:
        """Predict images, together with those of other requests.

        Args:
            images: uint8, (N, C, H, W).
        """
        request = _Request(images, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(request)
        return await request.answer

    async def _answer_all(self) -> None:
        while batch := await self._next_batch():
            images = np.concatenate([request.images for request in batch])
            self._observe(len(images))
            loop = asyncio.get_running_loop()
            try:
                predictions = await loop.run_in_executor(self._thread, self._compute, images)
            except Exception as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            start = 0
            for request in batch:
                stop = start + len(request.images)
                if not request.answer.done():  # its client may be gone
                    request.answer.set_result(predictions[start:stop])
                start = stop

    async def _next_batch(self) -> list[_Request]:
        """Wait for a request, then a moment for more; empty after the last one."""
        first = self._left_over or await self._queue.get()
        self._left_over = None
        if first is None:
            return []
        batch, count = [first], len(first.images)
        deadline = asyncio.get_running_loop().time() + self._limits.gather_seconds
        while count < self._limits.batch_images:
            request = await self._get_until(deadline)
            if request is None:
                break
            if count + len(request.images) > self._limits.batch_images:
                self._left_over = request
                break
            batch.append(request)
            count += len(request.images)
        return batch

    async def _get_until(self, deadline: float) -> _Request | None:
        """Return the next request, or None if there is none in time or the server ends."""
        if self._queue.empty():
            try:
                async with asyncio.timeout_at(deadline):
                    request = await self._queue.get()
            except TimeoutError:
                return None
        else:
            request = self._queue.get_nowait()
        if request is None:
            self._queue.put_nowait(None)
        return request
