"""Keep the exporters' own warnings from a user who can do nothing about them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drop Python's and torch's warnings for a while; errors still come through.

    The exporters warn of deprecated calls within torch, and log that torchvision is not
    installed, which nothing here needs.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
