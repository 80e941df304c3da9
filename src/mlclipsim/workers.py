"""Worker processes that end with the step that they work for."""

from __future__ import annotations

import os

import joblib

from mlclipsim import lifeline

__all__ = ["worker_processes"]


def worker_processes(number: int) -> joblib.Parallel:
    """Call it with ``joblib.delayed`` tasks: results come one by one, in their order. One is this process."""
    return joblib.Parallel(
        n_jobs=number, return_as="generator", initializer=lifeline.follow, initargs=(os.getpid(),)
    )
