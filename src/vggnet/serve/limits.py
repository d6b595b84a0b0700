"""The limits of one server: sizes, counts and times. Beyond a limit a request gets an error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits for one request, for all requests together, and for each step in time."""

    body_bytes: int = 1_000_000
    """Body of one request; larger: 413."""
    pixels: int = 4_000_000
    """Width times height of one image; more: 422."""
    request_images: int = 256
    """Images in one request; more: 422."""
    request_files: int = 32
    """Image files in one request; more: 422."""
    response_bytes: int = 1_000_000
    """Size of a response besides the image in it. With many classes it limits the images of a
    request, and models whose class names alone exceed it are refused at the start."""

    connections: int = 1000
    """Open connections, and never more than the process has file descriptors for. New ones
    beyond the limit are closed."""
    open_bodies: int = 256
    """Requests with a body that are being received or answered; more: 503."""
    waiting_images: int = 256
    """Images accepted and not yet answered, in all requests; more: 503."""
    body_weight: int = 4
    """A body counts as this many waiting images while a worker reads it."""
    workers: int = 8
    """Most worker processes that read bodies. The number of cores may be lower."""
    worker_bytes: int = 512 << 20
    """Memory that a worker may use for one body. An image of 4 million pixels needs up to
    100 MB to decode and as much again to prepare."""
    batch_images: int = 128
    """Images in one batch; see `BATCH_SIZE` in `vggnet.inference.predict`."""

    header_seconds: float = 5.0
    """To receive the headers of a request; longer: the connection is closed."""
    receive_seconds: float = 5.0
    """To receive a body; longer: 408. Less than `drain_seconds`, so that an unfinished request
    does not delay the shutdown."""
    wait_seconds: float = 3.0
    """To wait for a free worker; longer: 503."""
    worker_cpu_seconds: int = 3
    """Processor time for one body. Then its worker is ended, and the request gets 422."""
    worker_seconds: float = 30.0
    """The same in real time, for a worker that hangs. Processor time is what a body costs: on a
    busy machine an honest image may take long."""
    send_seconds: float = 20.0
    """For the client to take a response; longer: the connection is closed."""
    gather_seconds: float = 0.005
    """That the first image of a batch waits for others."""
    retry_seconds: int = 1
    """That a 503 asks the client to wait."""

    notice_seconds: float = 1.0
    """After SIGTERM, `/readyz` says 503 for this long while requests are still accepted."""
    drain_seconds: int = 7
    """After that, to finish accepted requests."""
    end_seconds: float = 15.0
    """After SIGTERM, the process ends in any case."""
