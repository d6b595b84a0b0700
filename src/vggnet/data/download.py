"""Downloads from mirrors, verified; a file is either complete or not there."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vggnet.data.lock import one_at_a_time
from vggnet.data.progress import count_bytes
from vggnet.errors import DataError

if TYPE_CHECKING:
    import requests

_TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and to wait for a server's next bytes."""

_MOST_BYTES = 1 << 30
"""The largest file that is downloaded; EMNIST's archive, the largest of the catalog, has half."""

_SLOWEST = 10_000
"""Bytes per second on average, after the first `_GRACE` seconds, that a server must send."""

_GRACE = 30.0
"""Seconds."""

TIMEOUT = 10.0
"""Seconds in which all mirrors are tried again, with growing pauses in between."""

_CHUNK = 1 << 16
"""Bytes of one write."""

_PAGE = (b"<!doctype", b"<html", b"<?xml")
"""How a web page begins, in small letters."""

Check = Callable[[Path], None]
"""Raises DataError if a file is not the expected one."""


def fetch(
    name: str, folder: Path, urls: Sequence[str], check: Check, timeout: float = TIMEOUT
) -> Path:
    """Return `folder/name`, downloaded unless it is there.

    It is written beside its place, checked, and renamed, so a file that is there is complete.
    If several processes ask at once, one downloads and the others wait.

    Args:
        name: The file's name.
        folder: Where it goes; made if it is missing.
        urls: Addresses of the same file, tried in turn.
        check: Checks whether a file is the right one.
        timeout: Seconds in which tries continue after all addresses have failed.

    Raises:
        DataError: No address gave the right file, and why; or it cannot be written.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder / f".{name}.lock"):
            if not path.exists():  # another process may have downloaded it
                _download(path, urls, check, timeout)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; "
            "set VGGNET_CACHE_DIR to a folder with room"
        ) from None
    return path


def hide_password(url: str) -> str:
    """Return an address without the user name and the password in it."""
    return re.sub(r"(?<=://)[^/\s]*@", "", url)


def host_of(url: str) -> str:
    """Return the host of an address, or the address if it has none."""
    shown = hide_password(url)
    return shown.partition("://")[2].partition("/")[0] or shown


def _download(path: Path, urls: Sequence[str], check: Check, timeout: float) -> None:
    """Try every address in turn, and again after a pause, until one gives the right file."""
    deadline, pause = time.monotonic() + timeout, 1.0
    while True:
        failures = {}
        for url in urls:
            if pause == 1.0:
                print(f"vggnet: downloading {hide_password(url)}", file=sys.stderr)
            try:
                _download_from(url, path, check)
                return
            except _AddressError as error:
                failures[url] = error
        urls = [url for url, error in failures.items() if error.may_pass]
        if not urls or time.monotonic() + pause > deadline:
            reasons = "; ".join(f"{hide_password(url)}: {why}" for url, why in failures.items())
            raise DataError(
                f"cannot download {path.name}: {reasons}; put it into {path.parent} yourself, or "
                "name a server that has it in VGGNET_MIRROR"
            )
        time.sleep(pause)
        pause *= 2


class _AddressError(Exception):
    """An address did not give the file; `may_pass` if another try may succeed."""

    def __init__(self, reason: str, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.may_pass = may_pass


def _download_from(url: str, path: Path, check: Check) -> None:
    """Download and check one address.

    Raises:
        _AddressError: Why it did not give the file.
        OSError: The disk does not take it.
    """
    # Imported here: they take 0.2 s, and nearly every run finds its files on disk.
    import pooch
    import requests
    import urllib3

    pooch.get_logger().setLevel("ERROR")  # it would report every try itself
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
    except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
        raise _AddressError("the server did not answer in time", may_pass=True) from None
    except urllib3.exceptions.HTTPError:
        raise _AddressError("the connection was cut before the end", may_pass=True) from None
    except requests.exceptions.ConnectionError:
        raise _AddressError("the server cannot be reached, or stopped", may_pass=True) from None
    except (requests.exceptions.RequestException, ValueError) as error:
        raise _AddressError(hide_password(" ".join(str(error).split()))) from None


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
        _copy(response, file)
    with path.open("rb") as file:
        if file.read(256).lstrip().lower().startswith(_PAGE):
            raise _AddressError("a web page came instead of the file; a login, or a proxy?")
    path.chmod(0o644)  # a temporary file is private to its user, and caches are shared
    try:
        check(path)
    except DataError as error:
        raise _AddressError(str(error).replace(str(path), "what came")) from None


def _copy(response: requests.Response, file: IO[bytes]) -> None:
    """Write a response to a file, unless it is too large or comes too slowly.

    Raises:
        _AddressError: It is.
    """
    too_large = f"the file is larger than the {_MOST_BYTES:,} bytes that are downloaded"
    claimed = response.headers.get("Content-Length", "")
    expected = int(claimed) if claimed.isdecimal() else 0
    if expected > _MOST_BYTES:
        raise _AddressError(too_large)
    start, size = time.monotonic(), 0
    with count_bytes(expected) as advance:
        # Whatever the socket has: a full chunk of a slow server could take hours.
        while chunk := response.raw.read1(_CHUNK):
            size += len(chunk)
            seconds = time.monotonic() - start
            if size > _MOST_BYTES:
                raise _AddressError(too_large)
            if seconds > _GRACE and size < _SLOWEST * seconds:
                raise _AddressError(
                    f"the server is too slow: {size / seconds:,.0f} bytes per second", may_pass=True
                )
            file.write(chunk)
            advance(len(chunk))
