"""Which GPU a job takes: of several in one host, one that no other job of ours has.

Snakemake counts how many jobs may have a GPU at once (``--resources gpu=4``), but not which. A job therefore
locks a file per GPU, which the system unlocks when the process ends, however it ends.

Standard library only: it must be settled before torch is imported.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["claim", "visible"]

_FOLDER = Path(tempfile.gettempdir()) / "mlclipsim-gpus"  # of the host: jobs of all runs meet here
_SECONDS = 2.0  # between two looks for a free one

_held: list[int] = []  # descriptors of locked files, open as long as this process lives


def visible() -> list[str]:
    """UUIDs of the GPUs that this process may use, by ``nvidia-smi`` and ``CUDA_VISIBLE_DEVICES``."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return listed
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    return [listed[int(n)] if n.isdigit() and int(n) < len(listed) else n for n in names]


def claim(count: int) -> list[str]:
    """Wait for ``count`` GPUs that no other process has claimed, and let this process see them alone.

    Returns:
        Their names; none where there is no GPU, and then nothing is changed.

    Raises:
        ValueError: more are asked for than there are.
    """
    names = visible()
    if not names:
        return []
    if count > len(names):
        raise ValueError(f"expected {count} GPUs, found {len(names)}; lower `resources: gpu` of this rule")
    while not (taken := _try(names, count)):
        print("waiting for a GPU that no other job has", file=sys.stderr, flush=True)
        time.sleep(_SECONDS)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return taken


def _try(names: list[str], count: int) -> list[str]:
    """Lock ``count`` of these, or none: who keeps one while it waits for another may wait for ever."""
    locked: dict[str, int] = {}
    for name in names:
        if len(locked) < count and (descriptor := _lock(name)) is not None:
            locked[name] = descriptor
    if len(locked) < count:
        for descriptor in locked.values():
            os.close(descriptor)
        return []
    _held.extend(locked.values())
    return list(locked)


def _lock(name: str) -> int | None:
    """The descriptor of the locked file of a GPU, None where another process has it."""
    path = _FOLDER / f"{name.replace('/', '_')}.lock"
    if not path.exists():  # opening another user's file as if to create it is refused in a sticky folder
        _FOLDER.mkdir(mode=0o777, parents=True, exist_ok=True)
        with suppress(PermissionError):
            _FOLDER.chmod(0o777)  # the mode of mkdir is cut by the umask
        path.touch(mode=0o666)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
