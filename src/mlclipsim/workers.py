"""Worker processes that end with the step that they work for."""

from __future__ import annotations

import multiprocessing
import os

import joblib
from joblib.externals.loky import get_reusable_executor

from mlclipsim import lifeline

__all__ = ["end_workers", "worker_processes"]


def worker_processes(number: int) -> joblib.Parallel:
    """Call it with ``joblib.delayed`` tasks: results come one by one, in their order. One is this process."""
    return joblib.Parallel(
        n_jobs=number, return_as="generator", initializer=lifeline.follow, initargs=(os.getpid(),)
    )


def end_workers() -> None:
    """End those that idle: what they have used counts as this process's children's only then."""
    if multiprocessing.active_children():
        get_reusable_executor(reuse=True).shutdown(wait=True)
