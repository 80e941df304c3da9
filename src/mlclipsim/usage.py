"""What the command line answers with exit code 2; apart, so that raising and catching it imports little."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["Parser", "UsageError"]


class UsageError(ValueError):
    """The command line or the configuration is wrong, rather than the work having failed."""


class Parser(argparse.ArgumentParser):
    """Its errors are one sentence, as all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mlclipsim: {message}; `{self.prog} --help` shows what is expected\n")
