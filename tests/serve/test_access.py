"""Hosts, origins, proxies, tokens and several models."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Outcome
from vggnet.errors import ConfigError
from vggnet.serve.access import Access
from vggnet.serve.http_errors import HttpError

from .conftest import SITE, TOKEN, Running, as_file, proxy

Command = Callable[..., Outcome]


def scope(client: str = "192.0.2.1", path: str = "/predict", **headers: str) -> dict[str, Any]:
    """Return the part of an ASGI scope that access looks at."""
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return {"type": "http", "path": path, "scheme": "http", "client": (client, 1), "headers": pairs}


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("[::1]:8000", True),
        ("digits.example", True),
        ("DIGITS.example:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("10.0.0.7", False),
        ("a@localhost", False),
        ("localhost:port", False),
        ("", False),
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    """A server on this machine is found under its names, and DNS rebinding leads nowhere."""
    access = Access("127.0.0.1", names=["digits.example"])
    if allowed:
        assert access.admit(scope(host=host)) == []
    else:
        with pytest.raises(HttpError, match="start the server with --allow-host NAME") as found:
            access.admit(scope(host=host))
        assert found.value.status == 400


def test_a_server_for_the_network_is_found_by_any_address() -> None:
    """With --host 0.0.0.0 any address is allowed, and still no foreign name."""
    access = Access("0.0.0.0")
    access.admit(scope(host="10.0.0.7:8000"))
    with pytest.raises(HttpError):
        access.admit(scope(host="evil.example"))


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", None),
        (SITE, None),
        ("http://127.0.0.1:1", 403),
        ("http://app.example", 403),
        (f"{SITE}.evil.example", 403),
        ("https://app.example:3000", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_origins(origin: str, status: int | None) -> None:
    """Pages of the server and of allowed origins may send requests; the error names the option."""
    access = Access("127.0.0.1", origins=[SITE])
    if status is None:
        headers = dict(access.admit(scope(host="127.0.0.1:8000", origin=origin)))
        assert headers.get(b"access-control-allow-origin") == (
            SITE.encode() if origin == SITE else None
        )
    else:
        with pytest.raises(HttpError, match=r"--allow-origin .*--trusted-proxy") as found:
            access.admit(scope(host="127.0.0.1:8000", origin=origin))
        assert found.value.status == status


@pytest.mark.parametrize("path", ["/predict", "/digits/predict"])
def test_headers_of_a_proxy(path: str) -> None:
    """Host, scheme and prefix of a trusted proxy count, whether or not it cuts the prefix off."""
    headers = {
        "host": "127.0.0.1:8000",
        "origin": "https://digits.example",
        "x_forwarded_host": "inner.example, digits.example",
        "x_forwarded_proto": "https",
        "x_forwarded_prefix": "/digits/",
    }
    access = Access("127.0.0.1", names=["digits.example"], proxies=["192.0.2.0/24"])
    seen = scope("192.0.2.7", path, **headers)
    access.admit(seen)
    assert (seen["scheme"], seen["root_path"]) == ("https", "/digits")
    assert seen["path"] == "/digits/predict"
    assert dict(seen["headers"])[b"host"] == b"digits.example"
    for untrusted in ("203.0.113.1", "testclient"):
        seen = scope(untrusted, path, **headers)
        with pytest.raises(HttpError):
            access.admit(seen)
        assert (seen["scheme"], seen["root_path"], seen["path"]) == ("http", "", path)
    with pytest.raises(HttpError, match="--allow-host"):
        Access("127.0.0.1", proxies=["192.0.2.7"]).admit(scope("192.0.2.7", **headers))


NAMES = ("host", "origin", "authorization", "x-forwarded-host", "x-forwarded-prefix")


@given(
    st.dictionaries(st.sampled_from(NAMES), st.text(st.characters(max_codepoint=255), max_size=30))
)
def test_any_headers_are_refused_without_the_token(headers: dict[str, str]) -> None:
    """No header raises anything but the error for the client."""
    access = Access("127.0.0.1", origins=[SITE], proxies=["192.0.2.1"], token=TOKEN)
    pairs = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
    request = {**scope(), "headers": pairs}

    def check() -> None:
        access.admit(request)
        access.check_token(request)

    with pytest.raises(HttpError) as found:
        check()
    assert found.value.status in (400, 401, 403)


@pytest.mark.parametrize(
    "arguments",
    [
        {"origins": ["*"]},
        {"origins": ["http://a.example/"]},
        {"origins": ["a.example"]},
        {"origins": ["null"]},
        {"proxies": ["proxy.example"]},
        {"root_path": "digits"},
        {"root_path": "/digits/"},
        {"root_path": "/a?b"},
        {"token": ""},
        {"token": "é"},
    ],
)
def test_invalid_rules_are_refused(arguments: dict[str, Any]) -> None:
    """Each is an error that names its option."""
    with pytest.raises(ConfigError, match=r"--(allow-origin|trusted-proxy|root-path|token)"):
        Access("127.0.0.1", **arguments)


def test_pages_of_another_site(public: Running, sheet: np.ndarray) -> None:
    """A preflight request of an allowed origin succeeds, and its page may read the answer."""
    with httpx.Client(base_url=public.url, timeout=60) as client:
        asked = {"origin": SITE, "access-control-request-method": "POST"}
        asked["access-control-request-headers"] = "content-type"
        preflight = client.options("/predict", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == SITE
        assert "content-type" in preflight.headers["access-control-allow-headers"]
        for body, status in ((as_file(sheet), 200), (b"no image", 422)):
            answer = client.post("/predict", content=body, headers={"origin": SITE})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == SITE
        other = client.options("/predict", headers={**asked, "origin": "http://other.example"})
        assert other.status_code == 403
        assert "--allow-origin http://other.example" in other.json()["detail"]
        assert "access-control-allow-origin" not in other.headers


def test_several_models(public: Running, sheet: np.ndarray) -> None:
    """Each model answers under its name in both APIs; the first one is the default."""
    with httpx.Client(base_url=public.url, timeout=60) as client:
        models = client.get("/models").json()
        assert [one["name"] for one in models] == ["model", "second"]
        assert models[0]["classes"] == list("0123456789")
        for name in ("model", "second"):
            answer = client.post(f"/models/{name}/predict", content=as_file(sheet))
            assert answer.json()["predictions"][0]["class"] == "5"
            assert client.get(f"/v2/models/{name}").json()["name"] == name
        assert client.get("/v2/models/vggnet").status_code == 200


@pytest.mark.parametrize("host", ["upstream", "client"])
def test_behind_a_proxy(public: Running, sheet: np.ndarray, host: str) -> None:
    """Page, API and errors work under a prefix, with either Host and a browser's origin."""
    with proxy(public, host) as url, httpx.Client(base_url=url, timeout=60) as client:
        origin = {"origin": url.removesuffix("/digits")}
        assert "<title>" in client.get("/").text
        assert client.get("/page.js").status_code == 200
        answer = client.post("/predict", content=as_file(sheet), headers=origin)
        assert answer.json()["predictions"][0]["class"] == "5"
        detail = client.post("/predict", content=b"", headers=origin).json()["detail"]
        assert detail.endswith(f"{url}/predict")
        assert list(client.post("/v2/models/x/infer", headers=origin).json()) == ["error"]


def test_an_unknown_proxy_is_told_the_option(server: Running) -> None:
    """Without --trusted-proxy a request whose Host was rewritten gets an error that names it."""
    with proxy(server, "upstream") as url:
        origin = {"origin": url.removesuffix("/digits")}
        answer = httpx.post(f"{url}/predict", content=b"", headers=origin, timeout=60)
        assert answer.status_code == 403
        assert "--trusted-proxy" in answer.json()["detail"]


def test_token(protected: Running, sheet: np.ndarray) -> None:
    """All but health needs the token, as a bearer token or as a password."""
    with httpx.Client(base_url=protected.url, timeout=60) as client:
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        wrong: list[dict[str, str]] = [
            {},
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": "Bearer"},
            {"authorization": TOKEN},
            {"authorization": "Basic !"},
        ]
        for headers in wrong:
            for path in ("/", "/metrics", "/openapi.json", "/models"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Basic")
            assert client.post("/predict", content=b"", headers=headers).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        answer = client.post("/predict", content=as_file(sheet), headers=bearer)
        assert answer.json()["predictions"][0]["class"] == "5"
        assert client.get("/", auth=("anybody", TOKEN)).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--host", ""], 2, "--host is empty"),
        (["--host", " "], 2, "--host is empty"),
        (["--token", ""], 2, "--token"),
        (["--allow-origin", "*"], 2, "--allow-origin"),
        (["--host", "a..b"], 1, "cannot listen on 'a..b'"),
        (["--host", "256.1.1.1"], 1, "cannot listen on '256.1.1.1'"),
    ],
)
def test_invalid_options(
    vggnet: Command, digit_model: Path, arguments: list[str], code: int, message: str
) -> None:
    """Each ends with one sentence and without a traceback."""
    with socket.create_server(("", 0)) as taken:  # a server that starts nevertheless ends at once
        done = vggnet("serve", digit_model, "--port", taken.getsockname()[1], *arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1


def test_two_models_need_two_names(vggnet: Command, digit_model: Path) -> None:
    """The same name twice is refused before anything is loaded."""
    done = vggnet("serve", digit_model, digit_model)
    assert done.code == 2
    assert "the same name" in done.err


def test_a_server_for_the_network_says_so(public: Running, protected: Running) -> None:
    """The log warns that other machines can reach the server, and if there is no token."""
    warning = "other machines can reach this server"
    assert f"{warning}, and there is no authentication without --token" in public.log.read_text()
    assert f"{warning}\n" in protected.log.read_text()
