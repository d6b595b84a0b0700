"""Start and end of the server: signals lose no request, mistakes get one sentence."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from conftest import Outcome

from .conftest import as_file

Command = Callable[..., Outcome]

HALF = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


def test_sigterm_loses_no_request(limited: Any, sheet: np.ndarray) -> None:
    """Under load every accepted request is answered, /readyz says 503, the exit code is 0."""
    body = as_file(sheet)
    outcomes: Counter[str] = Counter()

    def ask(url: str) -> None:
        """Send requests on one connection after the other, until the server is gone."""
        with httpx.Client(base_url=url, timeout=60) as client:
            while True:
                try:
                    response = client.post("/predict", content=body)
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    outcomes[repr(error)] += 1
                    return
                outcomes[str(response.status_code)] += 1

    with (
        limited(wait_seconds=60) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        threads = [threading.Thread(target=ask, args=(server.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while outcomes["200"] <= 8:  # some client has sent a second request
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while client.get("/readyz").status_code != 503:
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        assert server.process.wait(timeout=60) == 0
    assert set(outcomes) == {"200"}


def test_an_unfinished_request_does_not_keep_the_server(limited: Any) -> None:
    """Its client gets 408, and the exit code is 0."""
    limits = {"receive_seconds": 3, "end_seconds": 120, "drain_seconds": 60}
    with limited(**limits) as server, socket.create_connection(server.address) as connection:
        connection.sendall(HALF)
        assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_second_signal_ends_the_server(limited: Any) -> None:
    """With a request that would keep it for minutes, the second SIGTERM ends it at once."""
    limits = {"receive_seconds": 300, "end_seconds": 300, "drain_seconds": 300}
    with limited(**limits) as server, socket.create_connection(server.address) as connection:
        connection.sendall(HALF)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert client.get("/healthz").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            while client.get("/readyz").status_code != 503:
                time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 128 + signal.SIGTERM


def test_the_server_ends_in_any_case(limited: Any) -> None:
    """If something does not end, as an overlong request here, a deadline ends the process."""
    limits = {"receive_seconds": 300, "end_seconds": 3, "drain_seconds": 300}
    with limited(**limits) as server, socket.create_connection(server.address) as connection:
        connection.sendall(HALF)
        assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=120) == 1


def test_mistakes_get_a_sentence(vggnet: Command, digit_model: Path) -> None:
    """A missing model and a taken port exit with 1 and say what to do."""
    done = vggnet("serve", "missing.pth")
    assert done.code == 1
    assert "missing.pth" in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = vggnet("serve", digit_model, "--port", port)
    assert done.code == 1
    assert f"cannot listen on '127.0.0.1', port {port}" in done.err
    assert "--port" in done.err
    assert vggnet("serve", digit_model, "--port", "70000").code == 2


def test_a_missing_extra_is_named(vggnet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra's packages the error is the command that installs them."""
    monkeypatch.delitem(sys.modules, "vggnet.serve.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = vggnet("serve", "model.pth")
    assert done.code == 1
    assert "pip install 'vggnet[serve]'" in done.err
    assert "Traceback" not in done.err
