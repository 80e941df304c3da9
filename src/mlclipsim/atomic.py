"""Files that appear whole or not at all; the standard library only."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic", "sweep", "temporary"]

_SUFFIX = ".partial"
_FULL = 4096  # bytes: what is left of a full disk


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync and rename it, on failure remove it.

    A reader therefore sees the old file, the new one or none, whatever kills the writer; what is left of a
    killed one, :func:`sweep` removes.

    Raises:
        OSError: the disk is full, whatever the writer raised then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary(path) as partial:
        try:
            yield partial
            with partial.open("rb+") as stream:
                os.fsync(stream.fileno())
        except Exception as error:
            if _is_full(error, path.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise
        partial.chmod(0o644)
        partial.replace(path)


@contextmanager
def temporary(path: Path | str) -> Iterator[Path]:
    """Yield an empty file beside ``path``, gone afterwards; locked, so that :func:`sweep` leaves it."""
    path = Path(path)
    handle: int | None
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
        if not _lock(handle):  # so that nobody sweeps it either
            os.close(handle)
            handle = None
        if handle is None or os.path.exists(name):
            break
        os.close(handle)  # swept before it was locked
    try:
        yield Path(name)
    finally:
        if handle is not None:
            os.close(handle)
        Path(name).unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove temporary files below ``folder`` whose writers were killed, and say how many."""
    count = 0
    for waste in folder.rglob(f".*{_SUFFIX}"):
        try:
            handle = os.open(waste, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if _lock(handle, wait=False):
                waste.unlink(missing_ok=True)
                count += 1
        finally:
            os.close(handle)
    return count


def _is_full(error: Exception, folder: Path) -> bool:
    """Whether that is why nothing could be written: some libraries have exceptions of their own for it."""
    number = error.errno if isinstance(error, OSError) else None
    told = number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
    return told or shutil.disk_usage(folder).free < _FULL


def _lock(handle: int, *, wait: bool = True) -> bool:
    """Whether the file is ours alone; on file systems, and other systems, without locks it never is."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True
