"""Unpack what came from the network: nothing outside its folder, no links, no more than the disk can hold."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mlclipsim.artifacts import ArtifactError

__all__ = ["is_archive", "unpack"]

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_RATIO, _LEAST = 100, 2**26  # an archive may grow that many times, and by at least that many bytes
_BLOCK = 4096  # what even an empty file takes of the disk
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,
    EOFError,
)
_FOREIGN = "__MACOSX"  # what macOS adds to archives


@dataclass(frozen=True)
class _Member:
    name: PurePosixPath
    n_bytes: int
    own: Any  # the library's own record of it


def is_archive(name: str) -> bool:
    """Whether :func:`unpack` knows this kind of file, by its name."""
    return name.lower().endswith(_SUFFIXES)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack an archive into a folder, and say how many files that were.

    Files appear in the folder whole, after all of the archive was read. Where all lie in one folder that is
    called like ``folder``, it is not doubled.

    Raises:
        ArtifactError: it is damaged, or holds what no data set does: absolute paths, paths that leave the
            folder, links or devices, or far more than its size promises.
    """
    work = folder / f".unpacking-{archive.name}"
    shutil.rmtree(work, ignore_errors=True)  # of a killed run
    work.mkdir(parents=True)
    try:
        _extract(archive, work)
        return _move(work, folder)
    except _DAMAGED as error:
        text = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{archive}: cannot be unpacked ({text}); move it away and fetch it again"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    most = min(max(_LEAST, _RATIO * archive.stat().st_size), shutil.disk_usage(folder).free)
    total = 0
    with _opened(archive) as (members, read):
        for member in tqdm(members, desc=archive.name, unit="file"):
            total += max(member.n_bytes, _BLOCK)
            if total > most:
                raise ValueError(f"it unpacks to more than {most:,} bytes, which is no data set's measure")
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with read(member.own) as source, path.open("xb") as copy:
                shutil.copyfileobj(source, copy)
            if path.stat().st_size != member.n_bytes:
                raise ValueError(f"{member.name} has {path.stat().st_size:,} bytes, not {member.n_bytes:,}")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[_Member], Any]]:
    """The files of an archive in its order, and what opens one of them.

    Only their bytes are taken: neither owners nor permissions, and nothing that is no file.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_members(zipped), zipped.open
    else:
        with tarfile.open(archive) as tarred:
            yield _tar_members(tarred), tarred.extractfile


def _zip_members(zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or PurePosixPath(info.filename).parts[:1] == (_FOREIGN,):
            continue
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"{info.filename!r} is no file")
        yield _Member(_inside(info.filename), info.file_size, info)


def _tar_members(tarred: tarfile.TarFile) -> Iterator[_Member]:
    for info in tarred:
        if info.isdir():
            continue
        if not info.isfile():
            raise ValueError(f"{info.name!r} is no file")
        yield _Member(_inside(info.name), info.size, info)
    while tarred.fileobj.read(2**20):  # to the sum of all: tarfile takes a damaged header for the end
        pass


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ValueError(f"{name!r} would lie outside the folder")
    return path


def _move(source: Path, folder: Path) -> int:
    tops = list(source.iterdir())
    if len(tops) == 1 and tops[0].is_dir() and tops[0].name == folder.name:
        source = tops[0]
    files = [path for path in source.rglob("*") if path.is_file()]
    for path in files:
        place = folder / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    return len(files)
