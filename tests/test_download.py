"""Downloads from a server on this machine that drops, stalls, lies and errs."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlclipsim import download as downloads
from mlclipsim.download import DownloadError, Remote, download

from .webserver import (
    announcing,
    dropping,
    in_turn,
    redirecting,
    serving,
    stalling,
    status,
    unannounced,
    whole,
    without_ranges,
)

CONTENT = bytes(range(256)) * 400  # 100 KiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as web:
        yield web


def remote(*urls: str, known: bool = True) -> Remote:
    return Remote(urls, SHA256 if known else None, len(CONTENT) if known else None)


def left(folder: Path) -> list[str]:
    """What lies in a folder, apart from locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("behaviour", [whole, without_ranges, unannounced])
def test_a_whole_file_comes_in_one_go(web, tmp_path, known, behaviour):
    url = web.put("/w.bin", CONTENT, behaviour)
    assert download(remote(url, known=known), tmp_path / "a" / "w.bin").read_bytes() == CONTENT
    assert left(tmp_path / "a") == ["w.bin"]
    download(remote(url, known=known), tmp_path / "a" / "w.bin")
    assert len(web.asked) == 1  # what is there is not asked for again


@pytest.mark.parametrize("known", [True, False])
def test_dropped_connections_are_resumed(web, tmp_path, known):
    url = web.put("/w.bin", CONTENT, dropping(30_000))
    assert download(remote(url, known=known), tmp_path / "w.bin").read_bytes() == CONTENT
    ranges = [asked for _, asked in web.asked]
    assert ranges == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_a_stalled_connection_is_given_up_and_resumed(web, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT_S", (10.0, 2.0))
    url = web.put("/w.bin", CONTENT, in_turn(stalling(60), whole))
    assert download(remote(url), tmp_path / "w.bin").read_bytes() == CONTENT
    assert web.asked[1] == ("/w.bin", f"bytes={len(CONTENT) // 2}-")


def test_without_ranges_a_dropped_download_begins_anew(web, tmp_path):
    url = web.put("/w.bin", CONTENT, in_turn(dropping(30_000), without_ranges))
    assert download(remote(url), tmp_path / "w.bin").read_bytes() == CONTENT


def test_who_never_gets_further_gives_up_and_keeps_the_part(web, tmp_path):
    url = web.put("/w.bin", CONTENT, in_turn(dropping(30_000), dropping(0)))
    with pytest.raises(DownloadError, match=r"it ended|IncompleteRead.*4 times without progress"):
        download(remote(url), tmp_path / "w.bin")
    assert left(tmp_path) == ["w.bin.part", "w.bin.part.json"]
    assert (tmp_path / "w.bin.part").read_bytes() == CONTENT[:30_000]

    web.behaviours.clear()  # the next day
    download(remote(url), tmp_path / "w.bin")
    assert web.asked[-1] == ("/w.bin", "bytes=30000-")
    assert left(tmp_path) == ["w.bin"]


@pytest.mark.parametrize("length", [len(CONTENT) - 1000, len(CONTENT) + 1000])
def test_a_lie_about_the_length_is_refused(web, tmp_path, length):
    url = web.put("/w.bin", CONTENT, announcing(length))
    with pytest.raises(DownloadError, match=f"expected 102,400 bytes, the server announces {length:,}"):
        download(remote(url), tmp_path / "w.bin")
    assert left(tmp_path) == []


def test_where_the_size_is_not_known_a_lie_about_it_is_found_out(web, tmp_path):
    less = web.put("/less", CONTENT, announcing(len(CONTENT) - 1000))
    with pytest.raises(DownloadError, match="expected sha256"):
        download(Remote((less,), SHA256), tmp_path / "less")
    assert left(tmp_path) == []
    more = web.put("/more", CONTENT, announcing(len(CONTENT) + 1000))
    assert download(Remote((more,)), tmp_path / "more").read_bytes() == CONTENT
    assert web.asked[-1] == ("/more", "bytes=102400-")  # answered by 416: there is no more


def test_more_than_was_expected_is_refused(web, tmp_path):
    url = web.put("/w.bin", CONTENT + b"more", unannounced)
    with pytest.raises(DownloadError, match="expected 102,400 bytes, the server sends more"):
        download(remote(url), tmp_path / "w.bin")
    assert left(tmp_path) == []


def test_wrong_bytes_are_refused_and_not_kept(web, tmp_path):
    url = web.put("/w.bin", CONTENT[::-1])
    with pytest.raises(DownloadError, match=f"expected sha256 {SHA256}, got "):
        download(remote(url), tmp_path / "w.bin")
    assert left(tmp_path) == []


def test_first_digits_of_a_sum_decide_too(web, tmp_path):
    url = web.put("/w-1234abcd.pth", CONTENT)
    download(Remote((url,), SHA256[:8]), tmp_path / "right")
    with pytest.raises(DownloadError, match="expected sha256 1234abcd, got"):
        download(Remote((url,), "1234abcd"), tmp_path / "wrong")


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Not here</title>", b"\n <html>log in first</html>"])
def test_a_page_with_status_200_is_no_file(web, tmp_path, page):
    url = web.put("/w.bin", page)
    with pytest.raises(DownloadError, match="a page instead of the file"):
        download(remote(url, known=False), tmp_path / "w.bin")
    assert left(tmp_path) == []


def test_redirections_are_followed_but_not_in_a_circle(web, tmp_path):
    web.put("/w.bin", CONTENT)
    there = web.put("/there", b"", redirecting("/w.bin"))
    circle = web.put("/circle", b"", redirecting("/circle"))
    assert download(remote(there), tmp_path / "w.bin").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="30 redirects"):
        download(remote(circle), tmp_path / "other.bin")


def test_mirrors_are_asked_in_turn(web, tmp_path):
    urls = [
        f"{web.address}/gone",
        web.put("/wrong", CONTENT[::-1]),
        web.put("/half", CONTENT, in_turn(dropping(50_000), status(503))),
        web.put("/right", CONTENT),
    ]
    assert download(remote(*urls), tmp_path / "w.bin").read_bytes() == CONTENT
    assert web.asked[-1] == ("/right", "bytes=50000-")  # the sum will tell: another mirror goes on

    with pytest.raises(DownloadError, match=r"/gone: status 404; .*/wrong: expected sha256"):
        download(remote(*urls[:2]), tmp_path / "other.bin")


def test_passing_statuses_are_tried_again(web, tmp_path):
    url = web.put("/w.bin", CONTENT, in_turn(status(503), status(429), whole))
    download(remote(url), tmp_path / "w.bin")
    assert len(web.asked) == 3


def test_a_part_of_another_version_is_not_continued(web, tmp_path):
    """Without a sum, only the server's validator says whether the file is still the same."""
    url = web.put("/w.bin", CONTENT, in_turn(dropping(30_000), dropping(0)))
    with pytest.raises(DownloadError):
        download(remote(url, known=False), tmp_path / "w.bin")
    newer = b"another version of it" * 5000
    web.put("/w.bin", newer)
    web.behaviours.clear()
    assert download(remote(url, known=False), tmp_path / "w.bin").read_bytes() == newer
    assert web.asked[-1] == ("/w.bin", "bytes=30000-")


def test_a_part_of_nobody_knows_what_is_not_continued(web, tmp_path):
    url = web.put("/w.bin", CONTENT)
    (tmp_path / "w.bin.part").write_bytes(b"x" * 1000)
    assert download(remote(url, known=False), tmp_path / "w.bin").read_bytes() == CONTENT
    assert web.asked == [("/w.bin", None)]


def test_a_part_that_is_complete_needs_no_byte(web, tmp_path):
    url = web.put("/w.bin", CONTENT)
    for name, known in (("a", remote(url)), ("b", Remote((url,), SHA256))):
        (tmp_path / f"{name}.part").write_bytes(CONTENT)
        assert download(known, tmp_path / name).read_bytes() == CONTENT
    assert web.asked == [("/w.bin", f"bytes={len(CONTENT)}-")]  # answered by 416


def test_a_part_that_is_too_long_begins_anew(web, tmp_path):
    url = web.put("/w.bin", CONTENT)
    (tmp_path / "w.bin.part").write_bytes(CONTENT + b"x")
    assert download(Remote((url,), SHA256), tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_file_that_is_another_one_is_not_overwritten(web, tmp_path):
    url = web.put("/w.bin", CONTENT)
    (tmp_path / "w.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="expected 102,400 bytes, got 4; move it away"):
        download(remote(url), tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == b"mine"


def test_two_who_want_one_file_get_it_once(web, tmp_path):
    url = web.put("/w.bin", CONTENT)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(remote(url), tmp_path / "w.bin"), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(web.asked) == 1


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as web:
        url = f"{web.address}/w.bin"
    with pytest.raises(DownloadError, match=r"w\.bin could not be downloaded \(.*ConnectionError.*\)$"):
        download(remote(url), tmp_path / "w.bin")


def test_no_room_is_said_before_anything_comes(web, tmp_path, monkeypatch):
    url = web.put("/w.bin", CONTENT)
    usage = downloads.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match=r"needs 102,400 bytes, but .* has 1,000 free"):
        download(remote(url), tmp_path / "w.bin")


def test_a_killed_download_leaves_a_part_that_is_resumed(web, tmp_path):
    url = web.put("/w.bin", CONTENT, stalling(60))
    code = "import sys; from pathlib import Path; from mlclipsim.download import *; " + (
        "download(Remote((sys.argv[1],), sys.argv[2]), Path(sys.argv[3]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, url, SHA256, str(tmp_path / "w.bin")], stderr=subprocess.DEVNULL
    )
    part = tmp_path / "w.bin.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "w.bin").exists()
    got = part.stat().st_size
    assert 0 < got < len(CONTENT)

    web.behaviours.clear()
    assert download(remote(url), tmp_path / "w.bin").read_bytes() == CONTENT
    assert web.asked[-1] == ("/w.bin", f"bytes={got}-")
