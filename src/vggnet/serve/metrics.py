"""Counters of the server in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS = ("GET", "HEAD", "POST", "OPTIONS")


class Metrics:
    """Counters of one server, in its own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ("method", "route", "status")
        self.requests = Counter(
            "vggnet_requests", "Requests answered.", labels, registry=self._registry
        )
        self.errors = Counter(
            "vggnet_errors", "Internal errors; each has a line in the log.", registry=self._registry
        )
        self.latency = Histogram(
            "vggnet_request_seconds",
            "From the headers of a request to the end of its response.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "vggnet_requests_in_flight", "Requests not yet answered.", registry=self._registry
        )
        self.batch_size = Histogram(
            "vggnet_batch_images", "Images in a batch.", buckets=IMAGES, registry=self._registry
        )

    def render(self) -> bytes:
        """Return all counters as text."""
        return generate_latest(self._registry)


class Measured:
    """ASGI middleware that counts and times requests.

    The label of a route is its template. All unknown paths share one label, and so do all
    unknown methods, so a scanner cannot fill the memory with labels.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record its status and duration."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        started = time.perf_counter()

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                known = route != "other" and scope["method"] in _METHODS
                method = scope["method"] if known else "other"
                self._metrics.requests.labels(method, route, status or "none").inc()
                self._metrics.latency.labels(route).observe(time.perf_counter() - started)
