"""Requests made up by schemathesis from the server's own OpenAPI description: no answer is 500.

    python benchmarks/stress/hostile_requests.py MODEL --cases 2000

Starts `vggnet serve MODEL` on a free port. Half of the cases are valid, half are not; operations
without a body have one valid case only, so nearly all go to those with one. Ends with 1 if an
answer is 500, and prints how long the slowest refusal took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode


def send_cases(operation: Any, mode: GenerationMode, cases: int) -> tuple[Counter[int], float]:
    """Send cases of one kind; return statuses and the seconds of the slowest refusal."""
    statuses: Counter[int] = Counter()
    slowest = 0.0

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        nonlocal slowest
        started = time.perf_counter()
        response = case.call(timeout=60)
        statuses[response.status_code] += 1
        if response.status_code >= 400:
            slowest = max(slowest, time.perf_counter() - started)
        if response.status_code == 500:
            print(f"500: {case.as_curl_command()[:2000]}")

    send()
    return statuses, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--cases", type=int, default=2000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "vggnet", "serve", str(options.model), "--port", "0"]
    total: Counter[int] = Counter()
    slowest = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" at ")[1].split(" ")[0]
            schema = schemathesis.openapi.from_url(f"{url}openapi.json")
            operations: list[Any] = [found.ok() for found in schema.get_all_operations()]
            bodies = 2 * sum(bool(operation.body) for operation in operations)
            for operation in operations:
                for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:
                    share = options.cases // bodies + 1 if operation.body else 1
                    statuses, seconds = send_cases(operation, mode, share)
                    total, slowest = total + statuses, max(slowest, seconds)
        finally:
            server.terminate()
    print(f"{total.total():,} cases; answers by status: {dict(sorted(total.items()))}")
    print(f"slowest refusal: {1000 * slowest:.0f} ms")
    sys.exit(1 if total[500] else 0)


if __name__ == "__main__":
    main()
