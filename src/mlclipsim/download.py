"""One file from the network to its place: resumed where it was cut off, checked, there whole or not at all.

While it comes, it is ``<name>.part`` beside its place; only a complete and checked file takes the name. A
part is resumed by a range request: with a known sha256 from any mirror, since the sum decides in the end;
without one only where the server says by its validator (ETag or date, kept in ``<name>.part.json``) that the
file is still the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock
from requests.exceptions import ChunkedEncodingError, ConnectionError, ReadTimeout, RequestException
from tqdm import tqdm
from urllib3.exceptions import HTTPError as BrokenStream

from mlclipsim.artifacts import ArtifactError, sha256_of

__all__ = ["DownloadError", "Remote", "download"]

_ATTEMPTS = 4  # in a row that bring nothing new, of each address
_PAUSE_S = 0.5  # before the second of them, doubled each time
_TIMEOUT_S = (10.0, 30.0)  # to connect; without a byte
_CHUNK = 2**18  # bytes
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be others a moment later
_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)


class DownloadError(ArtifactError):
    """A file could not be had from any of its addresses, or what came is not it."""


@dataclass(frozen=True)
class Remote:
    """A file on the network, and what is known of it.

    Attributes:
        urls: the same file at several addresses, asked in this order.
        sha256: its sum, or at least eight first digits of it, as names of weights hold them; None: unknown.
        n_bytes: its size; None: unknown.
    """

    urls: tuple[str, ...]
    sha256: str | None = None
    n_bytes: int | None = None

    @property
    def name(self) -> str:
        return self.urls[0].rpartition("/")[2]


class _InterruptedError(Exception):
    """This attempt failed; another one may succeed."""


class _RefusedError(Exception):
    """This address does not have the file."""


def download(remote: Remote, target: Path) -> Path:
    """Get a file that is not there yet; a file that is there is checked and kept.

    Several processes may ask for one file: the first one gets it, the others wait and find it.

    Raises:
        DownloadError: no address gave it, or the file that is there is another one.
    """
    if target.exists():
        return _kept(remote, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    with FileLock(lock):
        if target.exists():
            return _kept(remote, target)
        problems = []
        for url in remote.urls:
            try:
                _get(url, remote, target)
            except _RefusedError as error:
                problems.append(f"{url}: {error}")
            else:
                lock.unlink(missing_ok=True)  # whoever waits for it, or makes a new one, finds the file
                return target
    raise DownloadError(f"{target.name} could not be downloaded ({'; '.join(problems)})")


def _kept(remote: Remote, path: Path) -> Path:
    try:
        _check(remote, path)
    except _RefusedError as error:
        raise DownloadError(f"{path}: {error}; move it away and fetch it again") from None
    return path


def _check(remote: Remote, path: Path) -> None:
    """Refuse a file that is not the remote one, as far as that is known."""
    with path.open("rb") as stream:
        if _PAGE.match(stream.read(1024)):
            raise _RefusedError("the server answers with a page instead of the file")
    size = path.stat().st_size
    if remote.n_bytes is not None and size != remote.n_bytes:
        raise _RefusedError(f"expected {remote.n_bytes:,} bytes, got {size:,}")
    if remote.sha256 and not (seen := sha256_of(path)).startswith(remote.sha256):
        raise _RefusedError(f"expected sha256 {remote.sha256}, got {seen}")


def _get(url: str, remote: Remote, target: Path) -> None:
    """One address, as often as its attempts bring more of the file than any before."""
    part = _Part(target, url, trusted=remote.sha256 is not None)
    best, failures = part.size, 0
    while True:
        try:
            part.complete(remote)
            break
        except _InterruptedError as error:
            failures = 1 if part.size > best else failures + 1
            best = max(best, part.size)
            if failures >= _ATTEMPTS:
                raise _RefusedError(f"{error}, {failures} times without progress") from None
            time.sleep(_PAUSE_S * 2 ** (failures - 1))
    try:
        _check(remote, part.path)
    except _RefusedError:
        part.discard()  # else every later attempt would go on from wrong bytes
        raise
    part.finish(target)


class _Part:
    """What is here of a file so far, and the validator of the version that it is of.

    Args:
        trusted: a sum will tell in the end, so that bytes from anywhere may be continued.
    """

    def __init__(self, target: Path, url: str, *, trusted: bool) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.url = url
        self._note = target.with_name(f"{target.name}.part.json")
        self._trusted = trusted
        if not trusted and self.size and self._validator() is None:
            self.discard()

    @property
    def size(self) -> int:
        """In bytes; 0 where there is nothing."""
        return self.path.stat().st_size if self.path.exists() else 0

    def _validator(self) -> str | None:
        """Of the server that the part came from, if this is it."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return note.get("validator") if note.get("url") == self.url else None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        with self.path.open("rb+") as stream:
            os.fsync(stream.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)

    def complete(self, remote: Remote) -> None:
        """Ask for what is missing, and append it.

        Raises:
            _InterruptedError: it broke off; what came is kept.
            _RefusedError: the server has no such file, or another one.
        """
        if self.size and self.size == remote.n_bytes:
            return
        headers = {"Accept-Encoding": "identity"}  # sizes and ranges are of the file, not of its compression
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if not self._trusted:
                headers["If-Range"] = self._validator() or ""
        with _answer(self.url, headers) as response:
            if response.status_code == 416:  # nothing lies beyond what is here
                self._at_the_end(response)
                return
            if response.status_code in _PASSING:
                raise _InterruptedError(f"status {response.status_code}")
            if response.status_code not in (200, 206):
                raise _RefusedError(f"status {response.status_code}")
            start = _start(response) if response.status_code == 206 else 0
            if start != self.size:
                self.discard()  # the server begins anew, or somewhere else
                if start:
                    raise _InterruptedError(f"asked for bytes from {self.size:,}, got them from {start:,}")
            total = _total(response, start)
            if None not in (total, remote.n_bytes) and total != remote.n_bytes:
                raise _RefusedError(f"expected {remote.n_bytes:,} bytes, the server announces {total:,}")
            self._has_room(total or remote.n_bytes)
            self._remember(response)
            self._append(response, total, remote)

    def _at_the_end(self, response: requests.Response) -> None:
        found = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != self.size:
            self.discard()
            raise _InterruptedError("the server has a shorter file than the part that is here")

    def _has_room(self, total: int | None) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - self.size > free:
            raise _RefusedError(
                f"needs {total - self.size:,} bytes, but {self.path.parent} has {free:,} free"
            )

    def _remember(self, response: requests.Response) -> None:
        headers = response.headers
        etag = headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
        self._note.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")

    def _append(self, response: requests.Response, total: int | None, remote: Remote) -> None:
        most = remote.n_bytes if total is None else total
        with (
            self.path.open("ab") as stream,
            tqdm(
                desc=self.path.name.removesuffix(".part"),
                total=most,
                initial=self.size,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
            ) as progress,
        ):
            try:
                while chunk := response.raw.read1(_CHUNK, decode_content=False):  # as it comes
                    stream.write(chunk)
                    progress.update(len(chunk))
                    if most is not None and stream.tell() > most:
                        raise _RefusedError(f"expected {most:,} bytes, the server sends more")
            except (BrokenStream, OSError) as error:
                raise _InterruptedError(_reason(error)) from None
            except _RefusedError:
                self.discard()
                raise
        if total is not None and self.size < total:
            raise _InterruptedError(f"it ended after {self.size:,} of {total:,} bytes")


@contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """The response to a request, its body not read yet; redirections are followed, thirty at most."""
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S)
    except (ConnectionError, ReadTimeout, ChunkedEncodingError) as error:
        raise _InterruptedError(_reason(error)) from None
    except RequestException as error:  # an address that is none, or leads in a circle
        raise _RefusedError(_reason(error)) from None
    with response:
        yield response


def _reason(error: Any) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _start(response: requests.Response) -> int:
    """Where a partial answer begins."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None:
        raise _RefusedError("a partial answer that does not say of which part")
    return int(found[1])


def _total(response: requests.Response, start: int) -> int | None:
    """Size of the whole file, as the server announces it; None: it does not."""
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None
