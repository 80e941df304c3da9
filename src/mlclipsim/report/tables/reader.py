"""A printed table read back from the Markdown that :mod:`mlclipsim.report.tables.writer` wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mlclipsim.artifacts import ArtifactError

__all__ = ["Cell", "Printed", "read"]

_BAR = re.compile(r"(?<!\\)\|")  # a bar that is no text


@dataclass(frozen=True)
class Cell:
    """One cell as printed."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Printed:
    """A table as a reader sees it: the caption's sentence, heads, rows (their names first), and the notes."""

    caption: str
    heads: list[str]
    rows: list[list[Cell]]
    notes: list[str]


def read(path: Path) -> Printed:
    """Read one printed table.

    Raises:
        ArtifactError: the file is missing, or not of the writer's making.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); run the step that makes it") from error
    table = [_cells(line) for line in lines if line.startswith("| ")]
    if len(table) < 2 or not lines[0].startswith("**") or any(len(row) != len(table[0]) for row in table):
        raise ArtifactError(f"{path} is not a printed table of this version; delete it and run again")
    last = max(number for number, line in enumerate(lines) if line.startswith("| "))
    return Printed(
        caption=lines[0].strip("*").rstrip("."),
        heads=[cell.text for cell in table[0]],
        rows=table[2:],  # the second line is the rule below the heads
        notes=[line.strip() for line in lines[last + 1 :] if line.strip()],
    )


def _cells(line: str) -> list[Cell]:
    parts = [part.strip().replace("\\|", "|") for part in _BAR.split(line)[1:-1]]
    return [
        Cell(part[2:-2], bold=True) if len(part) > 4 and part[:2] == part[-2:] == "**" else Cell(part)
        for part in parts
    ]
