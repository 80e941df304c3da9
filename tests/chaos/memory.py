"""Jobs for which memory runs out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ground import Ground
from .outcome import Outcome

__all__ = ["faults"]

_CGROUPS = Path("/sys/fs/cgroup")
_WITHOUT = ("default/tables", "default/claims.json", "shared/predictions-*", "shared/votes-*")
_GROUP_MIB = 600  # for Snakemake and its jobs together: the largest of them, a job, is killed
_ADDRESSES_MIB = 2048  # of any one process: as much as Snakemake needs, too little for torch


def faults(ground: Ground) -> Iterator[Outcome]:
    yield _killed_by_the_system(ground)
    yield _refused_by_the_system(ground)


def _killed_by_the_system(ground: Ground) -> Outcome:
    row = Outcome(f"out of memory: the run in a cgroup of {_GROUP_MIB} MiB")
    with _cgroup() as (join, why_not):
        if why_not:
            row.seen = f"not tried: {why_not}"
            return row
        _try(ground, row, join)
    return row


def _refused_by_the_system(ground: Ground) -> Outcome:
    row = Outcome(f"out of memory: {_ADDRESSES_MIB} MiB of addresses a process (prlimit --as)")
    if not shutil.which("prlimit"):
        row.seen = "not tried: needs prlimit"
        return row
    _try(ground, row, ["prlimit", f"--as={_ADDRESSES_MIB * 2**20}"])
    return row


def _try(ground: Ground, row: Outcome, before: list[str]) -> None:
    ground.restore(*_WITHOUT)
    ground.endure(row, lambda: None, before)


@contextmanager
def _cgroup() -> Iterator[tuple[list[str], str]]:
    """A control group with little memory, of either version: what joins it, or why there is none."""
    first = (_CGROUPS / "memory").is_dir()
    group = (_CGROUPS / "memory" if first else _CGROUPS) / f"chaos-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if first else "memory.max")
    try:
        group.mkdir()
        limit.write_text(str(_GROUP_MIB * 2**20))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        yield [], f"no control group of memory can be made here ({error.strerror})"
        return
    try:
        yield ["bash", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "bash"], ""
    finally:
        group.rmdir()
