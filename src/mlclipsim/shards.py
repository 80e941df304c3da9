"""Shares of a step's work: which units a share has, and where what it made waits to be put together.

Steps that are dear per image read tables whose row groups hold whole references, and write a row group for
each of them. A shard is a contiguous range of these units, so that the row groups of all shards, one after
another, are the file that one job writes, however many shards there are (:mod:`mlclipsim.gather`).

Standard library only: the workflow imports this at every start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlclipsim.usage import UsageError

__all__ = [
    "RECORD",
    "RECORDS",
    "WHOLE",
    "Shard",
    "input_of",
    "made_in",
    "names",
    "option",
    "part",
    "part_log",
    "part_record",
    "parts",
    "record",
]

RECORDS = "provenance"  # folder of the records of what lies beside it
RECORD = "provenance.json"  # of a part, beside what it made: not among those, since it goes with the part
_FOLDER = "parts"


@dataclass(frozen=True)
class Shard:
    """Share ``number``, from 1, of ``count`` equal ones."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``3-of-16`` as a shard.

        Raises:
            UsageError: it is none.
        """
        found = re.fullmatch(r"([0-9]+)-of-([0-9]+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"expected a shard like 3-of-16, got {text!r}; count from 1")
        return cls(int(found[1]), int(found[2]))

    @property
    def first(self) -> bool:
        """Whether it is this shard's to write what is about no unit in particular."""
        return self.number == 1

    def of(self, units: int) -> range:
        """Its contiguous part of so many units: of all shards equally many but for one, perhaps none."""
        return range(units * (self.number - 1) // self.count, units * self.number // self.count)


WHOLE = Shard(1, 1)


def names(count: int) -> list[str]:
    """Of so many shards, in their order: ``1-of-3``, ``2-of-3``, ``3-of-3``."""
    return [f"{number}-of-{count}" for number in range(1, count + 1)]


def part(path: str, shard: str) -> str:
    """Where a shard writes its part of ``path``."""
    whole = PurePosixPath(path)
    return str(whole.parent / _FOLDER / shard / whole.name)


def part_record(path: str, shard: str) -> str:
    """The record of provenance of a part, whose first output is of ``path``."""
    return str(PurePosixPath(part(path, shard)).with_name(RECORD))


def part_log(path: str, shard: str) -> str:
    """The log of the job that makes a part of ``path``; it stays when the parts have been put together."""
    folder = PurePosixPath(path).parent
    return str(folder / "logs" / f"{folder.name}-{shard}.txt")


def parts(whole: list[str], configured: int) -> list[str]:
    """All that the shards of a job leave, which puts them together; nothing where the job makes all itself.

    Args:
        whole: its outputs.
        configured: how many shards the configuration asks for.
    """
    count = made_in(Path(whole[0]), configured)
    if count == 1:
        return []
    return [
        path
        for shard in names(count)
        for path in (*(part(path, shard) for path in whole), part_record(whole[0], shard))
    ]


def input_of(rules: Any, configured: int) -> Callable[[str], Callable[[Any], list[str]]]:
    """What gives a rule of Snakemake its :func:`parts`, by the name of its step."""

    def of_step(step: str) -> Callable[[Any], list[str]]:
        def of_job(wildcards: Any) -> list[str]:
            known = dict(wildcards.items())
            return parts([str(path).format(**known) for path in getattr(rules, step).output], configured)

        return of_job

    return of_step


def option(files: Iterable[str]) -> list[str]:
    """``--parts folder ...`` of the parts that a rule puts together; nothing where it makes all itself."""
    folders = dict.fromkeys(str(PurePosixPath(file).parent) for file in files)
    return ["--parts", *folders] if folders else []


def record(path: Path) -> Path:
    """The record of provenance that a step leaves beside its first output."""
    return path.parent / RECORDS / f"{path.stem}.json"


def made_in(path: Path, configured: int) -> int:
    """In how many shards a file is to be made: as it was if it is there with its record, else as configured.

    Snakemake makes a file again whose set of inputs has changed, and the parts are inputs: with their present
    number, another one in the configuration would make again what cannot come out otherwise.
    """
    if not path.is_file():
        return configured
    try:
        return int(json.loads(record(path).read_text(encoding="utf-8"))["measured"].get("shards", 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return configured
