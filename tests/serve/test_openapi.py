"""Requests generated from the server's own description never break it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from .conftest import Running, read_metrics

FEW = settings(
    max_examples=5,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)


def test_generated_requests_get_described_answers(server: Running, client: httpx.Client) -> None:
    """Valid and invalid requests to every operation get a described answer, no internal error."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation: Any = found.ok()
        described = schema.raw_schema["paths"][operation.path][operation.method]["responses"]
        for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:
            statuses += ask(operation, mode, set(described))
    assert statuses.total() >= 50
    assert statuses[200] > 0
    assert set(statuses) <= {200, 400, 404, 413, 415, 422}
    assert read_metrics(client)["vggnet_errors_total"] == 0


def ask(operation: Any, mode: GenerationMode, described: set[str]) -> Counter[int]:
    """Send some requests, and count the answers by status."""
    statuses: Counter[int] = Counter()

    @FEW
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        response = case.call(timeout=30)
        statuses[response.status_code] += 1
        assert str(response.status_code) in described, response.text

    send()
    return statuses
