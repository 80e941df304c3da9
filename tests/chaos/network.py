"""Downloads from a server on this machine that misbehaves, and archives that do."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from mlclipsim import download as downloads
from mlclipsim.archives import unpack
from mlclipsim.artifacts import ArtifactError
from mlclipsim.download import Remote, download

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
    "with ../ in a name (zip)": ("a.zip", lambda path: as_zip(path, {"good": b"x", "../evil": b"y"})),
    "with ../ in a name (tar)": ("a.tar.gz", lambda path: as_tar(path, {"good": b"x", "a/../../evil": b"y"})),
    "with an absolute path (zip)": (
        "a.zip",
        lambda path: as_zip(path, {"good": b"x", str(path.parent / "evil"): b"y"}),
    ),
    "with an absolute path (tar)": (
        "a.tar.gz",
        lambda path: as_tar(path, {"good": b"x", str(path.parent / "evil"): b"y"}),
    ),
    "with a symbolic link": ("a.tar.gz", _link(tarfile.SYMTYPE)),
    "with a hard link": ("a.tar.gz", _link(tarfile.LNKTYPE)),
    "with a device": ("a.tar.gz", _link(tarfile.CHRTYPE)),
    "a bomb of 200 MB (zip)": ("a.zip", lambda path: as_zip(path, {"zeros": bytes(200_000_000)})),
    "a bomb of 200 MB (tar)": ("a.tar.gz", lambda path: as_tar(path, {"zeros": bytes(200_000_000)})),
}


def faults() -> Iterator[Outcome]:
    for name, (content, behaviour) in _SERVERS.items():
        yield _download(f"a server that {name}", content, behaviour)
    for name, (file, make) in _ARCHIVES.items():
        yield _unpack(f"an archive {name}", file, make)


def _download(fault: str, content: bytes, behaviour: Behaviour) -> Outcome:
    """The file comes whole, or one sentence and no file; once the server behaves, it comes."""
    row = Outcome(fault)
    problems = []
    patient = mock.patch.multiple(downloads, _PAUSE_S=0.0, _TIMEOUT_S=(10.0, 2.0))
    environment = mock.patch.dict("os.environ", {"NO_PROXY": "127.0.0.1", "TQDM_DISABLE": "1"})
    with serving() as web, tempfile.TemporaryDirectory() as folder, patient, environment:
        url = web.put("/w.bin", content, behaviour)
        remote = Remote((url,), hashlib.sha256(_CONTENT).hexdigest(), len(_CONTENT))
        target = Path(folder) / "w.bin"
        try:
            download(remote, target)
            row.seen = "nothing: the file comes whole"
        except ArtifactError as error:
            row.seen = _anonymous(error, folder, web.address)
            problems = ["a file of its name is there"] if target.exists() else []
        web.behaviours.clear()
        web.put("/w.bin", _CONTENT)
        if download(remote, target).read_bytes() != _CONTENT:
            problems.append("other bytes in the end")
        if left := [path.name for path in Path(folder).iterdir() if path != target]:
            problems.append(f"left behind: {left}")
    row.note(problems)
    return row


def _unpack(fault: str, file: str, make: Callable[[Path], Path]) -> Outcome:
    """One sentence, and not even the good files of it are there."""
    row = Outcome(fault)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict("os.environ", {"TQDM_DISABLE": "1"}):
        archive = make(Path(folder) / file)
        problems = []
        try:
            unpack(archive, Path(folder) / "out")
            problems = ["it was unpacked"]
        except ArtifactError as error:
            row.seen = _anonymous(error, folder)
        if list(contents(Path(folder))) != [file]:
            problems.append(f"files: {list(contents(Path(folder)))}")
    row.note(problems)
    return row


def _anonymous(error: ArtifactError, *places: str) -> str:
    text = str(error)
    for place in places:
        text = text.replace(f"{place}/", "")
    return text
