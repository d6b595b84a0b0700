"""Work that threads do ahead of the loop that needs its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def work_ahead(
    work: Callable[[S], T], items: Iterable[S], threads: int = 1, count: int = 2
) -> Iterator[T]:
    """Yield the results of `work` in order, while threads work on the next `count` items."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vggnet-read")
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
