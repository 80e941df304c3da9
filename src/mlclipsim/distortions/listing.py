"""The registry as a table for readers: on the terminal, and in docs/distortions.md."""

from __future__ import annotations

from mlclipsim import listing
from mlclipsim.distortions import FAMILIES, Family

__all__ = ["COLUMNS", "as_markdown", "as_text", "cells"]

COLUMNS = ("family", "parameter", "mildest", "strongest", "unit", "photometric", "discrete", "source")


def cells(entry: Family) -> tuple[str, ...]:
    """What :data:`COLUMNS` say of one family; what it is not stays empty."""
    return (
        entry.name,
        entry.quantity,
        f"{entry.mildest:g}",
        f"{entry.strongest:g}",
        entry.unit,
        "yes" if entry.photometric else "",
        f"{len(entry.levels)} levels" if entry.levels else "",
        entry.source,
    )


def as_text() -> str:
    """One line a family, in columns as wide as they need to be."""
    return listing.as_text([COLUMNS, *(cells(entry) for entry in FAMILIES.values())])


def as_markdown() -> str:
    """The same as a GitHub table."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [(f"`{name}`", *others) for name, *others in (cells(entry) for entry in FAMILIES.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
