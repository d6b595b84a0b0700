"""What one server takes on at most; everything beyond is refused at once, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on size, number and time. Memory is bounded by their products."""

    body_bytes: int = 1_000_000
    """Of one request's body; beyond, 413."""
    pixels: int = 4_000_000
    """Width times height of one image, read off its header; beyond, 422."""
    request_images: int = 256
    """Images in one request; beyond, 422."""
    waiting_images: int = 256
    """Images accepted and not yet answered, over all requests; beyond, 503."""
    file_weight: int = 4
    """What an image file counts for among these. Preparing one took 20 to 50 ms on one busy
    core, and whoever waits must have an answer within `drain_seconds`."""
    open_bodies: int = 256
    """Requests whose body is being received or answered; beyond, 503."""
    batch_images: int = 128
    """Images computed together; see `BATCH_SIZE` of `vggnet.inference.predict`."""
    gather_seconds: float = 0.005
    """How long the first image of a batch waits for others."""
    receive_seconds: float = 5.0
    """For a whole body to arrive; beyond, 408. Less than `drain_seconds`, so that a half-sent
    request does not outlast the server's end."""
    retry_seconds: int = 1
    """What a 503 tells the client to wait."""
    notice_seconds: float = 1.0
    """After SIGTERM: how long `/readyz` says 503 while requests are still taken."""
    drain_seconds: int = 7
    """After that: how long answers to accepted requests may still take."""
