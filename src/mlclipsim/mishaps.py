"""What goes wrong with the machine and not with the work, in a sentence each; the standard library only."""

from __future__ import annotations

import errno
import re
import signal

__all__ = ["killed", "mishap"]

_AGAIN = "run the same command again"
_MEMORY = f"expected enough memory, there was none left; end other programs or use fewer cores, and {_AGAIN}"
_WORDS = {
    errno.ENOSPC: "expected room to write, the disk is full; free some space",
    errno.EDQUOT: "expected room to write, the quota is used up; free some space",
    errno.EROFS: "expected a folder to write to, its file system is read-only; mount it for writing",
    errno.EACCES: "expected permission to use it, got none; change its owner or mode",
    errno.EPERM: "expected permission to use it, got none; change its owner or mode",
}
# How libraries say it that raise errors of their own, or that only hand on what the system said.
_ERRNO = re.compile(r"\[Errno (\d+)\] [^:]*(?:: '([^']*)')?")
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "failed to map segment",
)
_ABRUPTLY = "A process in the process pool was terminated abruptly"  # Python's own, which knows no more
_WORKERS = re.compile(r"exit codes of the workers are \{(\w+)")


def mishap(error: BaseException | str) -> str | None:
    """What is wrong with the machine, and what to do; None where ``error``, or its text, is about else."""
    text = str(error)
    if isinstance(error, MemoryError) or any(word in text.lower() for word in _NO_MEMORY):
        return _MEMORY
    if found := _WORKERS.search(text):  # joblib's, when one of them is gone
        return killed(found[1], "a worker process")
    if _ABRUPTLY in text:
        return killed("", "a worker process")
    number, place = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    if number is None and (told := _ERRNO.search(text)):
        number, place = int(told[1]), told[2]
    if number not in _WORDS:
        return None
    return f"{f'{place}: ' if place else ''}{_WORDS[number]}, and {_AGAIN}"


def killed(by: str, what: str = "its process") -> str:
    """The same of a process that a signal ended.

    Args:
        by: name of the signal, as ``SIGKILL``; empty: not known, which is nearly always that one.
        what: was ended.
    """
    if by in ("", signal.SIGKILL.name):
        why = "as the system does when memory runs out; if nobody else did, use fewer cores"
        return f"{what} was killed{f' ({by})' if by else ''}, {why}, and {_AGAIN}"
    return f"{what} was ended by {by}; {_AGAIN}"
