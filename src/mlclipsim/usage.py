"""What the command line answers with exit code 2; apart, so that raising and catching it imports nothing."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """The command line or the configuration is wrong, rather than the work having failed."""
