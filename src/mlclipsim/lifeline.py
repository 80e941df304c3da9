"""A process that ends with the ones that it works for, even where these were killed without a word.

The jobs of a killed run, and the workers of a killed job, would go on otherwise: beside those of the next
run, and for nobody. A thread waits until the system tells of the end of one that is watched. On Linux;
elsewhere none is.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

from mlclipsim.mishaps import killed

__all__ = ["RUN", "follow", "follow_run"]

RUN = "MLCLIPSIM_RUN"  # environment: the process id of the Snakemake that starts this job
_IS_TOLD = hasattr(os, "pidfd_open")  # whether this system tells of the end of other processes


def follow(process: int) -> None:
    """End when ``process`` ends; for workers, whose parent it is."""
    _watch([process])


def follow_run() -> None:
    """End when the run ends that started this job, or what stands between the two, such as the job's shell.

    Without ``$MLCLIPSIM_RUN`` there is no run to follow.

    Raises:
        RuntimeError: one of these has ended already.
    """
    run = os.environ.get(RUN)
    if run and _IS_TOLD:
        try:
            _watch(_up_to(int(run)))
        except (FileNotFoundError, ProcessLookupError):
            raise RuntimeError(
                killed("", "the shell that started this job")
                if Path("/proc", run).exists()
                else f"expected the run that started this job, process {run}, which has ended; start it again"
            ) from None


def _watch(processes: Iterable[int]) -> None:
    if not _IS_TOLD:
        return
    ends = select.poll()
    try:
        for process in processes:
            ends.register(os.pidfd_open(process), select.POLLIN)
    except ProcessLookupError:
        raise
    except OSError:  # a kernel, or a container, that does not know the call
        return

    def wait() -> None:
        ends.poll()
        os.kill(os.getpid(), signal.SIGKILL)  # nothing may hold it up; what it leaves, the next run sweeps

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _up_to(ancestor: int) -> list[int]:
    """The processes above this one, as far as ``ancestor``.

    Raises:
        ProcessLookupError: it is not among them.
    """
    found: list[int] = []
    process = os.getpid()
    while process != ancestor:
        if process <= 1:
            raise ProcessLookupError(ancestor)
        # man 5 proc: id, (name), state, id of the parent; a name may hold anything
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        process = int(stat.rpartition(")")[2].split()[1])
        found.append(process)
    return found
