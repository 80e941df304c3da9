"""A browser to open pages in: headless Chromium over the DevTools protocol, with what it complained about."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
]
PATIENCE_S = 60


class Browser:
    """One Chromium; messages are JSON, each ended by a zero byte, over its file descriptors 3 and 4."""

    def __init__(self, profile: Path):
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()

        def connect() -> None:  # in the child: whatever 3 and 4 were, they are the pipes now
            ends = os.dup(to_read), os.dup(to_write)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM or "chromium", *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; what happens meanwhile is kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']['message']}"
        return answer["result"]

    def wait(self, method: str, session: str) -> None:
        """Until an event of this kind has come."""
        while not any(e.get("method") == method and e.get("sessionId") == session for e in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        stop = time.monotonic() + PATIENCE_S
        os.set_blocking(self._from, False)
        while b"\0" not in self._buffer:
            with contextlib.suppress(BlockingIOError):
                self._buffer += os.read(self._from, 2**20)
                continue
            assert self._process.poll() is None, "Chromium has ended"
            assert time.monotonic() < stop, f"no word from Chromium for {PATIENCE_S} s"
            time.sleep(0.01)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


class Page:
    """One file, opened at one width; ``complaints`` and ``requests`` are as of now."""

    def __init__(self, browser: Browser, path: Path, width: int, dark: bool):
        self._browser, self._path, self._width = browser, path, width
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        browser.wait("Page.loadEventFired", self._session)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def run(self, expression: str) -> Any:
        """The value of some JavaScript in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings: of the console, of scripts, of the network, of the content security policy."""
        self.run("new Promise((done) => setTimeout(done, 100))")  # let what is under way come in
        found = []
        for event in self._mine():
            given = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(given["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
                found.append(str(given["args"]))
            elif event["method"] == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
                found.append(given["entry"]["text"])
            elif event["method"] == "Page.javascriptDialogOpening":
                found.append(f"dialog: {given['message']}")
        return found

    @property
    def requests(self) -> list[str]:
        """Addresses asked for, but for the page's own and those that hold their content themselves."""
        asked = [
            event["params"]["request"]["url"]
            for event in self._mine()
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:") and url != self._path.as_uri()]

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.run("document.documentElement.scrollWidth") - self._width

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _mine(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]


@pytest.fixture(scope="session")
def open_page(tmp_path_factory) -> Iterator[Callable[..., Page]]:
    """Opens a file in Chromium: ``open_page(path, width=1280, dark=False)``."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("chromium"))

    def open_(path: Path, width: int = 1280, dark: bool = False) -> Page:
        return Page(browser, path, width, dark)

    yield open_
    browser.close()
