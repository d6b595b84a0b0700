"""Requests that come together are computed together, by one thread behind a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggnet.serve.limits import Limits

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


class OverloadedError(Exception):
    """More images wait than the limits allow."""


@dataclass(frozen=True)
class _Request:
    images: Images
    answer: asyncio.Future[Probabilities]


class Batcher:
    """Answers images in batches, in the order in which they came.

    Everything but `compute` runs in the event loop, so nothing needs a lock. Use it as an
    asynchronous context; leaving it answers what was accepted.

    Args:
        compute: (N, C, H, W) to probabilities (N, num_classes); called in a thread of its own.
        limits: Bounds of the queue and of a batch.
        observe: Told the number of images in each batch.
    """

    def __init__(
        self,
        compute: Callable[[Images], Probabilities],
        limits: Limits,
        observe: Callable[[float], None],
    ) -> None:
        self._compute, self._limits, self._observe = compute, limits, observe
        self._queue: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vggnet-compute")
        self._accepted = 0
        self._left_over: _Request | None = None

    async def __aenter__(self) -> Batcher:
        """Start computing."""
        self._work = asyncio.create_task(self._answer_all())
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Answer what was accepted, then stop."""
        self._queue.put_nowait(None)
        await self._work
        self._thread.shutdown()

    @contextmanager
    def accept(self, images: int) -> Iterator[None]:
        """Take on a request that counts for some images, for as long as the context lasts.

        Raises:
            OverloadedError: Too many are waiting already.
        """
        if self._accepted + images > self._limits.waiting_images:
            raise OverloadedError
        self._accepted += images
        try:
            yield
        finally:
            self._accepted -= images

    async def predict(self, images: Images) -> Probabilities:
        """Compute the probabilities of the classes, together with others' images.

        Args:
            images: uint8, (N, C, H, W), within an `accept`.

        Returns:
            float32, (N, num_classes).
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
                probabilities = await loop.run_in_executor(self._thread, self._compute, images)
            except Exception as error:
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
                continue
            start = 0
            for request in batch:
                stop = start + len(request.images)
                if not request.answer.done():  # its client may have left
                    request.answer.set_result(probabilities[start:stop])
                start = stop

    async def _next_batch(self) -> list[_Request]:
        """Wait for a request, and a little longer for more; empty at the end of all."""
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
        """Return the next request, or None where none comes in time or the end has come."""
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
