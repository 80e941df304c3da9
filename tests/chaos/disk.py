"""A disk that is full, or may not be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .ground import Ground
from .outcome import Outcome

__all__ = ["ROOMS_KIB", "faults"]

ROOMS_KIB = (0, 4, 8)  # that are left on the full disk: for nothing, one small file, two
_WITHOUT = ("default/tables", "default/figures", "default/claims.json", "default/scores")
_CAPABILITIES = "-dac_override,-dac_read_search,-fowner"  # by which root passes over permissions


def faults(ground: Ground, rooms: Sequence[int]) -> Iterator[Outcome]:
    """The rows; the disk is full as often as there are ``rooms``, in KiB."""
    yield _full(ground, rooms)
    yield _read_only(ground)
    yield _forbidden(ground)


def _full(ground: Ground, rooms: Sequence[int]) -> Outcome:
    row = Outcome(f"disk full: a tmpfs with {', '.join(map(str, rooms))} KiB left")
    for room in rooms:
        ground.clear()
        with _mounted(ground, "-t", "tmpfs", "tmpfs") as why_not:
            if why_not:
                row.seen = f"not tried: {why_not}"
                return row
            ground.restore(*_WITHOUT)
            used = shutil.disk_usage(ground.results).used // 1024
            _mount("-o", f"remount,size={used + room}k", str(ground.results))
            ground.endure(row, lambda: _mount("-o", "remount,size=2g", str(ground.results)))
    return row


def _read_only(ground: Ground) -> Outcome:
    row = Outcome("results/ mounted read-only")
    ground.restore(*_WITHOUT)
    with _mounted(ground, "--bind", str(ground.results)) as why_not:
        if why_not:
            row.seen = f"not tried: {why_not}"
            return row
        _mount("-o", "remount,ro,bind", str(ground.results))
        ground.endure(row, lambda: _mount("-o", "remount,rw,bind", str(ground.results)))
    return row


def _forbidden(ground: Ground) -> Outcome:
    """Root without the capability to pass over permissions, or whoever else runs this."""
    row = Outcome("no permission to write: the preset's folder, then only its run's")
    before = ["setpriv", "--bounding-set", _CAPABILITIES] if os.geteuid() == 0 else []
    if before and not shutil.which("setpriv"):
        row.seen = "not tried: as root this needs setpriv"
        return row
    for name in ("", "default"):
        ground.restore("default/tables/*", "default/claims.json")
        folder = ground.results / ground.preset / name
        folders = [path for path in [folder, *folder.rglob("*")] if path.is_dir()]
        _permit(folders, 0o555)
        ground.endure(row, partial(_permit, folders, 0o755), before)
    return row


def _permit(folders: list[Path], mode: int) -> None:
    for folder in folders:
        folder.chmod(mode)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def _mounted(ground: Ground, *arguments: str) -> Iterator[str]:
    """Something mounted over the results; yields why that is not possible, if so."""
    done = subprocess.run(["mount", *arguments, str(ground.results)], capture_output=True, text=True)
    try:
        yield done.stderr.strip()
    finally:
        if not done.returncode:
            subprocess.run(["umount", "--lazy", str(ground.results)], check=True)
