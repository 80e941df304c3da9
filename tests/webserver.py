"""A server on this machine that misbehaves as asked, for what is downloaded."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Behaviour = Callable[["Handler", bytes], None]


@dataclass
class Web:
    """What the server has, by path, and how it behaves there.

    Attributes:
        asked: path and Range header of every request so far, in order.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def put(self, path: str, content: bytes, behaviour: Behaviour | None = None) -> str:
        """Serve a file, and say at which address."""
        self.files[path] = content
        if behaviour:
            self.behaviours[path] = behaviour
        return f"{self.address}{path}"


class Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.web.asked.append((self.path, self.headers.get("Range")))
        if self.path not in self.web.files:
            self.send_error(404)
            return
        self.web.behaviours.get(self.path, whole)(self, self.web.files[self.path])

    def start(self) -> int:
        """The first byte asked for, unless it is of another version of the file."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        same = condition is None or condition == f'"{len(self.web.files[self.path])}"'
        return int(found[1]) if found and same else 0

    def head(self, content: bytes, length: int | None = None, kind: str = "application/octet-stream") -> int:
        """Status and headers of an answer to a request for a part or all of ``content``."""
        start = self.start()
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
        else:
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start if length is None else length))
        self.send_header("Content-Type", kind)
        self.send_header("ETag", f'"{len(content)}"')
        self.end_headers()
        return start

    def log_message(self, *_: object) -> None:
        pass


def whole(handler: Handler, content: bytes) -> None:
    """As a good server does: all of it, or from where it is asked."""
    start = handler.head(content)
    handler.wfile.write(content[start:])


def without_ranges(handler: Handler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def dropping(n_bytes: int) -> Behaviour:
    """Closes the connection after so many bytes of each answer."""

    def behave(handler: Handler, content: bytes) -> None:
        start = handler.head(content)
        handler.wfile.write(content[start : start + n_bytes])
        handler.close_connection = True

    return behave


def stalling(seconds: float) -> Behaviour:
    """Says nothing more after half of what is left."""

    def behave(handler: Handler, content: bytes) -> None:
        start = handler.head(content)
        handler.wfile.write(content[start : (start + len(content)) // 2])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return behave


def announcing(length: int) -> Behaviour:
    """Lies about the length: sends the content, and closes."""

    def behave(handler: Handler, content: bytes) -> None:
        start = handler.head(content, length)
        handler.wfile.write(content[start:])
        handler.close_connection = True

    return behave


def unannounced(handler: Handler, content: bytes) -> None:
    """Does not say how long it is."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content)
    handler.close_connection = True


def status(code: int) -> Behaviour:
    return lambda handler, content: handler.send_error(code)


def redirecting(path: str) -> Behaviour:
    def behave(handler: Handler, content: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Each answer by the next of them, the last one for ever."""
    left = list(behaviours)
    return lambda handler, content: (left.pop(0) if len(left) > 1 else left[0])(handler, content)


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"web": web}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up, as they may
    web.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
