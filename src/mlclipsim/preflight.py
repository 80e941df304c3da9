"""What is looked at before the first job of a run starts: whether its results can be written, and go on."""

from __future__ import annotations

import time
from pathlib import Path

from mlclipsim.atomic import sweep, temporary
from mlclipsim.mishaps import mishap

__all__ = ["PreflightError", "from_the_future", "prepare"]

_SKEW_S = 10.0  # of a file server's clock; below it a job's outputs are the newer ones all the same


class PreflightError(RuntimeError):
    """The run would fail; the message is one sentence."""


def prepare(results: Path, preset: str) -> None:
    """Make the folder of a preset's results ready, and remove what killed writers left below ``results``.

    Raises:
        PreflightError: nothing can be written there, or a file is newer than now, so that all that is made
            from it would seem out of date.
    """
    folder = results / preset
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(results)
        with temporary(folder / "room") as file:
            file.write_bytes(b"room")
    except OSError as error:
        here = OSError(error.errno, error.strerror, str(folder))
        raise PreflightError(mishap(here) or str(error)) from error
    latest = time.time() + _SKEW_S
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mtime > latest:
            raise PreflightError(from_the_future(path))


def from_the_future(path: Path) -> str:
    """The sentence on a result that is newer than now."""
    made, now = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        for moment in (path.stat().st_mtime, time.time())
    )
    return (
        f"{path}: expected a file of the past, it is of {made} and the clock says {now}; set the clock "
        "right, or touch the file where it is, and run the same command again"
    )
