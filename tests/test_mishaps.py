"""What the machine does wrong is one sentence with what to do, whichever library says it."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures.process import BrokenProcessPool

import pytest

from mlclipsim.mishaps import killed, mishap

WORKER = (
    "A worker process managed by the executor was unexpectedly terminated. This could be caused by a "
    "segmentation fault while calling the function or by an excessive memory usage causing the Operating "
    "System to kill the worker.\n\nThe exit codes of the workers are {SIGKILL(-9)}\nDetailed tracebacks ..."
)


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            "a/b: expected room to write, the disk is full",
        ),
        ("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space", "expected room to write"),
        (
            "Traceback ...\nOSError: [Errno 30] Read-only file system: 'results/x'",
            "results/x: expected a folder to",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "r"),
            "r: expected permission to use it, got none",
        ),
        (MemoryError("Unable to allocate 3 GiB"), "expected enough memory, there was none left"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "expected enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "expected enough memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "expected enough memory"),
        (
            RuntimeError(WORKER),
            "a worker process was killed (SIGKILL), as the system does when memory runs out",
        ),
        (
            BrokenProcessPool(
                "A process in the process pool was terminated abruptly while the future was running."
            ),
            "a worker process was killed, as the system does when memory runs out",
        ),
    ],
)
def test_mishaps_are_told_in_one_sentence(error, start):
    said = mishap(error)
    assert said.startswith(start)
    assert said.endswith("run the same command again")
    assert not re.search(r"\n|\. ", said)


@pytest.mark.parametrize(
    "error",
    [ValueError("expected x, got y"), FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a"), ""],
)
def test_other_errors_are_none(error):
    assert mishap(error) is None


def test_other_signals_are_named():
    assert killed("SIGSEGV") == "its process was ended by SIGSEGV; run the same command again"
