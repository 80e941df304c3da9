"""Tables larger than memory, sorted, joined and looked up on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq

from mlclipsim.artifacts import ArtifactError

__all__ = ["RowGroups", "Spool"]

_CACHE_KIB = 4_096  # of SQLite's pages


class Spool:
    """Rows kept sorted by their key in a temporary SQLite file, of which a few megabytes are in memory.

    A row's key is unique. ``with Spool(path) as spool``: the file is gone afterwards.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        # Nothing here outlives the process: no journal, no waiting for the disk.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def fill(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Iterable[tuple]) -> None:
        """Add ``rows`` to ``table``, which is made at the first call; ``key`` are its leading columns.

        Raises:
            ArtifactError: two rows of one key.
        """
        self._database.execute(
            f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)}, PRIMARY KEY ({', '.join(key)})) "
            "WITHOUT ROWID"
        )
        places = ", ".join("?" * len(columns))
        self._database.execute("BEGIN")
        try:
            self._database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        except sqlite3.IntegrityError as error:
            raise ArtifactError(
                f"{table}: expected one row per ({', '.join(key)}), got two of one, or one without "
                f"({error}); make the table anew"
            ) from None
        self._database.execute("COMMIT")

    def select(self, query: str, *values: Any) -> Iterator[tuple]:
        """The rows of an SQL query, one at a time."""
        return self._database.execute(query, values)

    def one(self, query: str, *values: Any) -> Any:
        """First value of the first row, None without rows."""
        row = self._database.execute(query, values).fetchone()
        return row[0] if row else None


class RowGroups:
    """Single rows of a parquet file by (row group, row), as dicts; neighbours are read once."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self._group = lru_cache(maxsize=2)(self._file.read_row_group)

    def places(self, columns: list[str]) -> Iterator[tuple]:
        """``(*columns, row group, row)`` of every row."""
        for group in range(self._file.num_row_groups):
            table = self._file.read_row_group(group, columns=columns)
            values = (table.column(name).to_pylist() for name in columns)
            yield from ((*row, group, number) for number, row in enumerate(zip(*values, strict=True)))

    def row(self, group: int, number: int) -> dict[str, Any]:
        return self._group(group).slice(number, 1).to_pylist()[0]
