"""Downloads from a server on this machine that misbehaves, and archives that do."""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from tqdm import tqdm

from mlclipsim import archives
from mlclipsim import download as downloads
from mlclipsim.archives import unpack
from mlclipsim.artifacts import ArtifactError
from mlclipsim.fetch import fetch

from ..test_archives import as_tar, as_zip, contents
from ..webserver import Behaviour, announcing, dropping, in_turn, redirecting, serving, stalling, whole
from .outcome import Outcome

__all__ = ["faults"]

_CONTENT = bytes(range(256)) * 400
_PAGE = b"<!DOCTYPE html><title>Busy</title>"
_SERVERS: dict[str, tuple[bytes, Behaviour]] = {
    "drops the connection every 30 kB": (_CONTENT, dropping(30_000)),
    "drops every connection at once": (_CONTENT, dropping(0)),
    "stalls in the middle": (_CONTENT, in_turn(stalling(60), whole)),
    "announces less than it sends": (_CONTENT, announcing(len(_CONTENT) - 1000)),
    "announces more than it sends": (_CONTENT, announcing(len(_CONTENT) + 1000)),
    "redirects in a circle": (_CONTENT, redirecting("/w.bin")),
    "answers with a page and status 200": (_PAGE, whole),
    "sends wrong bytes": (_CONTENT[::-1], whole),
}


def _link(kind: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        return as_tar(path, {"good": b"x"}, info)

    return make


_ARCHIVES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "an archive with ../ in a name (zip)": (
        "a.zip",
        lambda path: as_zip(path, {"good": b"x", "../evil": b"y"}),
    ),
    "an archive with ../ in a name (tar)": (
        "a.tar.gz",
        lambda path: as_tar(path, {"good": b"x", "a/../../evil": b"y"}),
    ),
    "an archive with an absolute path (zip)": (
        "a.zip",
        lambda path: as_zip(path, {"good": b"x", str(path.parent / "evil"): b"y"}),
    ),
    "an archive with an absolute path (tar)": (
        "a.tar.gz",
        lambda path: as_tar(path, {"good": b"x", str(path.parent / "evil"): b"y"}),
    ),
    "an archive with a symbolic link": ("a.tar.gz", _link(tarfile.SYMTYPE)),
    "an archive with a hard link": ("a.tar.gz", _link(tarfile.LNKTYPE)),
    "an archive with a device": ("a.tar.gz", _link(tarfile.CHRTYPE)),
    "an archive that is a bomb of 200 MB (zip)": (
        "a.zip",
        lambda path: as_zip(path, {"zeros": bytes(200_000_000)}),
    ),
    "an archive that is a bomb of 200 MB (tar)": (
        "a.tar.gz",
        lambda path: as_tar(path, {"zeros": bytes(200_000_000)}),
    ),
}


def faults() -> Iterator[Outcome]:
    for name, (content, behaviour) in _SERVERS.items():
        yield _download(f"a server that {name}", content, behaviour)
    for name, (file, make) in _ARCHIVES.items():
        yield _unpack(name, file, make)


def _download(fault: str, content: bytes, behaviour: Behaviour) -> Outcome:
    """The file comes whole, or one sentence and no file; once the server behaves, it comes."""
    row = Outcome(fault)
    problems = []
    with serving() as web, tempfile.TemporaryDirectory() as folder, _quiet(folder):
        url = web.put("/w.bin", content, behaviour)
        entry = {"weights": "assets:w.bin", "url": url, "sha256": hashlib.sha256(_CONTENT).hexdigest()}
        if content is not _PAGE:  # where the size is known, that is what is found first
            entry["bytes"] = len(_CONTENT)
        target = Path(folder) / "w.bin"
        try:
            fetch("net", entry)
            row.seen = "nothing: the file comes whole"
        except ArtifactError as error:
            row.seen = _anonymous(error, {folder: "assets", web.address: "http://..."})
            problems = ["a file of its name is there"] if target.exists() else []
        web.behaviours.clear()
        web.put("/w.bin", _CONTENT)
        fetch("net", entry)
        if target.read_bytes() != _CONTENT:
            problems.append("other bytes in the end")
        if left := [path.name for path in Path(folder).iterdir() if path != target]:
            problems.append(f"left behind: {left}")
    row.note(problems)
    return row


@contextmanager
def _quiet(assets: str) -> Iterator[None]:
    """Downloads into a folder that wait for nobody, without bars."""
    variables = {"NO_PROXY": "127.0.0.1", "MLCLIPSIM_ASSETS": assets}
    hasty = {"_PAUSE_S": 0.0, "_TIMEOUT_S": (10.0, 2.0), "tqdm": partial(tqdm, disable=True)}
    with mock.patch.dict("os.environ", variables), mock.patch.multiple(downloads, **hasty):
        yield


def _unpack(fault: str, file: str, make: Callable[[Path], Path]) -> Outcome:
    """One sentence, and not even the good files of it are there."""
    row = Outcome(fault)
    silent = mock.patch.object(archives, "tqdm", partial(tqdm, disable=True))
    with tempfile.TemporaryDirectory() as folder, silent:
        archive = make(Path(folder) / file)
        problems = []
        try:
            unpack(archive, Path(folder) / "out")
            problems = ["it was unpacked"]
        except ArtifactError as error:
            row.seen = _anonymous(error, {folder: "assets"})
        if list(contents(Path(folder))) != [file]:
            problems.append(f"files: {list(contents(Path(folder)))}")
    row.note(problems)
    return row


def _anonymous(error: ArtifactError, names: dict[str, str]) -> str:
    """Its text, without what differs from one campaign to the next."""
    text = str(error)
    for place, name in names.items():
        text = text.replace(place, name)
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1...", text)
