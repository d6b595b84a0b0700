"""Files from mirrors, verified, whole or not there: pooch writes beside, then renames."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vggnet.data.lock import one_at_a_time
from vggnet.data.progress import count_bytes
from vggnet.errors import DataError

_TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and to wait for the next bytes of a server that fell silent."""

TIMEOUT = 10.0
"""Seconds in which all mirrors are tried again, with growing pauses between."""

_CHUNK = 1 << 16
"""Bytes between two writes."""

_PAGE = (b"<!doctype", b"<html", b"<?xml")
"""How a web page begins, in small letters."""

Check = Callable[[Path], None]
"""Raises DataError, in words, where a file is not the expected one."""


def fetch(
    name: str, folder: Path, urls: Sequence[str], check: Check, timeout: float = TIMEOUT
) -> Path:
    """Return `folder/name`, downloaded unless it is there.

    It is written beside its place, checked, and renamed: a file that is there is whole.
    When several processes ask at once, one downloads and the others wait.

    Args:
        name: Of the file.
        folder: Where it goes; made where it is missing.
        urls: Addresses of the same file, tried in turn.
        check: Tells whether a file is the right one.
        timeout: Seconds in which tries go on when all addresses have failed.

    Raises:
        DataError: No address gave the right file, and why each did not; or it cannot be
            written.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder / f".{name}.lock"):
            if not path.exists():  # or else another process fetched it meanwhile
                _download(path, urls, check, timeout)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; "
            "set VGGNET_CACHE_DIR to a folder with room"
        ) from None
    return path


def _download(path: Path, urls: Sequence[str], check: Check, timeout: float) -> None:
    """Try every address in turn, and again after a pause, until one gives the right file."""
    deadline, pause = time.monotonic() + timeout, 1.0
    while True:
        failures = {}
        for url in urls:
            if pause == 1.0:
                print(f"vggnet: downloading {url}", file=sys.stderr)
            try:
                _download_from(url, path, check)
                return
            except _AddressError as error:
                failures[url] = error
        urls = [url for url, error in failures.items() if error.may_pass]
        if not urls or time.monotonic() + pause > deadline:
            reasons = "; ".join(f"{url}: {error}" for url, error in failures.items())
            raise DataError(
                f"cannot download {path.name}: {reasons}; put it into {path.parent} yourself, or "
                "name a server that has it in VGGNET_MIRROR"
            )
        time.sleep(pause)
        pause *= 2


class _AddressError(Exception):
    """An address did not give the file; `may_pass` where another try may be luckier."""

    def __init__(self, reason: str, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.may_pass = may_pass


def _download_from(url: str, path: Path, check: Check) -> None:
    """Fetch and check one address.

    Raises:
        _AddressError: Why it did not give the file.
        OSError: The disk does not take it.
    """
    # Imported here: they take 0.2 s, and nearly every run finds its files on the disk.
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # it would tell of every try itself
    try:
        pooch.retrieve(
            url,
            known_hash=None,  # checked by _receive, which can say more
            fname=path.name,
            path=path.parent,
            downloader=lambda url, output_file, _: _receive(url, Path(output_file), check),
        )
    except requests.exceptions.HTTPError as error:
        answer = error.response
        status, words = (answer.status_code, answer.reason) if answer is not None else (0, "")
        may_pass = status >= 500 or status == 429
        raise _AddressError(f"the server answered {status} {words}", may_pass) from None
    except requests.exceptions.Timeout:
        raise _AddressError("the server did not answer in time", may_pass=True) from None
    except requests.exceptions.ChunkedEncodingError:
        raise _AddressError("the connection was cut before the end", may_pass=True) from None
    except requests.exceptions.ConnectionError:
        raise _AddressError("the server cannot be reached, or fell silent", may_pass=True) from None
    except (requests.exceptions.RequestException, ValueError) as error:
        raise _AddressError(" ".join(str(error).split())) from None


def _receive(url: str, path: Path, check: Check) -> None:
    """Write what an address gives to `path`, and check it."""
    import requests

    # A server must not unpack a .gz on the way: the packed file has the hash.
    headers = {"Accept-Encoding": "identity"}
    with (
        requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response,
        path.open("wb") as file,
    ):
        response.raise_for_status()
        with count_bytes(int(response.headers.get("Content-Length", 0))) as advance:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
    with path.open("rb") as file:
        if file.read(256).lstrip().lower().startswith(_PAGE):
            raise _AddressError("a web page came instead of the file; a login, or a proxy?")
    path.chmod(0o644)  # a temporary file is its user's alone, and caches are shared
    try:
        check(path)
    except DataError as error:
        raise _AddressError(str(error).replace(str(path), "what came")) from None
