"""Starting and ending: signals lose nothing, mistakes get a sentence."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

from conftest import Outcome

from .conftest import as_file, serving

Command = Callable[..., Outcome]


def test_sigterm_loses_no_request(digit_model: Path, sheet: np.ndarray) -> None:
    """Under load every request that was taken is answered, /readyz says 503, the exit code is 0."""
    body = as_file(sheet)
    outcomes: Counter[str] = Counter()

    def ask(url: str) -> None:
        """Ask on one connection after the other, until nobody listens any more."""
        with httpx.Client(base_url=url, timeout=30) as client:
            while True:
                try:
                    response = client.post(
                        "/predict", content=body, headers={"content-type": "image/png"}
                    )
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    outcomes[repr(error)] += 1
                    return
                outcomes[str(response.status_code)] += 1

    with serving(digit_model) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        threads = [threading.Thread(target=ask, args=(server.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        while client.get("/readyz").status_code != 503:
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        assert server.process.wait(timeout=10) == 0
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 8


def test_a_half_sent_request_does_not_keep_the_server(digit_model: Path) -> None:
    """A client that never finishes its request is told so, and the server ends within 10 s."""
    with serving(digit_model) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 9\r\n\r\n"
            connection.sendall(head.encode())
            httpx.get(f"{server.url}/healthz", timeout=30)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=10) == 0
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_mistakes_get_a_sentence(vggnet: Command, digit_model: Path) -> None:
    """A missing model and a taken port end with 1 and the way out."""
    done = vggnet("serve", "missing.pth")
    assert done.code == 1
    assert "missing.pth: there is no such file" in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = vggnet("serve", digit_model, "--port", port)
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in done.err
    assert "--port" in done.err
    assert vggnet("serve", digit_model, "--port", "70000").code == 2


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Without the extra's packages the error is the command that installs them."""
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')\n")
    done = subprocess.run(
        [sys.executable, "-m", "vggnet", "serve", "model.pth"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'vggnet[serve]'" in done.stderr
    assert "Traceback" not in done.stderr
